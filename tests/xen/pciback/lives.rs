//! Lives of guests: the models of driver and front end as threads of their own, on both stores.

use std::collections::BTreeSet;
use std::time::Duration;

use pcidevs::xen::pciback::{Patience, Toolstack};
use pcidevs::xen::store::Store;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{GUEST, device, dump, exports, node};
use crate::Tested;
use crate::kernels::{Faults, Kernels};
use crate::stores::on_every_store;

/// `PCIDEVS_LIVES=1000` for more.
fn changes() -> Result<usize, std::num::ParseIntError> {
    std::env::var("PCIDEVS_LIVES").map_or(Ok(60), |number| number.parse())
}

#[test]
fn after_any_number_of_changes_the_store_says_what_there_is_and_nothing_is_left() -> Tested {
    let changes = changes()?;
    on_every_store(|world| {
        let kernels = Kernels::start(world, Faults::Told)?;
        let mut store = world.connect();
        let lived = live(&mut *store, changes, &kernels);
        kernels.end()?;
        lived
    })
}

fn live(store: &mut dyn Store, changes: usize, kernels: &Kernels) -> Tested {
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
                kernels.await_unbound();
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
