//! Driver and front end as threads of their own: the models, on any store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pcidevs::DomainId;
use pcidevs::xen::store::{Event, NodePath, Reply, Request, Store, StoreError, TransactionId};

use crate::Tested;
use crate::model::{Driver, Frontend, Manners, Version};
use crate::stores::World;

/// The guest whose front end it is.
const GUEST: DomainId = DomainId::new(7);

/// What becomes of a kernel that gives up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// It is a failure of the test.
    Told,
    /// Guests die and tool stacks fail: it goes on.
    Expected,
}

/// Both kernels, at work until they are told to end.
pub(crate) struct Kernels {
    stop: Arc<AtomicBool>,
    bound: [Arc<AtomicBool>; 2],
    parties: [thread::JoinHandle<Result<(), String>>; 2],
}

impl Kernels {
    /// Makes the guest known, and starts both.
    pub(crate) fn start(world: &World, faults: Faults) -> Result<Self, StoreError> {
        let mut store = world.connect();
        store.introduce(GUEST, 1, 2)?;
        for folder in
            ["/local/domain/7/device", "/local/domain/0/backend/pci", "/model/exported", "/model/seen"]
        {
            store.mkdir(None, &NodePath::new(folder)?)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut driver = Driver::new(Version::LooksOnce);
        let mut frontend = Frontend::new(Manners::Linux);
        let bound = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [driver_has, frontend_has] = bound.clone();
        let told = move |fatal: Option<&'static str>| fatal.filter(|_| faults == Faults::Told);
        let parties = [
            party(world, &stop, move |store| {
                driver.turn(store)?;
                driver_has.store(driver.bound, Ordering::Relaxed);
                Ok(told(driver.fatal))
            }),
            party(world, &stop, move |store| {
                frontend.turn(store)?;
                frontend_has.store(frontend.bound, Ordering::Relaxed);
                Ok(told(frontend.fatal))
            }),
        ];
        Ok(Self { stop, bound, parties })
    }

    /// A kernel that looks only after a folder was removed and made again takes it for the old one (docs/xen.md).
    pub(crate) fn await_unbound(&self) {
        while self.bound.iter().any(|bound| bound.load(Ordering::Relaxed)) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends both.
    pub(crate) fn end(self) -> Tested {
        self.stop.store(true, Ordering::Relaxed);
        for party in self.parties {
            party.join().map_err(|_| "a party failed")??;
        }
        Ok(())
    }
}

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
