//! After a failure everything is as it was before; what is not, is broken, and nothing of it is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pcidevs::Owner;
use pcidevs::lifecycle::{DeviceInfo, TransitionError, Unplug};
use pcidevs::platform::{
    Fault, GroupId, Hook, Platform, Refusal, ResetKind, ResetSupport, Rule, Switch, Width,
};

use crate::machine::{Data, EIO, GUEST, Machine, Note, OTHER, add, at, empty, machine, nic, owner, set, sim};

type Log = Arc<Mutex<Vec<String>>>;

const NIC: &str = "00:03.0";

/// Registers attachments of these names, which fail when `fails` says so.
fn attach(machine: &Machine, log: &Log, names: &[&'static str], fails: &[&'static str]) {
    let fails = Arc::new(Mutex::new(fails.to_vec()));
    for name in names {
        let note = Note { name, log: log.clone(), fails: fails.clone() };
        machine.lock(at(NIC)).expect("known").attach(Box::new(note)).expect("attached");
    }
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().expect("not poisoned"))
}

#[test]
fn a_deassign_that_is_refused_leaves_no_mark() {
    let machine = machine(&[]);
    for device in ["04:00.0", "04:00.1"] {
        sim(&machine).plug(at(device), nic());
        sim(&machine).set_group(at(device), GroupId(7));
        add(&machine, device);
    }
    let pair = set(&["04:00.0", "04:00.1"]);
    machine.assign(&pair, GUEST).expect("assigned");
    sim(&machine).refuse(Rule::new(Refusal::Denied).device(at("04:00.1")));
    machine.deassign(&pair, Owner::Guest(GUEST)).expect_err("refused");
    assert!(!machine.lock(at("04:00.0")).expect("known").is_deferred(), "it is with its guest");
}

#[test]
fn a_deassign_from_quarantine_that_fails_leaves_no_mark() {
    let machine = machine(&["00:05.0"]);
    for device in ["04:00.0", "04:00.1"] {
        sim(&machine).plug(at(device), nic());
        sim(&machine).set_group(at(device), GroupId(7));
        add(&machine, device);
    }
    machine.quarantine(&set(&["04:00.0", "04:00.1", "00:05.0"])).expect("quarantined");
    // Somebody keeps the group open, so that 04:00.0 would wait; the set fails at 04:00.1.
    sim(&machine).set_group_in_use(GroupId(7), true);
    sim(&machine).refuse(Rule::new(Refusal::Denied).device(at("00:05.0")));
    machine.deassign(&set(&["00:05.0", "04:00.0"]), Owner::Quarantine).expect_err("refused");
    assert!(!machine.lock(at("04:00.0")).expect("known").is_deferred(), "nothing was given back");
}

#[test]
fn an_answer_does_not_outlive_the_guests_hold_on_the_device() {
    let machine = machine(&[NIC]);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.request_unplug(at(NIC)).expect("asked");
    machine.report_flush_timeout(at(NIC)).expect("broken");
    // The platform blocks it on its own.
    sim(&machine).iommu_block(at(NIC), at(NIC)).expect("blocked");
    sim(&machine).iommu_flush(at(NIC)).expect("flushed");
    machine.repair(at(NIC)).expect("blocked");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    let answered = machine.unplug_answered(at(NIC), GUEST, Unplug::Acked);
    assert!(matches!(answered, Err(TransitionError::NotAsked(_))), "{answered:?}");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine), "nobody gave it to the host");
}

#[test]
fn r11_what_was_undone_is_not_handed_out_as_if_it_were_in_effect() {
    let machine = machine(&[NIC]);
    let log = Log::default();
    attach(&machine, &log, &["a", "b", "c"], &["undo b", "redo c"]);
    machine.remove_device(at(NIC)).expect_err("b cannot be undone, nor c redone");
    assert_eq!(taken(&log), ["undo c", "undo b", "redo c"]);
    // c is undone; a and b are not.
    let mut device = machine.lock(at(NIC)).expect("known");
    let c = device.detach(|attachment| attachment.kind().to_string() == "c");
    assert!(c.is_none(), "what it set up is undone");
    drop(device);
    machine.remove_device(at(NIC)).expect("now");
    assert_eq!(taken(&log), ["undo b", "undo a"]);
}

#[test]
fn r11_taking_one_attachment_out_does_not_lose_another() {
    let machine = machine(&[NIC]);
    let log = Log::default();
    attach(&machine, &log, &["a", "b", "c"], &["undo b", "redo c"]);
    machine.remove_device(at(NIC)).expect_err("b cannot be undone, nor c redone");
    let mut device = machine.lock(at(NIC)).expect("known");
    assert!(device.detach(|attachment| attachment.kind().to_string() == "a").is_some());
    drop(device);
    taken(&log);
    machine.remove_device(at(NIC)).expect("now");
    assert_eq!(taken(&log), ["undo b"]);
}

#[test]
fn r11_a_view_that_could_not_be_taken_back_is_not_lost() {
    let machine = machine(&[NIC]);
    let log = Log::default();
    let noted = log.clone();
    sim(&machine).on_bind(move |_, owner| {
        let name = if owner == Owner::Host { "host" } else { "guest" };
        let fails = Arc::new(Mutex::new(if name == "guest" { vec!["undo guest"] } else { vec![] }));
        Ok(Some(Box::new(Note { name, log: noted.clone(), fails })))
    });
    sim(&machine).plug(at("00:04.0"), nic());
    add(&machine, "00:04.0");
    // The guest's view of the first device is there when that of the second fails.
    let machine = Arc::new(machine);
    let (inner, binds) = (Arc::downgrade(&machine), AtomicUsize::new(0));
    machine.platform().before_hooks(move |hook, _| {
        if hook == Some(Hook::Bind)
            && binds.fetch_add(1, Ordering::Relaxed) == 1
            && let Some(machine) = inner.upgrade()
        {
            sim(&machine).fail_next(Hook::Bind, Fault::Error(EIO));
        }
    });
    machine.assign(&set(&[NIC, "00:04.0"]), GUEST).expect_err("the second is not bound");
    assert!(machine.lock(at(NIC)).expect("known").broken().is_some());
    taken(&log);
    sim(&machine).iommu_block(at(NIC), at(NIC)).expect("blocked");
    sim(&machine).iommu_flush(at(NIC)).expect("flushed");
    machine.repair(at(NIC)).expect("blocked");
    let log = taken(&log);
    assert!(
        log.contains(&"undo guest".to_owned()),
        "the guest would see a device that is not its own: {log:?}"
    );
}

#[test]
fn a_device_without_a_reset_can_be_assigned_again_and_again() {
    let machine = machine(&[NIC]);
    sim(&machine).set_reset(at(NIC), ResetSupport::NotNeeded);
    // The host uses MSI-X.
    let capability = msix(&machine);
    sim(&machine).config_write(at(NIC), capability + 2, Width::Word, 1 << 15);
    for _ in 0..2 {
        machine.assign(&set(&[NIC]), GUEST).expect("the host masks nothing");
        machine.deassign(&set(&[NIC]), Owner::Guest(GUEST)).expect("deassigned");
    }
}

/// Where the MSI-X capability is.
fn msix(machine: &Machine) -> u16 {
    let config = sim(machine).config(at(NIC)).expect("there");
    let config = pcidevs::device::ConfigSpace::new(&config);
    pcidevs::device::find_capability(config, 0x11).expect("has MSI-X").into()
}

#[test]
fn what_was_off_before_is_off_after_a_failure() {
    let machine = machine(&[NIC]);
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::Off);
    sim(&machine).fail_next(Hook::Bind, Fault::Error(EIO));
    machine.assign(&set(&[NIC]), GUEST).expect_err("not bound");
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::Off);
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::Off, "a reset switches nothing on");
}

#[test]
fn what_was_on_before_is_on_after_a_failure_and_after_a_reset() {
    let machine = machine(&[NIC]);
    sim(&machine).set_ats(at(NIC), Switch::On).expect("has ATS");
    sim(&machine).fail_next(Hook::IommuBlock, Fault::Error(EIO));
    machine.assign(&set(&[NIC]), GUEST).expect_err("not blocked");
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::On);
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::On);
}

#[test]
fn a_panic_in_the_middle_of_quieting_is_undone() {
    let machine = machine(&[NIC]);
    let config = sim(&machine).config(at(NIC)).expect("there");
    let msi = {
        let config = pcidevs::device::ConfigSpace::new(&config);
        u16::from(pcidevs::device::find_capability(config, 0x05).expect("has MSI"))
    };
    for (offset, value) in [(0x04, 0x0006), (msi + 2, 0x0001), (msix(&machine) + 2, 0x8000)] {
        sim(&machine).config_write(at(NIC), offset, Width::Word, value);
    }
    let before = sim(&machine).config(at(NIC)).expect("there");
    for write in 0..3 {
        let writes = AtomicUsize::new(0);
        machine.platform().before_hooks(move |hook, _| {
            if hook == Some(Hook::ConfigWrite) && writes.fetch_add(1, Ordering::Relaxed) == write {
                std::panic::resume_unwind(Box::new("in a write"));
            }
        });
        machine.assign(&set(&[NIC]), GUEST).expect_err("a panic is a failure");
        assert!(sim(&machine).config(at(NIC)).expect("there") == before, "write {write}");
        assert!(machine.lock(at(NIC)).expect("known").broken().is_none());
    }
}

#[test]
fn a_panic_in_a_check_is_a_failure() {
    let machine = machine(&[NIC]);
    machine.platform().before_hooks(|hook, _| {
        if hook == Some(Hook::ConfigRead) {
            std::panic::resume_unwind(Box::new("in a read"));
        }
    });
    let assigned = catch_unwind(AssertUnwindSafe(|| machine.assign(&set(&[NIC]), GUEST)));
    assert!(matches!(assigned, Ok(Err(TransitionError::Failed(_)))));
    let could = catch_unwind(AssertUnwindSafe(|| machine.can_assign(at(NIC), GUEST)));
    assert!(matches!(could, Ok(Err(TransitionError::Failed(_)))));
}

#[test]
fn a_subscriber_that_panics_changes_nothing() {
    let machine = machine(&[NIC]);
    let log = Log::default();
    attach(&machine, &log, &["old"], &[]);
    let panics = Arc::new(|_: &pcidevs::lifecycle::Event<'_>| {
        std::panic::resume_unwind(Box::new("in a subscriber"));
    });
    let subscription = machine.subscribe(panics).expect("memory");
    let assigned = catch_unwind(AssertUnwindSafe(|| machine.assign(&set(&[NIC]), GUEST)));
    machine.unsubscribe(subscription);
    assert!(matches!(assigned, Ok(Ok(()))));
    let device = machine.lock(at(NIC)).expect("known");
    assert_eq!(device.owner(), Owner::Guest(GUEST));
    assert_eq!(device.attachments().count(), 0, "what the host had set up has been undone");
    assert!(!device.is_claimed());
}

#[test]
fn reporting_a_virtual_function_again_does_not_overwrite_what_it_inherited() {
    let machine = empty();
    for device in ["02:00.0", "02:10.0"] {
        sim(&machine).plug(at(device), nic());
    }
    let extended = DeviceInfo { is_extended_function: true, ..DeviceInfo::default() };
    machine.add(at("02:00.0"), extended, Data::default()).expect("added");
    let vf = DeviceInfo { physical_function: Some(at("02:00.0")), ..DeviceInfo::default() };
    machine.add(at("02:10.0"), vf, Data::default()).expect("added");
    assert!(machine.lock(at("02:10.0")).expect("known").is_extended_function());
    machine.add(at("02:10.0"), DeviceInfo::default(), Data::default()).expect("again");
    assert!(machine.lock(at("02:10.0")).expect("known").is_extended_function());
}

#[test]
fn l3_a_fault_of_a_device_that_was_removed_is_nobodys() {
    let machine = machine(&[NIC]);
    assert_eq!(machine.report_fault(at(NIC)), Some(1));
    machine.remove_device(at(NIC)).expect("unused");
    assert_eq!(machine.report_fault(at(NIC)), None);
    assert_eq!(machine.real_function(at(NIC)), None);
    add(&machine, NIC);
    machine.report_gone(at(NIC)).expect("known");
    assert_eq!(machine.report_fault(at(NIC)), None);
}

#[test]
fn no_hook_is_called_for_a_device_after_its_removal() {
    let machine = Arc::new(machine(&[NIC]));
    let ticket = Arc::new(Mutex::new(machine.begin_removal(at(NIC)).expect("begun")));
    let (inner, late) = (Arc::downgrade(&machine), Arc::new(AtomicUsize::new(0)));
    let (counted, completing) = (late.clone(), ticket.clone());
    machine.platform().before_hooks(move |hook, device| {
        if hook == Some(Hook::SetAts) {
            // The last moment before the hook: does the removal complete before it?
            let completed = completing.lock().expect("not poisoned").try_complete();
            let known = inner.upgrade().is_some_and(|machine| machine.lock(device).is_ok());
            counted.fetch_add(usize::from(completed == Ok(true) || !known), Ordering::Relaxed);
        }
    });
    machine.report_flush_timeout(at(NIC)).expect("switched off");
    assert_eq!(late.load(Ordering::Relaxed), 0);
    machine.platform().before_hooks(|_, _| ());
    assert_eq!(ticket.lock().expect("not poisoned").try_complete(), Ok(true));
}

#[test]
fn the_scope_of_a_reset_is_asked_of_a_claimed_device() {
    let machine = Arc::new(machine(&[NIC]));
    let (inner, unclaimed) = (Arc::downgrade(&machine), Arc::new(AtomicUsize::new(0)));
    let counted = unclaimed.clone();
    machine.platform().before_hooks(move |hook, device| {
        if hook == Some(Hook::ResetScope)
            && let Some(machine) = inner.upgrade()
        {
            let claimed = machine.lock(device).is_ok_and(|device| device.is_claimed());
            counted.fetch_add(usize::from(!claimed), Ordering::Relaxed);
        }
    });
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    machine.assign(&set(&[NIC]), OTHER).expect("assigned");
    assert_eq!(unclaimed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_member_that_is_in_quarantine_already_is_not_in_the_way_of_its_sets_reset() {
    let machine = machine(&["04:00.0", "04:00.1"]);
    machine.quarantine(&set(&["04:00.0"])).expect("quarantined");
    sim(&machine).set_reset(at("04:00.1"), ResetSupport::Slot);
    machine.quarantine(&set(&["04:00.0", "04:00.1"])).expect("the other one follows");
    assert_eq!(owner(&machine, "04:00.1"), Some(Owner::Quarantine));
}

#[test]
fn a_flush_timeout_that_comes_while_ats_is_switched_on_again_wins() {
    let machine = Arc::new(machine(&[NIC]));
    sim(&machine).set_ats(at(NIC), Switch::On).expect("it has ATS");
    let (inner, switched) = (Arc::downgrade(&machine), AtomicUsize::new(0));
    machine.platform().before_hooks(move |hook, device| {
        // Off, and then on again: before that is done.
        if hook == Some(Hook::SetAts)
            && switched.fetch_add(1, Ordering::Relaxed) == 1
            && let Some(machine) = inner.upgrade()
        {
            machine.report_flush_timeout(device).expect("known");
        }
    });
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    assert_eq!(sim(&machine).ats(at(NIC)), Switch::Off);
}
