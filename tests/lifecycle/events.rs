//! Events: in order, delivered before the claim is released, none lost, and told apart by their numbers.

use std::sync::{Arc, Mutex};

use pcidevs::lifecycle::{DeviceInfo, Unplug, What};
use pcidevs::platform::{Fault, Hook, ResetKind};
use pcidevs::{Errno, Owner, Sbdf, Transition};

use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, assigned, at, empty, errno, fail, machine, nic, plug, set,
    while_it_hangs,
};

const NIC: &str = "00:03.0";

type Log = Arc<Mutex<Vec<(Sbdf, u64, String)>>>;

/// Gathers every event, as text without number and duration.
fn watch(machine: &Machine) -> Log {
    let log = Log::default();
    let gathered = Arc::clone(&log);
    let subscriber = move |event: &pcidevs::lifecycle::Event<'_>| {
        let text = match event.what {
            What::Transition { transition, from, to, error, .. } => {
                let name = |owner: Option<Owner>| owner.map_or("-".into(), |owner| owner.to_string());
                let result = error.map_or("ok".into(), |error| error.errno().to_string());
                format!("{transition} {} to {}: {result}", name(from), name(to))
            }
            other => format!("{other:?}"),
        };
        gathered.lock().expect("no panic").push((event.device, event.sequence, text));
    };
    machine.subscribe(Arc::new(subscriber)).expect("memory");
    log
}

fn texts(log: &Log) -> Vec<String> {
    log.lock().expect("no panic").drain(..).map(|(_, _, text)| text).collect()
}

#[test]
fn every_transition_is_an_event() {
    let machine = empty();
    let log = watch(&machine);
    plug(&machine, NIC, nic());
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("deassigned");
    machine.msi_prepare(at(NIC)).expect("prepared");
    machine.remove_device(at(NIC)).expect("unused");
    let expected = [
        "add - to host: ok",
        "assign host to domain 1: ok",
        "reset domain 1 to domain 1: ok",
        "deassign domain 1 to host: ok",
        "quarantine host to quarantine: ok",
        "deassign quarantine to host: ok",
        "interrupts host to host: ok",
        "remove host to -: ok",
    ];
    assert_eq!(texts(&log), expected);
}

#[test]
fn failures_are_events_with_their_error() {
    let machine = machine(&[NIC]);
    let log = watch(&machine);
    fail(&machine, Hook::Reset);
    machine.assign(&set(&[NIC]), GUEST).expect_err("a hook failed");
    fail(&machine, Hook::IommuDetach);
    machine.remove_device(at(NIC)).expect_err("a hook failed");
    let expected = [
        "assign host to domain 1: EIO".to_owned(),
        "remove host to -: EIO".to_owned(),
        format!("Broken({OUTAGE:?})"),
    ];
    assert_eq!(texts(&log), expected);
}

#[test]
fn refusals_are_events_too() {
    let machine = assigned(&[NIC]);
    let log = watch(&machine);
    machine.assign(&set(&[NIC]), GUEST).expect_err("taken");
    machine.remove_device(at(NIC)).expect_err("taken");
    machine.quarantine(&set(&[NIC])).expect_err("taken");
    assert_eq!(texts(&log).len(), 3);
}

#[test]
fn gone_faults_and_questions_are_events() {
    let machine = assigned(&[NIC]);
    let log = watch(&machine);
    machine.request_unplug(at(NIC)).expect("asked");
    machine.unplug_answered(at(NIC), GUEST, Unplug::TimedOut).expect("asked");
    for _ in 0..10 {
        machine.report_fault(at(NIC));
    }
    assert_eq!(texts(&log), ["UnplugAsked", "UnplugRefused"], "a fault report sends nothing itself");
    machine.run_deferred();
    assert_eq!(texts(&log), ["Fault(10)", "Silenced"]);
    fail(&machine, Hook::IommuDetach);
    machine.report_gone(at(NIC)).expect("known");
    machine.run_deferred();
    assert_eq!(texts(&log), ["Gone".to_owned(), format!("NotCleared({OUTAGE:?})"), "Cleared".to_owned()]);
}

#[test]
fn numbers_count_the_events_of_an_address_from_one_without_a_gap() {
    let machine = empty();
    let log = watch(&machine);
    for _ in 0..2 {
        plug(&machine, NIC, nic());
        plug(&machine, "00:04.0", nic());
        machine.assign(&set(&[NIC, "00:04.0"]), GUEST).expect("assigned");
        machine.report_gone(at(NIC)).expect("known");
        machine.deassign(&set(&["00:04.0"]), TO_GUEST).expect("deassigned");
        machine.remove_device(at("00:04.0")).expect("unused");
    }
    for address in [NIC, "00:04.0"] {
        let log = log.lock().expect("no panic");
        let numbers: Vec<_> =
            log.iter().filter(|(of, ..)| *of == at(address)).map(|(_, number, _)| *number).collect();
        assert_eq!(numbers, (1..=8).collect::<Vec<_>>(), "{address}");
    }
}

#[test]
fn an_event_comes_before_the_claim_is_released() {
    let machine = machine(&[NIC]);
    let inner = machine.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let subscriber = move |event: &pcidevs::lifecycle::Event<'_>| {
        if let What::Transition { transition: Transition::Assign, error: None, .. } = event.what {
            let refused = inner.quarantine(&set(&[NIC]));
            log.lock().expect("no panic").push(errno(refused));
            assert_eq!(inner.lock(event.device).expect("no lock is held").owner(), TO_GUEST);
        }
    };
    let subscription = machine.subscribe(Arc::new(subscriber)).expect("memory");
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(*seen.lock().expect("no panic"), [Errno::EBUSY]);
    assert!(machine.unsubscribe(subscription));
    assert!(!machine.unsubscribe(subscription));
}

#[test]
fn a_subscriber_may_move_other_devices() {
    let machine = machine(&[NIC, "00:04.0"]);
    let inner = machine.clone();
    let subscriber = move |event: &pcidevs::lifecycle::Event<'_>| {
        if event.device == at(NIC) && matches!(event.what, What::Transition { .. }) {
            inner.quarantine(&set(&["00:04.0"])).expect("not claimed");
        }
    };
    let subscription = machine.subscribe(Arc::new(subscriber)).expect("memory");
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(crate::scaffold::owner(&machine, "00:04.0"), Some(Owner::Quarantine));
    machine.unsubscribe(subscription);
}

#[test]
fn every_subscriber_is_told_and_none_after_it_ended() {
    let machine = machine(&[NIC]);
    let logs = [watch(&machine), watch(&machine)];
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    for log in &logs {
        assert_eq!(texts(log).len(), 1);
    }
}

#[test]
fn events_say_by_whom_when_and_how_long() {
    let machine = machine(&[NIC]);
    machine.platform().advance(500);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let subscriber = move |event: &pcidevs::lifecycle::Event<'_>| {
        let What::Transition { duration, .. } = event.what else { return };
        log.lock().expect("no panic").push((event.by, event.at, duration, event.to_string()));
    };
    machine.subscribe(Arc::new(subscriber)).expect("memory");
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.by("the tool stack").assign(&set(&[NIC]), GUEST),
        || machine.platform().advance(70),
    );
    done.expect("assigned");
    let seen = seen.lock().expect("no panic");
    let (by, at, duration, text) = &seen[0];
    assert_eq!((*by, *at, *duration), ("the tool stack", 570, 70));
    assert_eq!(text, "0000:00:03.0 #1 by the tool stack: assign from host to domain 1 in 70 ns");
}

#[test]
fn a_gone_event_does_not_wait_for_the_transition() {
    let machine = machine(&[NIC]);
    let log = watch(&machine);
    let ended = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&[NIC]), GUEST),
        || {
            machine.report_gone(at(NIC)).expect("known");
            assert_eq!(texts(&log), ["Gone"]);
        },
    );
    ended.expect_err("gone");
    assert_eq!(texts(&log), ["assign host to domain 1: ENODEV", "Cleared"]);
}

#[test]
fn a_panicking_hook_is_an_event_like_any_failure() {
    let machine = machine(&[NIC]);
    let log = watch(&machine);
    machine.platform().fail_next(Hook::IommuBlock, Fault::Panic);
    machine.assign(&set(&[NIC]), GUEST).expect_err("it panicked");
    assert_eq!(texts(&log), ["assign host to domain 1: EIO"]);
}

#[test]
fn a_scan_and_an_add_again_are_events() {
    let machine = empty();
    let log = watch(&machine);
    machine.platform().plug(at(NIC), nic());
    assert_eq!(machine.scan(at(NIC).segment(), |_| 1), Ok(1));
    assert_eq!(texts(&log), ["add - to unowned: ok"]);
    for _ in 0..2 {
        machine.add(at(NIC), DeviceInfo::default(), 7).expect("known");
    }
    assert_eq!(texts(&log), ["adopt unowned to host: ok", "add unowned to host: ok", "add host to host: ok"]);
    fail(&machine, Hook::Facts);
    machine.add(at(NIC), DeviceInfo::default(), 7).expect_err("a hook failed");
    machine.platform().plug(at("00:04.0"), nic());
    fail(&machine, Hook::Permit);
    machine.scan(at(NIC).segment(), |_| 1).expect_err("denied");
    assert_eq!(texts(&log), ["add host to host: EIO", "add - to unowned: EPERM"]);
}

#[test]
fn a_removal_that_begins_and_is_cancelled_is_an_event() {
    let machine = machine(&[NIC]);
    let log = watch(&machine);
    let ticket = machine.begin_removal(at(NIC)).expect("known");
    machine.begin_removal(at(NIC)).map(drop).expect_err("begun already");
    ticket.cancel().expect("pending");
    drop(machine.begin_removal(at(NIC)).expect("known"));
    let expected = ["RemovalBegun", "remove host to host: EBUSY", "RemovalCancelled"];
    assert_eq!(texts(&log), [&expected[..], &["RemovalBegun", "RemovalCancelled"]].concat());
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    assert_eq!(ticket.try_complete(), Ok(true));
    drop(ticket);
    assert_eq!(texts(&log), ["RemovalBegun", "remove host to -: ok"]);
}

#[test]
fn refusals_of_what_moves_nothing_are_events() {
    let machine = machine(&[NIC]);
    let log = watch(&machine);
    let used = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.reset(at(NIC), ResetKind::Flr),
        || {
            machine.reset(at(NIC), ResetKind::Flr).expect_err("under way");
            machine.report_reset(at(NIC), ResetKind::Flr).expect_err("under way");
            machine.msi_prepare(at(NIC)).expect_err("under way");
        },
    );
    used.expect("reset");
    let refused =
        ["reset host to host: EBUSY", "reset host to host: EBUSY", "interrupts host to host: EBUSY"];
    assert_eq!(texts(&log), [&refused[..], &["reset host to host: ok"]].concat());
}
