//! A guest always gets rid of a device: a reset that would reach devices of others waits in quarantine.

use pcidevs::lifecycle::{TransitionError, Unplug};
use pcidevs::platform::{Entry, ResetKind, ResetSupport};
use pcidevs::{Errno, Owner};

use crate::scaffold::{
    GUEST, Machine, OTHER, TO_GUEST, TO_OTHER, at, check, empty, entry, errno, listed, machine, nic, owner,
    pci_bridge, plug, set,
};

const ONE: &str = "00:03.0";
const SIBLING: &str = "00:03.1";

/// A card of two functions without a reset of their own: the guest has one, and then the other goes elsewhere.
fn card(sibling: impl FnOnce(&Machine)) -> Machine {
    let machine = machine(&[ONE, SIBLING]);
    machine.assign(&set(&[ONE]), GUEST).expect("each has a reset of its own so far");
    sibling(&machine);
    for address in [ONE, SIBLING] {
        machine.platform().set_reset(at(address), ResetSupport::Slot);
    }
    machine
}

fn needs_reset(machine: &Machine, address: &str) -> bool {
    let status = machine.status(at(address)).expect("known");
    assert_eq!(machine.lock(at(address)).expect("known").needs_reset(), status.needs_reset);
    status.needs_reset
}

fn resets(machine: &Machine, address: &str) -> u32 {
    machine.platform().resets(at(address))
}

fn in_the_way(owner: Owner) -> TransitionError {
    TransitionError::OthersInReset { device: at(ONE), other: at(SIBLING), owner }
}

#[test]
fn release_puts_what_cannot_be_reset_yet_into_quarantine() {
    let machine = card(|_| ());
    let before = resets(&machine, ONE);
    machine.release_domain(GUEST).expect("its memory may be freed");
    assert_eq!((owner(&machine, ONE), entry(&machine, ONE)), (Some(Owner::Quarantine), Entry::Blocked));
    assert_eq!(resets(&machine, ONE), before, "the host's function is not hit");
    assert!(needs_reset(&machine, ONE) && !needs_reset(&machine, SIBLING));
    check(&machine);
}

#[test]
fn deassign_and_an_acked_unplug_do_as_well() {
    let machine = card(|_| ());
    machine.deassign(&set(&[ONE]), TO_GUEST).expect("to quarantine");
    assert_eq!(owner(&machine, ONE), Some(Owner::Quarantine));
    assert!(needs_reset(&machine, ONE));
    let machine = card(|_| ());
    machine.request_unplug(at(ONE)).expect("asked");
    machine.unplug_answered(at(ONE), GUEST, Unplug::Acked).expect("to quarantine");
    assert_eq!(owner(&machine, ONE), Some(Owner::Quarantine));
    assert!(needs_reset(&machine, ONE));
    check(&machine);
}

#[test]
fn a_sticky_device_whose_siblings_are_with_others_goes_back_to_quarantine() {
    let machine = machine(&[ONE, SIBLING]);
    machine.quarantine(&set(&[ONE])).expect("sticky from now on");
    machine.assign(&set(&[ONE]), GUEST).expect("assigned");
    machine.assign(&set(&[SIBLING]), OTHER).expect("assigned");
    machine.platform().set_reset(at(ONE), ResetSupport::Slot);
    machine.deassign(&set(&[ONE]), TO_GUEST).expect("to quarantine");
    assert!(needs_reset(&machine, ONE));
    check(&machine);
}

#[test]
fn what_was_not_reset_since_a_guest_had_it_goes_to_nobody() {
    let machine = card(|machine| machine.assign(&set(&[SIBLING]), OTHER).expect("assigned"));
    machine.release_domain(GUEST).expect("released");
    let refused = machine.deassign(&set(&[ONE]), Owner::Quarantine);
    assert_eq!(refused, Err(in_the_way(TO_OTHER)));
    assert_eq!(errno(refused), Errno::EBUSY);
    machine.create_domain(GUEST).expect("its number is free");
    assert_eq!(machine.assign(&set(&[ONE]), GUEST), Err(in_the_way(TO_OTHER)));
    assert_eq!(machine.reset(at(ONE), ResetKind::Hot), Err(in_the_way(TO_OTHER)));
    assert!(needs_reset(&machine, ONE));
    // The other guest's function may leave: what is in quarantine is in nobody's way, and is reset with it.
    machine.deassign(&set(&[SIBLING]), TO_OTHER).expect("deassigned");
    assert_eq!(owner(&machine, SIBLING), Some(Owner::Host));
    assert!(!needs_reset(&machine, ONE), "the reset of its sibling reached it");
    check(&machine);
}

#[test]
fn it_is_reset_before_it_goes_on_whatever_the_platform_says_later() {
    let machine = card(|_| ());
    machine.release_domain(GUEST).expect("released");
    machine.quarantine(&set(&[SIBLING])).expect("its own reset finds the other one in quarantine");
    assert!(!needs_reset(&machine, ONE));

    let machine = card(|_| ());
    machine.release_domain(GUEST).expect("released");
    machine.platform().set_reset(at(ONE), ResetSupport::NotNeeded);
    assert_eq!(machine.deassign(&set(&[ONE]), Owner::Quarantine), Err(in_the_way(Owner::Host)));
    machine.platform().set_reset(at(SIBLING), ResetSupport::NotNeeded);
    machine.quarantine(&set(&[SIBLING])).expect("no reset");
    let before = resets(&machine, ONE);
    machine.deassign(&set(&[ONE]), Owner::Quarantine).expect("the scope is free");
    assert_eq!(resets(&machine, ONE), before + 1, "a guest had it");
    assert!(!needs_reset(&machine, ONE));
    check(&machine);
}

#[test]
fn a_reset_that_was_asked_for_or_reported_is_one() {
    for reported in [false, true] {
        let machine = card(|_| ());
        machine.release_domain(GUEST).expect("released");
        if reported {
            machine.report_reset(at(ONE), ResetKind::Hot).expect("the host did it");
        } else {
            machine.platform().set_reset(at(ONE), ResetSupport::Function);
            machine.reset(at(ONE), ResetKind::Flr).expect("it has one after all");
        }
        assert!(!needs_reset(&machine, ONE));
        check(&machine);
    }
}

#[test]
fn siblings_of_the_same_guest_leave_together() {
    let machine = card(|machine| machine.assign(&set(&[SIBLING]), GUEST).expect("assigned"));
    assert_eq!(machine.deassign(&set(&[ONE]), TO_GUEST), Err(in_the_way(TO_GUEST)));
    machine.release_domain(GUEST).expect("together");
    assert_eq!(listed(&machine, Owner::Host).len(), 2);
    assert!(!needs_reset(&machine, ONE) && !needs_reset(&machine, SIBLING));
    check(&machine);
}

#[test]
fn a_broken_sibling_of_the_same_guest_keeps_none_of_the_others_there() {
    let machine = card(|machine| machine.assign(&set(&[SIBLING]), GUEST).expect("assigned"));
    machine.report_flush_timeout(at(SIBLING)).expect("known");
    machine.release_domain(GUEST).expect_err("one is broken");
    assert_eq!(owner(&machine, ONE), Some(Owner::Quarantine));
    assert!(needs_reset(&machine, ONE));
    check(&machine);
}

#[test]
fn who_shares_a_requester_id_with_it_comes_along_to_quarantine() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    // By a quirk the function of a card sends requests under the ID of those behind the bridge.
    machine.platform().add_alias(at(ONE), at("05:00.0"));
    for address in [ONE, "05:01.0", SIBLING] {
        plug(&machine, address, nic());
    }
    machine.assign(&set(&[ONE, "05:01.0"]), GUEST).expect("assigned");
    machine.platform().set_reset(at(ONE), ResetSupport::Slot);
    machine.release_domain(GUEST).expect("released");
    assert_eq!(listed(&machine, Owner::Quarantine), ["0000:00:03.0", "0000:05:01.0"]);
    assert!(needs_reset(&machine, ONE) && !needs_reset(&machine, "05:01.0"));
    check(&machine);
}

#[test]
fn it_is_one_event_and_the_policy_hears_where_it_goes() {
    use std::sync::{Arc, Mutex};

    let machine = card(|_| ());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let subscriber = move |event: &pcidevs::lifecycle::Event<'_>| {
        if let pcidevs::lifecycle::What::Transition { from, to, error, .. } = event.what {
            log.lock().expect("no panic").push((event.device, from, to, error.is_some()));
        }
    };
    machine.subscribe(Arc::new(subscriber)).expect("memory");
    machine.deassign(&set(&[ONE]), TO_GUEST).expect("to quarantine");
    assert_eq!(*seen.lock().expect("no panic"), [(at(ONE), Some(TO_GUEST), Some(Owner::Quarantine), false)]);
    let denied = pcidevs::platform::Rule::new(pcidevs::platform::Refusal::Denied).to(Owner::Quarantine);
    let machine = card(|_| ());
    machine.platform().refuse(denied);
    let refused = machine.deassign(&set(&[ONE]), TO_GUEST);
    assert!(matches!(refused, Err(TransitionError::Refused(..))), "{refused:?}");
    assert_eq!(owner(&machine, ONE), Some(TO_GUEST));
}
