//! However a device ends, all of it ends, and nobody else with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pcidevs::address::Bus;
use pcidevs::device::BusRange;
use pcidevs::lifecycle::{DeviceInfo, TransitionError};
use pcidevs::platform::{ConfigBytes, Entry, Fault, GroupId, Hook};
use pcidevs::{Holder, Owner};

use crate::machine::{Data, EIO, GUEST, Machine, add, at, empty, machine, nic, owner, set, sim};

/// A physical function and virtual ones.
fn with_vfs(pf: &str, vfs: &[&str]) -> Machine {
    let machine = machine(&[pf]);
    for vf in vfs {
        sim(&machine).plug(at(vf), nic());
        add_vf(&machine, pf, vf, Data::default());
    }
    machine
}

fn add_vf(machine: &Machine, pf: &str, vf: &str, data: Data) {
    let info = DeviceInfo { physical_function: Some(at(pf)), ..DeviceInfo::default() };
    machine.add(at(vf), info, data).expect("added");
}

fn root_port(machine: &Machine, address: &str, secondary: u8) {
    let bus = Bus::new(secondary);
    let buses = BusRange { primary: Bus::new(0), secondary: bus, subordinate: bus };
    sim(machine).plug(at(address), ConfigBytes::root_port(0x8086, 0x1901, buses));
    add(machine, address);
}

#[test]
fn a_destructor_that_panics_does_not_keep_the_rest_of_its_set() {
    let machine = with_vfs("02:00.0", &[]);
    sim(&machine).plug(at("02:10.0"), nic());
    let panics = Data(Some(Box::new(|| std::panic::resume_unwind(Box::new("in a destructor")))));
    add_vf(&machine, "02:00.0", "02:10.0", panics);
    let removed = catch_unwind(AssertUnwindSafe(|| machine.remove_slot(at("02:00.0"))));
    assert!(removed.is_err(), "a destructor's panic propagates");
    for gone in ["02:00.0", "02:10.0"] {
        assert_eq!(owner(&machine, gone), None, "{gone} was closed and taken down");
        assert_eq!(sim(&machine).entry(at(gone)), Entry::Absent);
        add(&machine, gone);
    }
}

#[test]
fn a_removal_of_a_set_that_fails_reopens_what_others_depend_on_first() {
    // What is open again holds what it depends on; were that still closed, letting go of it would be the end.
    let vfs: Vec<String> =
        (0..200).map(|number| format!("02:{:02x}.{}", 4 + number / 8, number % 8)).collect();
    let names: Vec<&str> = vfs.iter().map(String::as_str).collect();
    let machine = Arc::new(with_vfs("02:00.0", &names));
    let last = vfs.last().expect("some").clone();
    let stop = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let (machine, stop, last) = (machine.clone(), stop.clone(), last.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                let _gone = machine.report_gone(at(&last));
            }
        }
    });
    machine.platform().before_hooks(|hook, device| {
        if hook == Some(Hook::IommuDetach) && device == at("02:00.0") {
            std::panic::resume_unwind(Box::new("in a hook"));
        }
    });
    for _ in 0..200 {
        machine.remove_slot(at("02:00.0")).expect_err("a hook fails, or it is busy");
        let info = DeviceInfo { physical_function: Some(at("02:00.0")), ..DeviceInfo::default() };
        // Not while what the one before left is not cleared up.
        let _added = machine.add(at(&last), info, Data::default());
    }
    stop.store(true, Ordering::Relaxed);
    other.join().expect("no panic");
    assert_eq!(owner(&machine, "02:00.0"), Some(Owner::Host));
}

#[test]
fn a_slot_is_not_removed_around_a_function_whose_lock_the_caller_holds() {
    let machine = machine(&["02:00.0", "02:00.1"]);
    let inside = machine.lock(at("02:00.1")).expect("known");
    let removed = machine.remove_slot(at("02:00.0"));
    assert!(matches!(removed, Err(TransitionError::WouldDeadlock(_))), "{removed:?}");
    drop(inside);
    assert_eq!(owner(&machine, "02:00.0"), Some(Owner::Host));
    machine.remove_slot(at("02:00.0")).expect("unused");
}

#[test]
fn a_slot_is_busy_while_a_function_of_it_is_still_being_taken_down() {
    let machine = Arc::new(machine(&["02:00.0", "02:00.1"]));
    sim(&machine).fail_next(Hook::IommuDetach, Fault::Hang);
    let other = thread::spawn({
        let machine = machine.clone();
        move || machine.remove_device(at("02:00.1"))
    });
    sim(&machine).wait_for_hangs(1);
    let removed = machine.remove_slot(at("02:00.0"));
    sim(&machine).release_hangs();
    assert!(other.join().expect("no panic").is_ok());
    assert!(matches!(removed, Err(TransitionError::Busy(..))), "the card may not be pulled yet: {removed:?}");
    machine.remove_slot(at("02:00.0")).expect("unused");
}

#[test]
fn a_slot_is_not_removed_around_a_function_that_came_meanwhile() {
    let machine = Arc::new(machine(&["02:00.0"]));
    sim(&machine).plug(at("02:00.1"), nic());
    let (inner, once) = (Arc::downgrade(&machine), AtomicBool::new(true));
    machine.platform().before_hooks(move |hook, _| {
        // After the slot was looked through, and before anything of it is closed.
        if hook == Some(Hook::Permit)
            && once.swap(false, Ordering::Relaxed)
            && let Some(machine) = inner.upgrade()
        {
            add(&machine, "02:00.1");
        }
    });
    let removed = machine.remove_slot(at("02:00.0"));
    let left = owner(&machine, "02:00.1").is_some();
    assert!(removed.is_err() || !left, "the card would be pulled from under 02:00.1");
}

#[test]
fn a_holders_callback_that_panics_does_not_keep_its_device_from_being_cleared_up() {
    let machine = machine(&["00:03.0"]);
    sim(&machine).set_group(at("00:03.0"), GroupId(3));
    let hold = machine.hold(at("00:03.0"), Holder::Named("test")).expect("memory").expect("known");
    hold.on_gone(Arc::new(|_, _| std::panic::resume_unwind(Box::new("in a callback"))));
    let reported = catch_unwind(AssertUnwindSafe(|| machine.report_gone(at("00:03.0"))));
    assert!(reported.is_err(), "it propagates");
    assert_eq!(sim(&machine).entry(at("00:03.0")), Entry::Absent, "nobody else would clear it");
    assert_eq!(sim(&machine).unflushed(), []);
    drop(hold);
    add(&machine, "00:03.0");
}

#[test]
fn a_bridges_subtree_is_gone_although_a_callback_panics() {
    let machine = empty();
    root_port(&machine, "00:1c.0", 2);
    sim(&machine).plug(at("02:00.0"), nic());
    add(&machine, "02:00.0");
    let hold = machine.hold(at("00:1c.0"), Holder::Named("test")).expect("memory").expect("known");
    hold.on_gone(Arc::new(|_, _| std::panic::resume_unwind(Box::new("in a callback"))));
    let reported = catch_unwind(AssertUnwindSafe(|| machine.report_gone(at("00:1c.0"))));
    assert!(reported.is_err());
    assert_eq!(owner(&machine, "02:00.0"), None, "it is behind the bridge");
    assert_eq!(sim(&machine).entry(at("02:00.0")), Entry::Absent);
}

#[test]
fn a_hook_that_hangs_for_one_device_does_not_keep_its_neighbours_from_being_gone() {
    let machine = empty();
    root_port(&machine, "00:1c.0", 2);
    for device in ["02:00.0", "02:00.1"] {
        sim(&machine).plug(at(device), nic());
        add(&machine, device);
    }
    let machine = Arc::new(machine);
    sim(&machine).fail_next(Hook::IommuDetach, Fault::Hang);
    let reporter = thread::spawn({
        let machine = machine.clone();
        move || machine.report_gone(at("00:1c.0"))
    });
    sim(&machine).wait_for_hangs(1);
    let left: Vec<_> = ["00:1c.0", "02:00.0", "02:00.1"].map(|device| owner(&machine, device)).into();
    sim(&machine).release_hangs();
    reporter.join().expect("no panic").expect("known");
    assert_eq!(left, [None, None, None], "their hardware is gone, hang or no hang");
}

#[test]
fn a_retry_that_hangs_does_not_keep_the_others_waiting() {
    let machine = Arc::new(machine(&["00:03.0", "00:04.0"]));
    sim(&machine).fail_every(Hook::IommuDetach, Fault::Error(EIO));
    machine.report_gone(at("00:03.0")).expect("known");
    machine.report_gone(at("00:04.0")).expect("known");
    sim(&machine).clear_faults();
    sim(&machine).fail_next(Hook::IommuDetach, Fault::Hang);
    let other = thread::spawn({
        let machine = machine.clone();
        move || machine.run_deferred()
    });
    sim(&machine).wait_for_hangs(1);
    machine.run_deferred();
    let cleared = ["00:03.0", "00:04.0"]
        .iter()
        .filter(|device| sim(&machine).entry(at(device)) == Entry::Absent)
        .count();
    sim(&machine).release_hangs();
    other.join().expect("no panic");
    assert_eq!(cleared, 1, "one of them hangs, the other does not");
}

#[test]
fn maps_do_not_forget_the_device_that_came_after_the_one_that_is_gone() {
    // The transition that has the device frees its address while the reporter still tells the holders.
    let machine = Arc::new(machine(&[]));
    for device in ["04:00.0", "04:00.1"] {
        sim(&machine).plug(at(device), nic());
        sim(&machine).set_group(at(device), GroupId(7));
        add(&machine, device);
    }
    let hold = machine.hold(at("04:00.0"), Holder::Named("test")).expect("memory").expect("known");
    let (told, freed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    hold.on_gone({
        let (told, freed) = (told.clone(), freed.clone());
        Arc::new(move |_, _| {
            told.store(true, Ordering::SeqCst);
            while !freed.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        })
    });
    sim(&machine).fail_next(Hook::AwaitIdle, Fault::Hang);
    let mover = thread::spawn({
        let machine = machine.clone();
        move || machine.assign(&set(&["04:00.0", "04:00.1"]), GUEST)
    });
    sim(&machine).wait_for_hangs(1);
    let reporter = thread::spawn({
        let machine = machine.clone();
        move || machine.report_gone(at("04:00.0"))
    });
    while !told.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    sim(&machine).release_hangs();
    assert!(mover.join().expect("no panic").is_err());
    add(&machine, "04:00.0");
    freed.store(true, Ordering::SeqCst);
    reporter.join().expect("no panic").expect("known");
    assert_eq!(machine.group_of(at("04:00.1")).expect("known"), [at("04:00.0")]);
    drop(hold);
}

#[test]
fn a_broken_device_without_an_owner_leaves_no_entry_behind() {
    let machine = empty();
    sim(&machine).plug(at("00:03.0"), nic());
    machine.scan(at("00:03.0").segment(), |_| Data::default()).expect("scanned");
    sim(&machine).fail_next(Hook::IommuFlush, Fault::Error(EIO));
    sim(&machine).fail_next(Hook::IommuDetach, Fault::Error(EIO));
    machine.set_host().expect_err("neither attached nor detached");
    sim(&machine).clear_faults();
    assert_eq!(sim(&machine).entry(at("00:03.0")), Entry::Attached(Owner::Host));
    machine.remove_device(at("00:03.0")).expect("unused");
    assert_eq!(sim(&machine).entry(at("00:03.0")), Entry::Absent, "no DMA of it is accepted");
}

#[test]
fn a_device_that_is_gone_gives_its_msix_table_back() {
    let machine = machine(&["00:03.0"]);
    machine.msi_prepare(at("00:03.0")).expect("prepared");
    machine.report_gone(at("00:03.0")).expect("known");
    assert!(!sim(&machine).msix_prepared(at("00:03.0")));
}

#[test]
fn a_device_that_is_gone_while_it_is_taken_down_does_not_come_back() {
    let machine = Arc::new(machine(&["00:03.0"]));
    let (inner, reports) = (Arc::downgrade(&machine), Arc::new(AtomicUsize::new(0)));
    let counted = reports.clone();
    machine.platform().before_hooks(move |hook, device| {
        if hook == Some(Hook::IommuDetach)
            && counted.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(machine) = inner.upgrade()
        {
            // Its slot is powered off now, and so the rest of its teardown fails.
            let _reported = machine.report_gone(device);
            sim(&machine).fail_next(Hook::IommuFlush, Fault::Error(EIO));
        }
    });
    let removed = machine.remove_device(at("00:03.0"));
    assert_eq!(owner(&machine, "00:03.0"), None, "it was reported gone ({removed:?})");
}

#[test]
fn what_is_gone_is_not_touched_by_the_rest_of_its_removal() {
    let machine = Arc::new(machine(&["00:03.0"]));
    let (inner, after) = (Arc::downgrade(&machine), Arc::new(AtomicUsize::new(0)));
    let counted = after.clone();
    machine.platform().before_hooks(move |hook, device| {
        if counted.load(Ordering::Relaxed) > 0 && matches!(hook, Some(Hook::SetAts | Hook::ConfigWrite)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        if hook == Some(Hook::IommuDetach)
            && counted.load(Ordering::Relaxed) == 0
            && let Some(machine) = inner.upgrade()
        {
            machine.report_gone(device).expect("it is on its way out");
            counted.store(1, Ordering::Relaxed);
        }
    });
    let removed = machine.remove_device(at("00:03.0"));
    assert!(matches!(removed, Err(TransitionError::Gone(_))), "{removed:?}");
    assert_eq!(after.load(Ordering::Relaxed), 1, "its registers are not there any more");
    assert_eq!(sim(&machine).entry(at("00:03.0")), Entry::Absent);
    assert_eq!(sim(&machine).unflushed(), []);
    machine.platform().before_hooks(|_, _| ());
    add(&machine, "00:03.0");
    machine.remove_device(at("00:03.0")).expect("the mark was the other one's");
    add(&machine, "00:03.0");
}

#[test]
fn l21_a_virtual_function_that_was_closed_when_its_function_went_does_not_stay() {
    let machine = Arc::new(with_vfs("02:00.0", &["02:10.0"]));
    let (inner, once) = (Arc::downgrade(&machine), AtomicBool::new(true));
    machine.platform().before_hooks(move |hook, device| {
        if hook == Some(Hook::IommuDetach)
            && device == at("02:10.0")
            && once.swap(false, Ordering::Relaxed)
            && let Some(machine) = inner.upgrade()
        {
            machine.report_gone(at("02:00.0")).expect("known");
            sim(&machine).fail_next(Hook::IommuFlush, Fault::Error(EIO));
        }
    });
    machine.remove_device(at("02:10.0")).expect_err("it went with its function");
    assert_eq!(owner(&machine, "02:10.0"), None);
    assert_eq!(owner(&machine, "02:00.0"), None);
}
