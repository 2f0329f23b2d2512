//! The end of a guest: everything it has is taken back, and only then it is forgotten.

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{Fault, Hook};
use pcidevs::{DomainId, Errno, Owner};

use crate::scaffold::{
    GUEST, OTHER, OUTAGE, TO_GUEST, assigned, at, block_by_hand, check, empty, errno, failure, listed,
    machine, nic, owner, pci_bridge, plug, set, while_it_hangs,
};

const THREE: [&str; 3] = ["00:03.0", "00:04.0", "00:05.0"];

#[test]
fn release_takes_all_back_and_forgets_the_guest() {
    let machine = assigned(&THREE);
    machine.release_domain(GUEST).expect("released");
    assert_eq!(listed(&machine, Owner::Host).len(), 3);
    assert!(machine.domain(GUEST).is_none());
    let again = machine.release_domain(GUEST);
    assert_eq!(again, Err(TransitionError::NoDomain(GUEST)));
    assert_eq!(errno(again), Errno::ESRCH);
    machine.create_domain(GUEST).expect("its number is free");
    machine.assign(&set(&THREE), GUEST).expect("a new guest");
    check(&machine);
}

#[test]
fn release_of_an_empty_or_unknown_domain() {
    let machine = machine(&[]);
    machine.release_domain(OTHER).expect("nothing to take back");
    assert_eq!(errno(machine.release_domain(DomainId::new(77))), Errno::ESRCH);
}

#[test]
fn each_is_tried_once_and_failures_stay_in_order() {
    let machine = assigned(&THREE);
    machine.platform().fail_next(Hook::Reset, Fault::Error(OUTAGE));
    machine.platform().record(true);
    let failed = failure(machine.release_domain(GUEST));
    assert_eq!((failed.device, failed.error), (at("00:03.0"), OUTAGE));
    let resets = machine.platform().take_journal().iter().filter(|call| call.hook == Hook::Reset).count();
    assert_eq!(resets, 3, "each once");
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0"]);
    assert_eq!(listed(&machine, Owner::Host).len(), 2);
    check(&machine);
    machine.release_domain(GUEST).expect("asked for again");
    check(&machine);
}

#[test]
fn the_first_error_is_returned_and_all_failures_stay() {
    let machine = assigned(&THREE);
    let later = pcidevs::platform::HookError::new(Errno::ETIMEDOUT, "later");
    machine.platform().fail_next(Hook::AwaitIdle, Fault::Error(OUTAGE));
    machine.platform().fail_next(Hook::AwaitIdle, Fault::Error(later));
    assert_eq!(failure(machine.release_domain(GUEST)).error, OUTAGE);
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0", "0000:00:04.0"]);
    machine.release_domain(GUEST).expect("asked for again");
}

#[test]
fn new_assigns_to_a_dying_domain_are_refused_first() {
    let machine = machine(&["00:03.0", "00:04.0"]);
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    let released = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.release_domain(GUEST),
        || {
            let refused = machine.assign(&set(&["00:04.0"]), GUEST);
            assert_eq!(refused, Err(TransitionError::Dying(GUEST)));
            assert_eq!(errno(refused), Errno::EINVAL);
        },
    );
    released.expect("released");
    check(&machine);
}

#[test]
fn an_assign_on_its_way_to_a_dying_domain_does_not_arrive() {
    let machine = machine(&["00:03.0"]);
    let assigned = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&["00:03.0"]), GUEST),
        || {
            let left = machine.release_domain(GUEST);
            assert_eq!(left, Err(TransitionError::NotReleased { domain: GUEST, devices: 0 }));
            assert_eq!(errno(left), Errno::EBUSY);
        },
    );
    assert_eq!(assigned, Err(TransitionError::Dying(GUEST)));
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Host));
    check(&machine);
    machine.release_domain(GUEST).expect("nothing is on its way");
}

#[test]
fn a_broken_device_keeps_its_domain_from_being_released() {
    let machine = assigned(&["00:03.0", "00:04.0"]);
    machine.report_flush_timeout(at("00:03.0")).expect("known");
    for _ in 0..2 {
        let refused = machine.release_domain(GUEST);
        assert!(matches!(refused, Err(TransitionError::Broken { .. })), "{refused:?}");
        assert_eq!(errno(refused), Errno::EBADF);
        assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0"]);
        assert!(machine.domain(GUEST).is_some());
    }
    block_by_hand(&machine, "00:03.0");
    machine.repair(at("00:03.0")).expect("blocked");
    machine.release_domain(GUEST).expect("nothing of it reaches the guest any more");
    check(&machine);
}

#[test]
fn devices_that_share_a_requester_id_are_taken_back_together() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    plug(&machine, "05:01.0", nic());
    plug(&machine, "05:02.0", nic());
    plug(&machine, "00:03.0", nic());
    machine.assign(&set(&["05:01.0", "05:02.0", "00:03.0"]), GUEST).expect("assigned");
    machine.release_domain(GUEST).expect("released");
    assert_eq!(listed(&machine, Owner::Host).len(), 4);
    check(&machine);
}

#[test]
fn release_of_a_domain_whose_broken_twin_shares_a_requester_id() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    plug(&machine, "05:01.0", nic());
    plug(&machine, "05:02.0", nic());
    machine.assign(&set(&["05:01.0", "05:02.0"]), GUEST).expect("assigned");
    machine.report_flush_timeout(at("05:02.0")).expect("known");
    machine.release_domain(GUEST).expect_err("one is broken");
    assert!(listed(&machine, TO_GUEST).contains(&"0000:05:02.0".to_owned()));
    block_by_hand(&machine, "05:02.0");
    machine.repair(at("05:02.0")).expect("blocked");
    machine.release_domain(GUEST).expect("released");
    assert!(listed(&machine, Owner::Unowned).is_empty());
}

#[test]
fn release_leaves_the_devices_of_others_alone() {
    let machine = machine(&THREE);
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    machine.assign(&set(&["00:04.0"]), OTHER).expect("assigned");
    machine.release_domain(GUEST).expect("released");
    assert_eq!(owner(&machine, "00:04.0"), Some(Owner::Guest(OTHER)));
    check(&machine);
}
