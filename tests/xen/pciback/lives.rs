//! Lives of guests: the models of driver and front end as threads of their own, on both stores.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pcidevs::xen::pciback::{Patience, Toolstack};
use pcidevs::xen::store::{Event, Reply, Request, Store, StoreError, TransactionId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{GUEST, device, dump, exports, node};
use crate::Tested;
use crate::model::{Driver, Frontend, Manners, Version};
use crate::stores::{World, on_every_store};

/// A store that ends when it is told.
struct Stoppable {
    store: Box<dyn Store + Send>,
    stop: Arc<AtomicBool>,
}

impl Store for Stoppable {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        self.store.request(transaction, request)
    }

    fn next_event(&mut self, _until: Duration) -> Result<Option<Event>, StoreError> {
        while !self.stop.load(Ordering::Relaxed) {
            let until = self.store.now() + Duration::from_millis(20);
            if let Some(event) = self.store.next_event(until)? {
                return Ok(Some(event));
            }
        }
        Err(StoreError::Closed)
    }

    fn now(&self) -> Duration {
        self.store.now()
    }
}

/// Runs a party until it is told to end; what it gave up for is a failure.
fn party(
    world: &World,
    stop: &Arc<AtomicBool>,
    mut turn: impl FnMut(&mut dyn Store) -> Result<Option<&'static str>, StoreError> + Send + 'static,
) -> thread::JoinHandle<Result<(), String>> {
    let mut store = Stoppable { store: world.connect(), stop: Arc::clone(stop) };
    thread::spawn(move || {
        loop {
            match turn(&mut store) {
                Ok(None) => {}
                Ok(Some(fatal)) => return Err(fatal.to_owned()),
                Err(StoreError::Closed) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    })
}

/// `PCIDEVS_LIVES=1000` for more.
fn changes() -> Result<usize, std::num::ParseIntError> {
    std::env::var("PCIDEVS_LIVES").map_or(Ok(60), |number| number.parse())
}

#[test]
fn after_any_number_of_changes_the_store_says_what_there_is_and_nothing_is_left() -> Tested {
    let changes = changes()?;
    on_every_store(|world| {
        let stop = Arc::new(AtomicBool::new(false));
        let mut store = world.connect();
        store.introduce(GUEST, 1, 2)?;
        for folder in
            ["/local/domain/7/device", "/local/domain/0/backend/pci", "/model/exported", "/model/seen"]
        {
            store.mkdir(None, &node(folder))?;
        }
        let mut driver = Driver::new(Version::LooksOnce);
        let mut frontend = Frontend::new(Manners::Linux);
        let bound = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [driver_has, frontend_has] = bound.clone();
        let parties = [
            party(world, &stop, move |store| {
                driver.turn(store)?;
                driver_has.store(driver.bound, Ordering::Relaxed);
                Ok(driver.fatal)
            }),
            party(world, &stop, move |store| {
                frontend.turn(store)?;
                frontend_has.store(frontend.bound, Ordering::Relaxed);
                Ok(frontend.fatal)
            }),
        ];
        let lived = live(&mut *store, changes, &bound);
        stop.store(true, Ordering::Relaxed);
        for party in parties {
            party.join().map_err(|_| "a party failed")??;
        }
        lived
    })
}

/// A kernel that looks only after a folder was removed and made again takes it for the old one (docs/xen.md).
fn await_unbound(bound: &[Arc<AtomicBool>]) {
    while bound.iter().any(|bound| bound.load(Ordering::Relaxed)) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn live(store: &mut dyn Store, changes: usize, bound: &[Arc<AtomicBool>]) -> Tested {
    let mut random = StdRng::seed_from_u64(7);
    let mut there: BTreeSet<u8> = BTreeSet::new();
    // A machine under load is slow, and nobody here is ever stuck.
    let patience = Patience { rest: Duration::from_mins(2), attempts: 1000 };
    for _ in 0..changes {
        let mut guest = Toolstack::new(store, GUEST).with_patience(patience);
        let any: BTreeSet<u8> = (0..3).map(|_| random.random_range(0..8)).collect();
        let new: BTreeSet<u8> = any.difference(&there).copied().collect();
        match random.random_range(0..10) {
            _ if there.is_empty() => {
                await_unbound(bound);
                guest.publish(&exports(any.iter().copied()), "guest")?;
                guest.await_connected()?;
                there = any;
            }
            0..5 if !new.is_empty() => {
                let taken = guest.add(&exports(new.iter().copied()))?;
                assert!(taken.iter().all(|one| one.guest_address.is_some()) && taken.len() == new.len());
                there.extend(new);
            }
            9 => {
                let released = guest.release()?;
                assert_eq!((released.devices.len(), released.by_driver), (there.len(), true));
                there.clear();
            }
            _ => {
                let one = there.pop_first().ok_or("there is one")?;
                guest.remove(device(one))?;
            }
        }
        let listed: BTreeSet<_> = guest.list()?.into_iter().map(|one| one.device).collect();
        assert_eq!(listed, there.iter().map(|function| device(*function)).collect());
    }
    Toolstack::new(store, GUEST).with_patience(patience).release()?;
    let left: Vec<String> = dump(store, &node("/"))?;
    let left: Vec<&String> = left.iter().filter(|line| line.contains("pci")).collect();
    assert_eq!(left, [""; 0]);
    Ok(())
}
