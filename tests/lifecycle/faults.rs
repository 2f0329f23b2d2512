//! Faults and flush timeouts.

use pcidevs::platform::{Fault, Hook, Platform, ResetKind, Switch, Width};
use pcidevs::{Errno, Owner};

use crate::scaffold::{
    COMMAND, GUEST, MASTER, Machine, OUTAGE, TO_GUEST, assigned, at, check, empty, errno, fail, failure,
    listed, machine, nic, owner, plug, set, while_it_hangs, work,
};

const NIC: &str = "00:03.0";
const MILLISECOND: u64 = 1_000_000;

/// Reports so many faults; the last count.
fn report(machine: &Machine, address: &str, times: usize) -> Option<u32> {
    (0..times).fold(None, |_, _| machine.report_fault(at(address)))
}

#[test]
fn faults_are_counted() {
    let machine = machine(&[NIC]);
    for count in 1..=9 {
        assert_eq!(machine.report_fault(at(NIC)), Some(count));
    }
    assert_eq!(machine.report_fault(at("00:1e.0")), None);
}

#[test]
fn the_count_is_halved_after_more_than_ten_milliseconds() {
    let machine = machine(&[NIC]);
    (1..=6).for_each(|count| assert_eq!(machine.report_fault(at(NIC)), Some(count)));
    machine.platform().advance(10 * MILLISECOND);
    assert_eq!(machine.report_fault(at(NIC)), Some(7), "ten are not more than ten");
    machine.platform().advance(10 * MILLISECOND + 1);
    assert_eq!(machine.report_fault(at(NIC)), Some(4), "half of seven, and one more");
    machine.platform().advance(1000 * MILLISECOND);
    assert_eq!(machine.report_fault(at(NIC)), Some(3), "halved once, however long");
}

#[test]
fn the_count_is_halved_if_the_clock_went_back() {
    let machine = machine(&[NIC]);
    machine.platform().advance(100 * MILLISECOND);
    (1..=6).for_each(|count| assert_eq!(machine.report_fault(at(NIC)), Some(count)));
    // One less than nothing: the clock wraps to just before.
    machine.platform().advance(u64::MAX);
    assert_eq!(machine.report_fault(at(NIC)), Some(4));
}

#[test]
fn at_ten_faults_bus_mastering_goes_off() {
    let machine = machine(&[NIC]);
    let command = || machine.platform().config_read(at(NIC), COMMAND, Width::Word);
    assert_eq!(report(&machine, NIC, 9), Some(9));
    machine.run_deferred();
    assert_eq!(command(), MASTER, "nine are not enough");
    assert_eq!(machine.report_fault(at(NIC)), Some(10));
    assert_eq!(command(), MASTER, "not in the interrupt");
    machine.run_deferred();
    assert_eq!(command(), MASTER & !4);
    assert_eq!(owner(&machine, NIC), Some(Owner::Host), "it stays with its owner");
    check(&machine);
}

#[test]
fn faults_of_a_phantom_are_the_real_functions() {
    let machine = empty();
    plug(&machine, NIC, nic().phantom_bits(2));
    work(&machine, NIC);
    for (count, phantom) in (1..=10).zip(["00:03.0", "00:03.2", "00:03.4", "00:03.6"].iter().cycle()) {
        assert_eq!(machine.report_fault(at(phantom)), Some(count));
    }
    machine.run_deferred();
    assert_eq!(machine.platform().config_read(at(NIC), COMMAND, Width::Word), MASTER & !4);
}

#[test]
fn a_device_assigned_anew_since_is_not_silenced() {
    let machine = machine(&[NIC]);
    assert_eq!(report(&machine, NIC, 10), Some(10));
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    work(&machine, NIC);
    machine.run_deferred();
    assert_eq!(machine.platform().config_read(at(NIC), COMMAND, Width::Word), MASTER);
}

#[test]
fn faults_of_devices_that_are_gone_or_removed_do_no_harm() {
    let machine = machine(&[NIC, "00:04.0"]);
    for address in [NIC, "00:04.0"] {
        assert_eq!(report(&machine, address, 10), Some(10));
    }
    machine.remove_device(at(NIC)).expect("unused");
    machine.report_gone(at("00:04.0")).expect("known");
    machine.platform().record(true);
    machine.platform().watch_config(true);
    machine.run_deferred();
    assert_eq!(machine.platform().story(), [""; 0]);
    plug(&machine, NIC, nic());
    assert_eq!(machine.report_fault(at(NIC)), Some(1), "the count went with the device");
}

#[test]
fn a_flush_timeout_of_the_hosts_device_switches_ats_off_and_no_more() {
    let machine = machine(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    machine.report_flush_timeout(at(NIC)).expect("known");
    assert_eq!(machine.platform().ats(at(NIC)), Switch::Off);
    assert_eq!(machine.status(at(NIC)).expect("known").broken, None);
    assert!(machine.platform().stopped().is_empty());
    machine.assign(&set(&[NIC]), GUEST).expect("whole");
    check(&machine);
}

#[test]
fn a_flush_timeout_of_a_guests_device_breaks_it_and_stops_the_guest() {
    let machine = assigned(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    let guest = machine.domain(GUEST).expect("known");
    assert!(guest.lock(at("00:00.0")).is_ok());
    machine.report_flush_timeout(at(NIC)).expect("known");
    assert_eq!(machine.platform().ats(at(NIC)), Switch::Off);
    let status = machine.status(at(NIC)).expect("known");
    let because = status.broken.expect("broken");
    assert_eq!(because.errno(), Errno::ETIMEDOUT);
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0"]);
    assert!(guest.lock(at("00:00.0")).is_err(), "out of its sight");
    let stopped = machine.platform().stopped();
    assert_eq!(stopped.len(), 1);
    assert_eq!((stopped[0].guest, stopped[0].device, stopped[0].because), (GUEST, at(NIC), because));
    check(&machine);
}

#[test]
fn a_flush_timeout_whose_ats_cannot_be_switched_off_still_stops_the_guest() {
    for fault in [Fault::Error(OUTAGE), Fault::Panic] {
        let machine = assigned(&[NIC]);
        machine.platform().fail_next(Hook::SetAts, fault);
        failure(machine.report_flush_timeout(at(NIC)));
        assert_eq!(machine.platform().stopped().len(), 1);
        assert!(machine.status(at(NIC)).expect("known").broken.is_some());
    }
    let machine = machine(&[NIC]);
    assert_eq!(errno(machine.report_flush_timeout(at("00:04.0"))), Errno::ENODEV);
    fail(&machine, Hook::StopGuest);
    machine.report_flush_timeout(at(NIC)).expect("the host is not stopped");
}

#[test]
fn a_flush_timeout_during_a_transition_breaks_the_device_wherever_it_ends() {
    let machine = assigned(&[NIC]);
    let done = crate::scaffold::while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.deassign(&set(&[NIC]), TO_GUEST),
        || machine.report_flush_timeout(at(NIC)).expect("known"),
    );
    drop(done);
    let status = machine.status(at(NIC)).expect("known");
    assert!(status.broken.is_some());
    assert_eq!(errno(machine.assign(&set(&[NIC]), GUEST)), Errno::EBADF);
}

/// Fails at its last step, after the device was reset; something happens to it during that reset.
fn assign_in_vain(machine: &Machine, meanwhile: impl FnOnce()) {
    fail(machine, Hook::Bind);
    let assigned = while_it_hangs(machine, Hook::Reset, || machine.assign(&set(&[NIC]), GUEST), meanwhile);
    assert_eq!(failure(assigned).error, OUTAGE);
    assert_eq!(owner(machine, NIC), Some(Owner::Host));
}

#[test]
fn an_undo_does_not_switch_on_the_ats_that_a_flush_timeout_switched_off() {
    let machine = machine(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    assign_in_vain(&machine, || machine.report_flush_timeout(at(NIC)).expect("known"));
    assert_eq!(machine.platform().ats(at(NIC)), Switch::Off);
    // Its next owner may have it again, and an undo brings that back.
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    assign_in_vain(&machine, || ());
    assert_eq!(machine.platform().ats(at(NIC)), Switch::On);
    check(&machine);
}

#[test]
fn a_reset_does_not_switch_on_the_ats_that_a_flush_timeout_switched_off() {
    let machine = machine(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    let reset = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.reset(at(NIC), ResetKind::Flr),
        || machine.report_flush_timeout(at(NIC)).expect("known"),
    );
    reset.expect("reset");
    assert_eq!(machine.platform().ats(at(NIC)), Switch::Off);
    check(&machine);
}

#[test]
fn an_undo_does_not_switch_on_the_bus_mastering_of_a_device_that_faulted_too_often() {
    let machine = machine(&[NIC]);
    let command = || machine.platform().config_read(at(NIC), COMMAND, Width::Word);
    assign_in_vain(&machine, || {
        (0..10).for_each(|_| assert!(machine.report_fault(at(NIC)).is_some()));
        machine.run_deferred();
    });
    assert_eq!(command(), MASTER & !4, "the rest is as before");
    // Until its faults are forgotten.
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    work(&machine, NIC);
    assign_in_vain(&machine, || ());
    assert_eq!(command(), MASTER);
    check(&machine);
}
