//! `begin_removal`: new uses are refused, everything that lets go goes on, and whoever drives the ticket tears down.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{Entry, Hook, Refusal, Rule};
use pcidevs::{Errno, Holder, Owner, TicketError, Transition};

use crate::scaffold::{
    GUEST, OUTAGE, TO_GUEST, assigned, at, busy, check, dump, entry, errno, fail, failure, machine, owner,
    set, while_it_hangs,
};

const NIC: &str = "00:03.0";

#[test]
fn a_ticket_completes_with_the_last_use_and_runs_the_hooks() {
    let machine = machine(&[NIC]);
    let used = machine.hold(at(NIC), Holder::Named("effect")).expect("memory").expect("known");
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    assert_eq!(ticket.address(), at(NIC));
    assert_eq!(ticket.busy().expect("used").holders, [Holder::Named("effect")]);
    assert_eq!(ticket.try_complete(), Ok(false));
    assert!(machine.get(at(NIC)).is_none() && machine.lock(at(NIC)).is_ok(), "access goes on");
    drop(used);
    assert!(ticket.busy().is_none());
    assert_eq!(ticket.try_complete(), Ok(true));
    assert_eq!(entry(&machine, NIC), Entry::Absent);
    assert!(machine.status(at(NIC)).is_none());
    check(&machine);
    let over = ticket.try_complete();
    assert_eq!(over, Err(TransitionError::Ticket(TicketError::Over)));
    assert_eq!(errno(over), Errno::EINVAL);
}

#[test]
fn a_device_deassigned_while_its_removal_is_pending_goes_to_quarantine_and_completes() {
    let machine = assigned(&[NIC]);
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    assert_eq!(ticket.busy().expect("assigned").holders, [Holder::Domain(GUEST)]);
    assert_eq!(ticket.try_complete(), Ok(false));
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    assert_eq!(entry(&machine, NIC), Entry::Blocked);
    machine.platform().record(true);
    assert_eq!(ticket.try_complete(), Ok(true));
    let story = machine.platform().story();
    let expected = ["iommu_detach 0000:00:03.0 as 0000:00:03.0", "iommu_flush 0000:00:03.0"];
    assert_eq!(story, expected);
    check(&machine);
}

#[test]
fn release_of_the_domain_goes_on_while_a_removal_is_pending() {
    let machine = assigned(&[NIC]);
    machine.msi_prepare(at(NIC)).expect("prepared");
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    machine.msi_release(at(NIC)).expect("released");
    machine.release_domain(GUEST).expect("released");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    assert_eq!(ticket.try_complete(), Ok(true));
}

#[test]
fn while_a_removal_is_pending_the_device_goes_to_no_guest_and_no_host() {
    let machine = machine(&[NIC]);
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    let ticket = machine.begin_removal(at(NIC)).expect("known");
    assert_eq!(errno(machine.assign(&set(&[NIC]), GUEST)), Errno::EBUSY);
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("nothing to do");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    drop(ticket);
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("deassigned");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
}

#[test]
fn cancelling_or_dropping_gives_the_device_back_exactly_as_it_was() {
    let machine = assigned(&[NIC]);
    let before = dump(&machine);
    machine.begin_removal(at(NIC)).expect("known").cancel().expect("pending");
    assert_eq!(dump(&machine), before);
    drop(machine.begin_removal(at(NIC)).expect("known"));
    assert_eq!(dump(&machine), before);
    machine.get(at(NIC)).expect("usable");
}

#[test]
fn a_second_ticket_and_a_removal_are_busy_and_an_unknown_device_is_enodev() {
    let machine = machine(&[NIC]);
    let ticket = machine.begin_removal(at(NIC)).expect("known");
    let removal = Holder::Transition(Transition::Remove);
    assert_eq!(busy(machine.begin_removal(at(NIC)).map(drop)).holders, [removal]);
    assert_eq!(busy(machine.remove_device(at(NIC))).holders, [removal]);
    drop(ticket);
    assert_eq!(errno(machine.begin_removal(at("00:04.0")).map(drop)), Errno::ENODEV);
    machine.hide(at(NIC), Visibility::None).expect("unused");
    assert_eq!(errno(machine.begin_removal(at(NIC)).map(drop)), Errno::EPERM);
}

#[test]
fn begin_removal_is_refused_by_policy_and_during_a_transition() {
    let machine = machine(&[NIC]);
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Remove));
    assert_eq!(errno(machine.begin_removal(at(NIC)).map(drop)), Errno::EPERM);
    machine.platform().permit_all();
    let assigned = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&[NIC]), GUEST),
        || assert_eq!(errno(machine.begin_removal(at(NIC)).map(drop)), Errno::EBUSY),
    );
    assigned.expect("assigned");
}

#[test]
fn a_teardown_that_fails_leaves_the_device_known_and_broken() {
    let machine = machine(&[NIC]);
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    fail(&machine, Hook::IommuDetach);
    assert_eq!(failure(ticket.try_complete()).error, OUTAGE);
    let status = machine.status(at(NIC)).expect("known");
    assert_eq!((status.broken, status.status.owner), (Some(OUTAGE), Some(Owner::Host)));
    machine.get(at(NIC)).expect("open again");
    machine.remove_device(at(NIC)).expect("asked for again");
    check(&machine);
}

#[test]
fn wait_ends_with_the_last_use_or_at_the_deadline() {
    let machine = machine(&[NIC]);
    let used = machine.get(at(NIC)).expect("known");
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    let timed_out = ticket.wait(Some(std::time::Instant::now()));
    assert_eq!(timed_out, Err(TransitionError::Ticket(TicketError::TimedOut)));
    assert_eq!(errno(timed_out), Errno::ETIMEDOUT);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || ticket.wait(None));
        drop(used);
        waiter.join().expect("no panic").expect("removed");
    });
    check(&machine);
}

#[test]
fn a_device_reported_gone_resolves_its_ticket() {
    let machine = assigned(&[NIC]);
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    machine.report_gone(at(NIC)).expect("known");
    let gone = ticket.try_complete();
    assert_eq!(gone, Err(TransitionError::Ticket(TicketError::Gone)));
    assert_eq!(errno(gone), Errno::ENODEV);
}

#[test]
fn a_ticket_driven_from_inside_the_device_would_deadlock_and_stays_pending() {
    let machine = machine(&[NIC]);
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    let inside = machine.lock(at(NIC)).expect("access goes on");
    assert_eq!(errno(ticket.try_complete()), Errno::EDEADLK);
    drop(inside);
    assert_eq!(ticket.try_complete(), Ok(true));
}
