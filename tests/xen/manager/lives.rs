//! Random attaches, detaches, faults and deaths of guests, with driver and front end as threads; then nothing is left.

use std::time::Duration;

use pcidevs::xen::assignable::Afterwards;
use pcidevs::xen::hypercall::DomainInfo;
use pcidevs::xen::manager::{Waiting, XenError};
use pcidevs::xen::pciback::Patience;
use pcidevs::xen::store::{NodePath, Store};
use pcidevs::{Errno, Owner};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{BACKEND, FUNCTIONS, GUEST, Machine, device, set};
use crate::Tested;
use crate::fate::Blow;
use crate::kernels::{Faults, Kernels};
use crate::stores::{World, on_every_store};

/// `PCIDEVS_LIVES=1000` for more on a machine that is slow.
fn deeds() -> Result<usize, std::num::ParseIntError> {
    std::env::var("PCIDEVS_LIVES").map_or(Ok(200), |number| number.parse())
}

/// A guest that is only slow on a machine under load is buried as one that is stuck: nothing is left either way.
fn patient() -> Patience {
    Patience { rest: Duration::from_secs(5), attempts: 1000 }
}

/// What was done, for the report.
#[derive(Debug, Default)]
struct Tally {
    attached: usize,
    detached: usize,
    refused: usize,
    faults: usize,
    deaths: usize,
    stuck: usize,
}

/// A kernel's folder is there.
fn has_backend(store: &mut dyn Store) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(store.find(None, &NodePath::new(BACKEND)?.child("state")?)?.is_some())
}

/// The guest dies; its devices come back, and one of the same number is made.
fn bury(machine: &Machine, world: &World, kernels: &Kernels) -> Tested {
    world.kill(GUEST);
    machine.xen.destroy(GUEST);
    let mut store = world.connect();
    while store.is_introduced(GUEST)? {
        std::thread::yield_now();
    }
    let manager = machine.open_with(patient())?;
    manager.release(GUEST)?;
    for function in 0..FUNCTIONS {
        assert_eq!(manager.owner(device(function)), Some(Owner::Quarantine), "function {function}");
    }
    assert_eq!(machine.left(), [""; 0]);
    kernels.await_unbound();
    machine.xen.create(DomainInfo::guest(GUEST));
    world.revive(GUEST)
}

fn live(
    machine: &Machine,
    world: &World,
    kernels: &Kernels,
    deeds: usize,
) -> Result<Tally, Box<dyn std::error::Error>> {
    let mut random = StdRng::seed_from_u64(11);
    let mut tally = Tally::default();
    let mut manager = machine.open_with(patient())?;
    for _ in 0..deeds {
        let owners: Vec<_> = (0..FUNCTIONS).map(|function| manager.owner(device(function))).collect();
        let mut with = |owner: Owner, most: usize| -> Vec<u8> {
            let theirs = (0..FUNCTIONS).filter(|function| owners[usize::from(*function)] == Some(owner));
            let mut some: Vec<u8> = theirs.filter(|_| random.random_range(0..3) == 0).collect();
            some.truncate(most);
            some
        };
        let (free, taken) = (with(Owner::Quarantine, 3), with(Owner::Guest(GUEST), 2));
        let blow = random.random_range(1..24);
        let blows = [(blow, Blow::Fails)];
        let blows = if random.random_range(0..3) == 0 { &blows[..] } else { &[] };
        let what = random.random_range(0..20);
        if what == 0 {
            drop(manager);
            machine.expect(&[]);
            bury(machine, world, kernels)?;
            tally.deaths += 1;
            manager = machine.open_with(patient())?;
            continue;
        }
        if !has_backend(&mut *world.connect())? {
            kernels.await_unbound();
        }
        machine.expect(blows);
        let done = if what < 12 && !free.is_empty() {
            let done = manager.attach(GUEST, &set(free), Waiting::No).map(|_| ());
            tally.attached += usize::from(done.is_ok());
            done
        } else if !taken.is_empty() {
            let taken: Vec<_> = taken.into_iter().map(device).collect();
            let done = manager.detach(GUEST, &taken);
            tally.detached += usize::from(done.is_ok());
            done
        } else {
            continue;
        };
        tally.faults += machine.fate.struck();
        machine.expect(&[]);
        if let Err(error) = done {
            if error.errno() == Errno::ETIMEDOUT {
                // A fault in taking the last devices gives them to the guest again at once, and a kernel that looks only
                // then takes the new folders for the old ones: known, and ended by a release.
                drop(manager);
                bury(machine, world, kernels)?;
                tally.stuck += 1;
                manager = machine.open_with(patient())?;
                continue;
            }
            assert!(!blows.is_empty(), "without a fault: {error}");
            tally.refused += 1;
            // What could not be undone is broken in this process; another one looks anew.
            if matches!(error, XenError::Undo { .. }) || random.random_range(0..4) == 0 {
                manager = machine.open_with(patient())?;
            }
        }
    }
    Ok(tally)
}

#[test]
fn random_attaches_detaches_faults_and_deaths_leave_nothing() -> Tested {
    let deeds = deeds()?;
    on_every_store(|world| {
        let machine = Machine::on(world.clone());
        let before = machine.look();
        let machine = machine.with_assignable(FUNCTIONS)?;
        let kernels = Kernels::start(world, Faults::Expected)?;
        let lived = live(&machine, world, &kernels, deeds);
        machine.expect(&[]);
        let buried = bury(&machine, world, &kernels);
        kernels.end()?;
        let tally = lived?;
        buried?;
        println!("{deeds} deeds: {tally:?}");
        assert!(tally.attached > deeds / 10 && tally.detached > deeds / 20 && tally.deaths > 0, "{tally:?}");
        assert!(tally.faults > deeds / 20, "{tally:?}");
        let manager = machine.open()?;
        for function in 0..FUNCTIONS {
            manager.assignable_remove(device(function), Afterwards::Rebind)?;
        }
        let after = machine.look();
        assert_eq!(
            (after.drivers, after.owners, after.holdings),
            (before.drivers, before.owners, before.holdings)
        );
        let left: Vec<_> =
            after.store.iter().filter(|line| line.contains("/libxl/") || line.contains("pci/")).collect();
        assert_eq!(left, [""; 0]);
        Ok(())
    })
}
