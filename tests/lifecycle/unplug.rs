//! `request_unplug`: the guest is asked, and its answer counts once, however late.

use pcidevs::lifecycle::{TransitionError, Unplug};
use pcidevs::platform::{Fault, Hook, Refusal, Rule};
use pcidevs::{Errno, Owner, Transition};

use crate::scaffold::{
    GUEST, OTHER, OUTAGE, TO_GUEST, TO_OTHER, assigned, at, check, errno, fail, failure, machine, owner, set,
};

const NIC: &str = "00:03.0";

#[test]
fn an_ack_takes_the_device_back_once() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    assert_eq!(machine.platform().asked_unplug(), [(at(NIC), GUEST)]);
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST), "it is only a question");
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("taken back");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    let again = machine.unplug_answered(at(NIC), GUEST, Unplug::Acked);
    assert_eq!(again, Err(TransitionError::NotAsked(at(NIC))));
    assert_eq!(errno(again), Errno::EINVAL);
    check(&machine);
}

#[test]
fn a_rejection_ends_the_question() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    machine.unplug_answered(at(NIC), GUEST, Unplug::Rejected).expect("asked");
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
    assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
    machine.request_unplug(at(NIC)).expect("asked again");
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("taken back");
    check(&machine);
}

#[test]
fn a_late_ack_counts_once() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    machine.unplug_answered(at(NIC), GUEST, Unplug::TimedOut).expect("asked");
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("late");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
    check(&machine);
}

#[test]
fn an_ack_of_an_earlier_life_does_not_count() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("taken by force");
    assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
}

#[test]
fn an_ack_that_could_not_be_carried_out_may_be_reported_again() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    fail(&machine, Hook::Reset);
    failure(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked));
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("again");
    check(&machine);
}

#[test]
fn asking_nobody_or_about_nothing_is_enodev() {
    let machine = machine(&[NIC]);
    let refused = machine.request_unplug(at(NIC));
    assert_eq!(refused, Err(TransitionError::NotOwned { device: at(NIC), owner: Owner::Host }));
    assert_eq!(errno(refused), Errno::ENODEV);
    assert_eq!(errno(machine.request_unplug(at("00:04.0"))), Errno::ENODEV);
    assert_eq!(errno(machine.unplug_answered(at("00:04.0"), GUEST, Unplug::Acked)), Errno::ENODEV);
    assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
}

#[test]
fn a_question_that_cannot_be_asked_is_none() {
    for fault in [Fault::Error(OUTAGE), Fault::Panic] {
        let machine = assigned(&[NIC]);
        machine.platform().fail_next(Hook::AskUnplug, fault);
        failure(machine.request_unplug(at(NIC)));
        assert_eq!(errno(machine.unplug_answered(at(NIC), GUEST, Unplug::Acked)), Errno::EINVAL);
    }
}

#[test]
fn a_guest_that_acks_a_device_whose_removal_is_pending_gives_it_to_quarantine() {
    let machine = assigned(&[NIC]);
    machine.request_unplug(at(NIC)).expect("asked");
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("taken back");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    assert_eq!(ticket.try_complete(), Ok(true));
}

#[test]
fn a_guest_is_asked_while_the_removal_is_pending() {
    let machine = assigned(&[NIC]);
    let mut ticket = machine.begin_removal(at(NIC)).expect("known");
    machine.request_unplug(at(NIC)).expect("this is how one lets go");
    machine.unplug_answered(at(NIC), GUEST, Unplug::Acked).expect("taken back");
    assert_eq!(ticket.try_complete(), Ok(true));
}

#[test]
fn a_late_answer_of_a_previous_guest_counts_for_nobody() {
    for answer in [Unplug::Acked, Unplug::Rejected, Unplug::TimedOut] {
        let machine = assigned(&[NIC]);
        machine.request_unplug(at(NIC)).expect("asked");
        machine.deassign(&set(&[NIC]), TO_GUEST).expect("taken by force");
        machine.assign(&set(&[NIC]), OTHER).expect("assigned");
        machine.request_unplug(at(NIC)).expect("asked");
        let late = machine.unplug_answered(at(NIC), GUEST, answer);
        assert_eq!(late, Err(TransitionError::NotOwned { device: at(NIC), owner: TO_OTHER }));
        assert_eq!(errno(late), Errno::ENODEV);
        assert_eq!(owner(&machine, NIC), Some(TO_OTHER), "{answer:?}");
        machine.unplug_answered(at(NIC), OTHER, Unplug::Acked).expect("the one who is asked");
        check(&machine);
    }
}

#[test]
fn the_policy_is_asked_before_the_guest_is() {
    let machine = assigned(&[NIC]);
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Unplug));
    let refused = machine.request_unplug(at(NIC));
    assert_eq!(refused, Err(TransitionError::Refused(at(NIC), Refusal::Denied)));
    assert_eq!(machine.platform().asked_unplug(), []);
    assert_eq!(
        machine.unplug_answered(at(NIC), GUEST, Unplug::Acked),
        Err(TransitionError::NotAsked(at(NIC)))
    );
    check(&machine);
}
