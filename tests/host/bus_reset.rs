//! Functions that only their bus resets: VFIO's hot reset fails, or the process is killed, at any write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeFunction, Mishap};
use pcidevs::host::{Attachable, Guarding, HostError, HostManager, HostState};

use crate::scaffold::{at, guest, open, reopen, set};

const NIC: (u16, u16) = (0x8086, 0x100e);
const PAIR: [&str; 2] = ["0000:05:00.0", "0000:05:00.1"];

/// Two functions of one card, of which the kernel resets neither alone.
fn machine() -> Fake {
    let fake = crate::scaffold::machine();
    fake.add_driver("e1000", pcidevs::host::fake::FakeDriver::of(NIC));
    let mut port = FakeFunction::bridge((0x1b36, 0x000c), 20, 5);
    // A PCIe root port, which keeps requester IDs apart.
    (port.config[0x06], port.config[0x34]) = (0x10, 0x40);
    port.config[0x40..0x44].copy_from_slice(&[0x10, 0, 0x42, 0]);
    fake.add(at("0000:00:02.0"), port);
    for (device, reset) in PAIR.into_iter().zip([Some("bus"), None]) {
        let reset_method = reset.map(str::to_owned);
        fake.add(at(device), FakeFunction { reset_method, ..FakeFunction::endpoint(NIC, 21) });
    }
    fake
}

fn dump(fake: &Fake) -> Vec<String> {
    PAIR.iter()
        .map(|device| format!("{:?} {:?}", fake.driver(at(device)), fake.driver_override(at(device))))
        .collect()
}

fn attach(manager: &HostManager) -> Result<(), HostError> {
    let wanted: Vec<_> = set(&PAIR).into_iter().map(Attachable::managed).collect();
    manager.attach(&wanted, &guest("vm"), Guarding::On)
}

#[test]
fn both_are_reset_by_one_reset_of_the_bus() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    fake.take_written();
    attach(&manager).expect("attached");
    let resets = |fake: &Fake| {
        let written = fake.take_written();
        written.into_iter().filter(|line| line.contains("reset")).collect::<Vec<_>>()
    };
    assert_eq!(resets(&fake), ["hot reset of 0000:05:00.0, groups [21]"]);
    assert_eq!(PAIR.map(|device| fake.resets(at(device))), [1, 1]);
    let released = manager.release(&set(&PAIR), &guest("vm")).expect("released");
    assert_eq!((released.returned, resets(&fake).len()), (set(&PAIR), 1));
    assert_eq!(dump(&fake), before);
}

#[test]
fn a_write_that_fails_leaves_them_as_before() {
    for write in 1.. {
        let fake = machine();
        let before = dump(&fake);
        let manager = open(&fake);
        let has_failed = Arc::new(AtomicBool::new(false));
        let fails = has_failed.clone();
        fake.on_write(move |number, _| {
            fails.fetch_or(number == write, Ordering::Relaxed);
            (number == write).then_some(Mishap::Error(Errno::EIO))
        });
        let done = attach(&manager);
        fake.behave();
        if !has_failed.load(Ordering::Relaxed) {
            done.expect("attached");
            break;
        }
        if done.is_ok() {
            // What a failed probe did not do, a bind has done.
            manager.release(&set(&PAIR), &guest("vm")).expect("released");
        }
        assert_eq!(dump(&fake), before, "write {write}");
        assert!(PAIR.iter().all(|device| manager.record(at(device)).is_none()), "write {write}");
    }
}

#[test]
fn a_kill_at_any_write_is_recovered_from() {
    for write in 1.. {
        let fake = machine();
        let before = dump(&fake);
        let manager = open(&fake);
        fake.on_write(move |number, _| (number == write).then_some(Mishap::Crash));
        let done = attach(&manager);
        drop(manager);
        let was_killed = fake.is_dead();
        fake.behave();
        fake.restart();
        let (manager, recovery) = reopen(&fake);
        assert_eq!((recovery.damage, recovery.unsaved), (None, None), "write {write}");
        if PAIR
            .iter()
            .any(|device| matches!(manager.status(at(device)).expect("known").state, HostState::Guest(_)))
        {
            manager.release(&set(&PAIR), &guest("vm")).expect("released");
        }
        assert_eq!(dump(&fake), before, "write {write}");
        if !was_killed {
            done.expect("attached");
            break;
        }
    }
}

#[test]
fn a_group_that_somebody_opens_meanwhile_refuses_the_reset() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    let (theirs, held) = (fake.clone(), Arc::new(std::sync::Mutex::new(None)));
    let holds = held.clone();
    fake.on_write(move |_, what| {
        if what.starts_with("hot reset") {
            *holds.lock().expect("unpoisoned") = theirs.open_device(at(PAIR[1]));
        }
        None
    });
    assert_eq!(attach(&manager).expect_err("in use").errno(), Errno::EBUSY);
    fake.behave();
    assert!(held.lock().expect("unpoisoned").take().is_some(), "it was open");
    drop(manager);
    // What could not be undone while it was open is mended when it is not.
    let (manager, _) = reopen(&fake);
    for device in PAIR.map(at) {
        if matches!(manager.status(device).expect("known").state, HostState::Broken { .. }) {
            manager.repair(device).expect("repaired");
        }
    }
    if PAIR.iter().any(|device| manager.record(at(device)).is_some()) {
        manager.reattach(&set(&PAIR)).expect("reattached");
    }
    assert_eq!(dump(&fake), before);
}
