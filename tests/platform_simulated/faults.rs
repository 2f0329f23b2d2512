//! Counting, recording, injecting.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pcidevs::platform::{Entry, Fault, Hook, HookError, Platform, ResetScope, Switch, Width};
use pcidevs::{Errno, Transition};

use super::{ALIAS, COMMAND, GROUP, GUEST, ID, NIC, OUTAGE, PHANTOM, call, call_all, machine, request};

#[test]
fn calls_are_counted_while_counting_is_on() {
    let machine = machine();
    call(&machine, Hook::IommuFlush);
    assert_eq!(machine.calls(), 0);
    machine.count(true);
    call_all(&machine);
    machine.now();
    assert_eq!(machine.calls(), 18, "all but configuration accesses and the clock");
    machine.watch_config(true);
    machine.config_read(NIC, 0, Width::Dword);
    machine.config_write(NIC, COMMAND, Width::Word, 0);
    assert_eq!(machine.calls(), 20);
    machine.count(false);
    call(&machine, Hook::IommuFlush);
    assert_eq!(machine.calls(), 20);
}

#[test]
fn a_journal_reads_like_the_transition() {
    let machine = machine();
    machine.record(true);
    machine.watch_config(true);
    machine.fail_next(Hook::IommuFlush, Fault::Error(OUTAGE));
    let _ = machine.permit(&request(Transition::Assign, GUEST));
    let _ = machine.group_in_use(GROUP);
    machine.config_write(NIC, COMMAND, Width::Word, 2);
    let _ = machine.set_ats(NIC, Switch::Off);
    let _ = machine.iommu_block(NIC, PHANTOM);
    let _ = machine.iommu_flush(NIC);
    let _ = machine.reset(NIC, ResetScope::Function, None);
    let _ = machine.iommu_attach(NIC, NIC, GUEST);
    machine.stop_guest(ID, NIC, OUTAGE);
    machine.record(false);
    let _ = machine.iommu_flush(NIC);
    let text: Vec<_> = machine.journal().iter().map(ToString::to_string).collect();
    let expected = [
        "permit 0000:03:00.0, assign to domain 7",
        "group_in_use 3",
        "config_write 0000:03:00.0, 0x4 = 0x2",
        "set_ats 0000:03:00.0, off",
        "iommu_block 0000:03:00.0 as 0000:03:00.4",
        "iommu_flush 0000:03:00.0: outage (EIO)",
        "reset 0000:03:00.0, Function",
        "iommu_attach 0000:03:00.0 as 0000:03:00.0, domain 7",
        "stop_guest 0000:03:00.0, domain 7",
    ];
    assert_eq!(text, expected);
    assert_eq!(machine.take_journal()[4].requester, Some(PHANTOM));
    assert!(machine.journal().is_empty());
}

#[test]
fn the_nth_call_from_now_meets_its_fault() {
    let machine = machine();
    machine.count(true);
    call(&machine, Hook::Facts);
    machine.fail_call(1, Fault::Error(OUTAGE));
    assert_eq!(machine.iommu_attach(NIC, NIC, GUEST), Ok(()));
    assert_eq!(machine.iommu_block(NIC, NIC), Err(OUTAGE));
    assert_eq!(machine.entry(NIC), Entry::Attached(GUEST), "and has done nothing");
    assert_eq!(machine.iommu_block(NIC, NIC), Ok(()));
    assert_eq!((machine.calls(), machine.injected(), machine.pending_faults()), (4, 1, 0));
}

#[test]
fn the_next_calls_of_a_hook_meet_their_faults_in_order() {
    let machine = machine();
    let second = HookError::new(Errno::ETIMEDOUT, "slow");
    machine.fail_next(Hook::IommuFlush, Fault::Error(OUTAGE));
    machine.fail_next(Hook::IommuFlush, Fault::Error(second));
    assert_eq!(machine.iommu_block(NIC, NIC), Ok(()));
    assert_eq!(machine.pending_faults(), 2);
    assert_eq!(machine.iommu_flush(NIC), Err(OUTAGE));
    assert_eq!(machine.iommu_flush(NIC), Err(second));
    assert_eq!(machine.iommu_flush(NIC), Ok(()));
}

#[test]
fn every_call_of_a_hook_meets_its_fault_until_they_are_cleared() {
    let machine = machine();
    machine.fail_every(Hook::Reset, Fault::Error(HookError::new(Errno::EPERM, "before")));
    machine.fail_every(Hook::Reset, Fault::Error(OUTAGE));
    for _ in 0..3 {
        assert_eq!(machine.reset(NIC, ResetScope::Bus, None), Err(OUTAGE));
        assert_eq!(machine.iommu_flush(NIC), Ok(()));
    }
    machine.clear_faults();
    assert_eq!(machine.reset(NIC, ResetScope::Bus, None), Ok(()));
    assert_eq!((machine.resets(NIC), machine.injected()), (1, 3));
}

#[test]
fn every_hook_can_fail() {
    for hook in Hook::ALL {
        let machine = machine();
        machine.watch_config(true);
        machine.fail_next(*hook, Fault::Error(OUTAGE));
        assert!(call(&machine, *hook), "{hook}");
        assert_eq!((machine.injected(), machine.pending_faults()), (1, 0), "{hook}");
    }
}

#[test]
fn every_hook_can_panic_and_the_machine_goes_on() {
    for hook in Hook::ALL {
        let machine = machine();
        machine.watch_config(true);
        machine.fail_next(*hook, Fault::Panic);
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&machine, *hook)));
        assert!(outcome.is_err(), "{hook}");
        assert_eq!(machine.entries(), [], "{hook} had an effect");
        call_all(&machine);
    }
}

#[test]
fn a_failed_hook_that_keeps_a_record_has_not_kept_one() {
    let machine = machine();
    machine.fail_every(Hook::AskUnplug, Fault::Error(OUTAGE));
    assert_eq!(machine.ask_unplug(NIC, ID), Err(OUTAGE));
    assert!(machine.asked_unplug().is_empty());
    machine.fail_every(Hook::StopGuest, Fault::Error(OUTAGE));
    machine.stop_guest(ID, NIC, OUTAGE);
    assert_eq!(machine.stopped().len(), 1, "a guest is stopped all the same");
}

#[test]
fn the_same_seed_fails_the_same_calls_at_about_the_rate_asked_for() {
    let failures = |seed, permille| {
        let machine = machine();
        machine.fault_rate(seed, permille);
        (0..10_000).map(|_| machine.iommu_flush(NIC).is_err()).collect::<Vec<_>>()
    };
    let count = |calls: &[bool]| calls.iter().filter(|failed| **failed).count();
    let first = failures(1, 50);
    assert_eq!(first, failures(1, 50));
    assert_ne!(first, failures(2, 50));
    assert!((400..600).contains(&count(&first)), "{}", count(&first));
    assert_eq!(count(&failures(1, 0)), 0);
    assert_eq!(count(&failures(1, 1000)), 10_000);
}

#[test]
fn a_hook_hangs_until_it_is_released_and_nobody_else_does() {
    let machine = machine();
    machine.fail_next(Hook::IommuBlock, Fault::Hang);
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| machine.iommu_block(NIC, NIC));
        machine.wait_for_hangs(1);
        assert_eq!((machine.hanging(), machine.entry(NIC)), (1, Entry::Absent));
        assert_eq!(machine.iommu_block(ALIAS, ALIAS), Ok(()));
        assert!(!hangs.is_finished());
        machine.release_hangs();
        assert_eq!(hangs.join().unwrap(), Ok(()));
    });
    assert_eq!((machine.hanging(), machine.entry(NIC)), (0, Entry::Blocked));
}
