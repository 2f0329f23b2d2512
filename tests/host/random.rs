//! Ten thousand operations at random, with faults: at the end nothing is left.

use pcidevs::host::fake::{FakeFunction, Mishap, OpenDevice};
use pcidevs::host::{Attachable, DriverType, Guarding, HostManager, HostState, Recovered};
use pcidevs::{Errno, Sbdf};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::scaffold::{
    CARD, NIC, OTHER, PORTS, STAYS, VF, at, check, dump, guest, guests_network, machine_with_virtual, reopen,
    states,
};

const OPERATIONS: usize = 10_000;
const ERRORS: [Errno; 5] = [Errno::EBUSY, Errno::EIO, Errno::EACCES, Errno::ENODEV, Errno::ENOSPC];

/// Not every request makes sense, and not every write succeeds: what counts is what is left.
fn ignore<T, E>(_: Result<T, E>) {}

/// Whether it succeeded.
fn operate(manager: &HostManager, random: &mut SmallRng, devices: &[Sbdf]) -> bool {
    let count = random.random_range(1..=3);
    let some: Vec<Sbdf> = (0..count).map(|_| devices[random.random_range(0..devices.len())]).collect();
    let name = guest(["a", "b", "c"][random.random_range(0..3)]);
    match random.random_range(0..10) {
        0 | 1 => manager.detach(&some, &DriverType::Default, Guarding::On).is_ok(),
        2 | 3 => {
            let wanted = some.iter().map(|device| {
                let wanted = match random.random_range(0..2) {
                    0 => Attachable::managed(*device),
                    _ => Attachable::detached(*device),
                };
                let is_named = *device == at(VF) && random.random_range(0..4) > 0;
                if is_named { wanted.with_network(guests_network()) } else { wanted }
            });
            manager.attach(&wanted.collect::<Vec<_>>(), &name, Guarding::On).is_ok()
        }
        4 | 5 => {
            // Mostly what a guest really has.
            let theirs: Vec<Sbdf> =
                manager.saved_devices(&name).iter().map(|saved| at(&saved.address)).collect();
            let set = if theirs.is_empty() { some } else { theirs };
            manager.release(&set, &name).is_ok()
        }
        6 => manager.reattach(&some).is_ok(),
        7 => manager.retry_deferred().is_ok(),
        8 => manager.reset(some[0]).is_ok(),
        _ => manager.repair(some[0]).is_ok(),
    }
}

#[test]
fn ten_thousand_operations_with_faults_end_with_nothing_left() {
    let fake = machine_with_virtual();
    let vanishing = at("0000:05:00.0");
    fake.add(vanishing, FakeFunction::endpoint(NIC, 20));
    let original = dump(&fake);
    let mut devices: Vec<Sbdf> = [CARD, OTHER, STAYS, VF].into_iter().chain(PORTS).map(at).collect();
    devices.push(vanishing);
    let mut random = SmallRng::seed_from_u64(20);
    let (mut manager, _) = reopen(&fake);
    // The bridge is held by what is behind it.
    let uses = manager.uses();
    let mut files: Vec<OpenDevice> = Vec::new();
    let (mut restarts, mut succeeded) = (0, 0);
    for round in 0..OPERATIONS {
        // A fault now and then, or a run of them; sometimes the end of the process.
        let (first, length) = (random.random_range(1..25), random.random_range(1..4));
        let errno = ERRORS[random.random_range(0..ERRORS.len())];
        let kills = random.random_range(0..4) == 0;
        fake.on_write(move |write, _| match write {
            write if kills && write == first => Some(Mishap::Crash),
            write if (first..first + length).contains(&write) => Some(Mishap::Error(errno)),
            _ => None,
        });
        succeeded += u32::from(operate(&manager, &mut random, &devices));
        match random.random_range(0..40) {
            // Guests open what is theirs, and close it when they like.
            0..4 => files.extend(
                manager
                    .saved_devices(&guest("a"))
                    .first()
                    .and_then(|saved| fake.open_device(at(&saved.address))),
            ),
            4..10 => drop(files.pop()),
            10 => {
                fake.unplug(vanishing);
                ignore(manager.rescan());
            }
            11 if fake.command(vanishing).is_none() => fake.add(vanishing, FakeFunction::endpoint(NIC, 20)),
            _ => {}
        }
        if fake.is_dead() || round % 1000 == 999 {
            drop(manager);
            fake.behave();
            fake.restart();
            manager = reopen(&fake).0;
            restarts += 1;
        }
        if round % 100 == 0 {
            fake.behave();
            ignore(manager.retry_deferred());
            check_present(&fake, &manager);
        }
    }
    fake.behave();
    files.clear();
    fake.unplug(vanishing);
    manager.rescan().expect("looked");
    devices.pop();
    for device in manager.list().expect("listed") {
        match device.state {
            HostState::Guest(guest) => drop(manager.release(&[device.address], &guest).expect("released")),
            HostState::Broken { .. } => manager.repair(device.address).expect("repaired"),
            HostState::Foreign => manager.adopt(&[device.address]).expect("adopted"),
            _ => {}
        }
    }
    let released = manager.reattach(&devices).expect("reattached");
    assert!(released.failed.is_empty() && released.deferred.is_empty(), "{released:?}");
    assert_eq!(dump(&fake), original, "drivers, overrides, network identities");
    assert!(devices.iter().all(|device| manager.record(*device).is_none()), "records");
    assert_eq!(manager.uses(), uses, "counts");
    drop(manager);
    let (_, recovery) = reopen(&fake);
    assert_eq!((recovery.devices, recovery.foreign), (vec![], vec![]), "the journal");
    assert!(
        succeeded > 1000 && restarts > 100,
        "{succeeded} of them, {restarts} restarts: that tries little"
    );
    eprintln!("{OPERATIONS} operations, {succeeded} succeeded, {restarts} restarts");
}

#[test]
fn four_clients_at_once_with_faults_end_with_nothing_left() {
    let fake = machine_with_virtual();
    let original = dump(&fake);
    let devices: Vec<Sbdf> = [CARD, OTHER, STAYS, VF].into_iter().chain(PORTS).map(at).collect();
    let (manager, _) = reopen(&fake);
    let mut faults = SmallRng::seed_from_u64(7);
    fake.on_write(move |_, _| {
        let strikes = faults.random_range(0..40) == 0;
        strikes.then(|| Mishap::Error(ERRORS[faults.random_range(0..ERRORS.len())]))
    });
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (manager, devices) = (&manager, &devices);
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(seed);
                for _ in 0..1000 {
                    // Two that meet at a device are told to try again; what is left is what counts.
                    operate(manager, &mut random, devices);
                }
            });
        }
    });
    fake.behave();
    // Nobody is at work now, so everything is in order.
    ignore(manager.retry_deferred());
    check(&fake, &manager);
    let told = states(&manager);
    drop(manager);
    let (manager, recovery) = reopen(&fake);
    let kept = |what: &Recovered| matches!(what, Recovered::Kept | Recovered::Broken(_));
    assert!(recovery.devices.iter().all(|(_, what)| kept(what)), "{recovery:?}");
    assert_eq!(states(&manager), told, "the journal says the same");
    for device in manager.list().expect("listed") {
        match device.state {
            HostState::Guest(guest) => drop(manager.release(&[device.address], &guest).expect("released")),
            HostState::Broken { .. } => manager.repair(device.address).expect("repaired"),
            _ => {}
        }
    }
    let released = manager.reattach(&devices).expect("reattached");
    assert!(released.failed.is_empty() && released.deferred.is_empty(), "{released:?}");
    assert_eq!(dump(&fake), original);
}

/// What is there is in order; a device that was pulled out without a word may have a record still.
fn check_present(fake: &pcidevs::host::fake::Fake, manager: &HostManager) {
    ignore(manager.rescan());
    check(fake, manager);
}
