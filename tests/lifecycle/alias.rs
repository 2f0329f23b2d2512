//! A requester ID that several devices have, when one of them leaves.

use pcidevs::Owner;
use pcidevs::lifecycle::{DeviceInfo, TransitionError};
use pcidevs::platform::{Entry, Fault, Hook};

use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, at, block_by_hand, check, empty, entry, fail, failure, nic, owner,
    pci_bridge, plug, set, while_it_hangs,
};

/// The alias of everything behind the bridge.
const ALIAS: &str = "01:00.0";
const BEHIND: [&str; 2] = ["01:03.0", "01:04.0"];

fn behind_a_bridge() -> Machine {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 1));
    for address in BEHIND {
        plug(&machine, address, nic());
    }
    assert!(machine.lock(at(BEHIND[0])).expect("known").requesters().contains(&at(ALIAS)));
    machine
}

#[test]
fn a_device_that_is_gone_leaves_its_siblings_their_alias() {
    let machine = behind_a_bridge();
    machine.assign(&set(&BEHIND), GUEST).expect("assigned together");
    machine.report_gone(at(BEHIND[0])).expect("gone");
    assert_eq!(entry(&machine, BEHIND[0]), Entry::Absent);
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(TO_GUEST), "the other one has it");
    check(&machine);
    machine.report_gone(at(BEHIND[1])).expect("gone");
    assert_eq!(entry(&machine, ALIAS), Entry::Absent, "nobody has it");
}

#[test]
fn an_alias_is_not_cleared_while_a_transition_may_move_it() {
    let machine = behind_a_bridge();
    let result = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&BEHIND), GUEST),
        || machine.report_gone(at(BEHIND[0])).expect("gone"),
    );
    result.expect_err("one of them is gone");
    machine.run_deferred();
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host), "the other one has it");
    assert_eq!(entry(&machine, BEHIND[0]), Entry::Absent);
    check(&machine);
}

#[test]
fn nobody_moves_an_alias_while_a_sibling_is_on_its_way_out() {
    let machine = behind_a_bridge();
    machine.quarantine(&set(&BEHIND)).expect("nobody's");
    machine.platform().fail_next(Hook::IommuDetach, Fault::Error(OUTAGE));
    let result = while_it_hangs(
        &machine,
        Hook::IommuFlush,
        || machine.remove_slot(at(BEHIND[0])),
        || {
            let moved = machine.deassign(&set(&BEHIND[1..]), Owner::Quarantine);
            assert!(matches!(moved, Err(TransitionError::GroupBusy(_))), "{moved:?}");
        },
    );
    result.expect_err("it stays, whole or broken");
    check(&machine);
}

#[test]
fn an_alias_that_cannot_be_brought_back_breaks_all_that_have_it() {
    let machine = behind_a_bridge();
    // Both entries of the first, then the second one's own; then the first undo, which is that of the alias.
    let platform = machine.platform();
    platform.count(true);
    platform.fail_next(Hook::IommuBlock, Fault::Hang);
    std::thread::scope(|scope| {
        let assigning = scope.spawn(|| machine.assign(&set(&BEHIND), GUEST));
        platform.wait_for_hangs(1);
        platform.fail_call(1, Fault::Error(OUTAGE));
        platform.fail_call(2, Fault::Error(OUTAGE));
        platform.release_hangs();
        assert_eq!(failure(assigning.join().expect("no panic")).undo.len(), 1);
    });
    for address in BEHIND {
        assert!(machine.status(at(address)).expect("known").broken.is_some(), "{address} has the alias");
    }
    assert_eq!(entry(&machine, ALIAS), Entry::Blocked);
    check(&machine);
}

#[test]
fn a_member_that_is_gone_does_not_take_the_alias_along() {
    let machine = behind_a_bridge();
    let platform = machine.platform();
    platform.count(true);
    platform.fail_next(Hook::IommuBlock, Fault::Hang);
    std::thread::scope(|scope| {
        let assigning = scope.spawn(|| machine.assign(&set(&BEHIND), GUEST));
        platform.wait_for_hangs(1);
        // At the alias, of the first one.
        platform.fail_call(0, Fault::Hang);
        platform.release_hangs();
        platform.wait_for_hangs(1);
        machine.report_gone(at(BEHIND[0])).expect("gone");
        platform.release_hangs();
        assigning.join().expect("no panic").expect_err("one of them is gone");
    });
    machine.run_deferred();
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host));
    check(&machine);
}

#[test]
fn an_alias_that_a_broken_device_has_goes_to_nobody_else() {
    let machine = behind_a_bridge();
    machine.assign(&set(&BEHIND), GUEST).expect("assigned");
    // The guest's view of one of them cannot be undone.
    fail(&machine, Hook::Facts);
    machine.deassign(&set(&BEHIND), TO_GUEST).expect_err("it fails");
    let is_broken = |address: &str| machine.status(at(address)).expect("known").broken.is_some();
    let [one, other] = BEHIND;
    let (broken, whole) = if is_broken(one) { (one, other) } else { (other, one) };
    assert!(is_broken(broken) && !is_broken(whole));
    machine.deassign(&set(&[whole]), TO_GUEST).expect("the other one may leave");
    assert_eq!(owner(&machine, whole), Some(Owner::Quarantine), "since the host shall not have the alias");
    assert_eq!(entry(&machine, ALIAS), Entry::Blocked);
    let back = machine.deassign(&set(&[whole]), Owner::Quarantine);
    assert!(matches!(back, Err(TransitionError::Inseparable { .. })), "{back:?}");
    block_by_hand(&machine, broken);
    machine.repair(at(broken)).expect("repaired");
    machine.deassign(&set(&BEHIND), Owner::Quarantine).expect("together");
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host));
    check(&machine);
}

/// The bridge and the first of the two; the second one is there and not reported yet.
fn one_behind_a_bridge() -> Machine {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 1));
    plug(&machine, BEHIND[0], nic());
    machine.platform().plug(at(BEHIND[1]), nic());
    machine
}

fn add_second(machine: &Machine) -> Result<(), TransitionError> {
    machine.add(at(BEHIND[1]), DeviceInfo::default(), 7).map(drop).map_err(|error| error.reason)
}

#[test]
fn an_add_that_fails_does_not_clear_what_another_add_has_set() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 1));
    machine.platform().plug(at(BEHIND[0]), nic());
    machine.platform().plug(at(BEHIND[1]), nic());
    let added = while_it_hangs(
        &machine,
        Hook::IommuAttach,
        || machine.add(at(BEHIND[0]), DeviceInfo::default(), 7),
        || {
            assert_eq!(add_second(&machine), Err(TransitionError::GroupBusy(at(BEHIND[1]))));
            fail(&machine, Hook::IommuFlush);
        },
    );
    assert_eq!(failure(added.map_err(|error| error.reason)).error, OUTAGE);
    assert_eq!(entry(&machine, ALIAS), Entry::Absent);
    add_second(&machine).expect("nobody else is on the way");
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host));
    check(&machine);
}

#[test]
fn nobody_comes_to_an_alias_that_a_removal_clears() {
    let machine = one_behind_a_bridge();
    let removed = while_it_hangs(
        &machine,
        Hook::IommuDetach,
        || machine.remove_device(at(BEHIND[0])),
        || assert_eq!(add_second(&machine), Err(TransitionError::GroupBusy(at(BEHIND[1])))),
    );
    removed.expect("unused");
    add_second(&machine).expect("nobody else is on the way");
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host));
    check(&machine);
}

#[test]
fn an_alias_is_not_cleared_while_somebody_comes_to_it() {
    let machine = one_behind_a_bridge();
    let added = while_it_hangs(
        &machine,
        Hook::IommuFlush,
        || add_second(&machine),
        || machine.report_gone(at(BEHIND[0])).expect("known"),
    );
    added.expect("it comes all the same");
    assert_eq!(machine.run_deferred(), 0, "the rest of the one that is gone");
    assert_eq!(entry(&machine, ALIAS), Entry::Attached(Owner::Host), "the other one has it");
    assert_eq!(entry(&machine, BEHIND[0]), Entry::Absent);
    plug(&machine, BEHIND[0], nic());
    check(&machine);
}
