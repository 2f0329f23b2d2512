//! IOMMU groups: who must come along, who is in the way, and when they go back to the host.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{GroupId, Hook, Refusal, Rule};
use pcidevs::{Errno, Owner, Sbdf};

use crate::scaffold::{
    GUEST, Machine, OTHER, TO_GUEST, TO_OTHER, at, check, dump, empty, errno, fail, listed, nic, owner,
    pci_bridge, plug, port, set, while_it_hangs,
};

const GROUP: GroupId = GroupId(7);
const FOUR: [&str; 4] = ["03:00.0", "03:00.1", "03:00.2", "03:00.3"];

/// A machine with endpoints in one group, with the host.
fn grouped(addresses: &[&str]) -> Machine {
    let machine = empty();
    for address in addresses {
        machine.platform().set_group(at(address), GROUP);
        plug(&machine, address, nic());
    }
    machine
}

fn not_viable(in_the_way: &[(&str, Owner)]) -> TransitionError {
    let in_the_way = in_the_way.iter().map(|(address, owner)| (at(address), *owner)).collect();
    TransitionError::GroupNotViable { group: GROUP, in_the_way }
}

fn deferred(machine: &Machine, address: &str) -> bool {
    machine.lock(at(address)).expect("known").is_deferred()
}

#[test]
fn the_group_of_a_device_is_its_other_members_bridges_included() {
    let machine = empty();
    for (address, config) in [("00:01.0", port(3, 3)), ("03:00.0", nic()), ("03:00.1", nic())] {
        machine.platform().set_group(at(address), GROUP);
        plug(&machine, address, config);
    }
    plug(&machine, "00:05.0", nic());
    assert_eq!(machine.group_of(at("03:00.0")), Ok(vec![at("00:01.0"), at("03:00.1")]));
    assert_eq!(machine.group_of(at("00:05.0")), Ok(Vec::<Sbdf>::new()));
    let unknown = machine.group_of(at("00:06.0"));
    assert_eq!(unknown, Err(TransitionError::NotFound(at("00:06.0"))));
    assert_eq!(errno(unknown), Errno::ENODEV);
    machine.remove_device(at("03:00.1")).expect("unused");
    assert_eq!(machine.group_of(at("03:00.0")), Ok(vec![at("00:01.0")]));
}

#[test]
fn a_member_with_a_driver_is_in_the_way() {
    let machine = grouped(&FOUR);
    machine.platform().set_driver(at("03:00.2"), true);
    machine.platform().set_driver(at("03:00.1"), true);
    let before = dump(&machine);
    let refused = machine.assign(&set(&["03:00.0"]), GUEST);
    let expected = not_viable(&[("03:00.1", Owner::Host), ("03:00.2", Owner::Host)]);
    assert_eq!(refused, Err(expected));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(dump(&machine), before);
    machine.quarantine(&set(&["03:00.1", "03:00.2"])).expect("quarantined");
    machine.assign(&set(&["03:00.0"]), GUEST).expect("nobody is in the way");
    check(&machine);
}

#[test]
fn the_drivers_of_members_of_the_set_are_not_in_the_way() {
    let machine = grouped(&FOUR);
    for address in FOUR {
        machine.platform().set_driver(at(address), true);
    }
    machine.assign(&set(&FOUR), GUEST).expect("all of them");
    check(&machine);
}

#[test]
fn a_member_with_another_guest_is_in_the_way_and_one_with_the_same_is_not() {
    let machine = grouped(&FOUR);
    machine.assign(&set(&["03:00.0"]), GUEST).expect("assigned");
    let refused = machine.assign(&set(&["03:00.1"]), OTHER);
    assert_eq!(refused, Err(not_viable(&[("03:00.0", TO_GUEST)])));
    machine.assign(&set(&["03:00.1"]), GUEST).expect("the same guest");
    machine.hide(at("03:00.3"), Visibility::None).expect("unused");
    machine.assign(&set(&["03:00.2"]), GUEST).expect("the hidden one is nobody's");
    check(&machine);
}

#[test]
fn two_members_to_two_guests_at_once_one_wins() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    let first = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&["03:00.0"]), GUEST),
        || {
            let refused = machine.assign(&set(&["03:00.1"]), OTHER);
            assert_eq!(refused, Err(TransitionError::GroupBusy(at("03:00.1"))));
            assert_eq!(errno(refused), Errno::EBUSY);
        },
    );
    first.expect("assigned");
    assert_eq!(machine.assign(&set(&["03:00.1"]), OTHER), Err(not_viable(&[("03:00.0", TO_GUEST)])));
    check(&machine);
}

#[test]
fn a_group_is_assigned_whole_without_its_bridges() {
    let machine = empty();
    for (address, config) in [("00:01.0", port(3, 3)), ("03:00.0", nic()), ("03:00.1", nic())] {
        machine.platform().set_group(at(address), GROUP);
        plug(&machine, address, config);
    }
    machine.assign_group(at("03:00.1"), GUEST).expect("assigned");
    assert_eq!(listed(&machine, TO_GUEST), ["0000:03:00.0", "0000:03:00.1"]);
    assert_eq!(owner(&machine, "00:01.0"), Some(Owner::Host));
    check(&machine);
    assert_eq!(errno(machine.assign_group(at("03:00.1"), GUEST)), Errno::EBUSY);
    assert_eq!(errno(machine.assign_group(at("03:00.7"), GUEST)), Errno::ENODEV);
}

#[test]
fn devices_that_share_a_requester_id_are_inseparable() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    plug(&machine, "05:01.0", nic());
    plug(&machine, "05:02.0", nic());
    let before = dump(&machine);
    let refused = machine.assign(&set(&["05:02.0"]), GUEST);
    let expected = TransitionError::Inseparable { device: at("05:02.0"), other: at("05:01.0") };
    assert_eq!(refused, Err(expected.clone()));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(machine.quarantine(&set(&["05:02.0"])), Err(expected.clone()));
    assert_eq!(machine.hide(at("05:02.0"), Visibility::None), Err(expected.clone()));
    assert_eq!(dump(&machine), before);
    machine.assign(&set(&["05:01.0", "05:02.0"]), GUEST).expect("together");
    check(&machine);
    assert_eq!(machine.deassign(&set(&["05:02.0"]), TO_GUEST), Err(expected));
    machine.deassign(&set(&["05:01.0", "05:02.0"]), TO_GUEST).expect("together");
    check(&machine);
}

#[test]
fn a_shared_quirk_alias_makes_a_group_where_the_platform_has_none() {
    let machine = empty();
    for address in ["00:03.0", "00:04.0"] {
        machine.platform().add_alias(at(address), at("00:1f.7"));
        plug(&machine, address, nic());
    }
    assert_eq!(machine.group_of(at("00:03.0")), Ok(vec![at("00:04.0")]));
    assert_eq!(errno(machine.assign(&set(&["00:03.0"]), GUEST)), Errno::EBUSY);
    machine.assign_group(at("00:03.0"), GUEST).expect("together");
    check(&machine);
}

#[test]
fn members_wait_in_quarantine_until_the_last_has_left_its_guest() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, "03:00.0"), Some(Owner::Quarantine));
    assert!(deferred(&machine, "03:00.0") && machine.status(at("03:00.0")).expect("known").deferred);
    assert_eq!(machine.run_deferred(), 1, "still in the way");
    check(&machine);
    machine.platform().record(true);
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("the last one");
    assert_eq!(listed(&machine, Owner::Host).len(), 2);
    assert!(!deferred(&machine, "03:00.0") && !deferred(&machine, "03:00.1"));
    assert_eq!(machine.run_deferred(), 0);
    check(&machine);
}

#[test]
fn all_that_wait_go_back_in_one_publication() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.platform().set_group_in_use(GROUP, true);
    machine.deassign(&set(&["03:00.0", "03:00.1"]), TO_GUEST).expect("deassigned");
    machine.platform().set_group_in_use(GROUP, false);
    let left = while_it_hangs(
        &machine,
        Hook::Bind,
        || machine.run_deferred(),
        || assert_eq!(listed(&machine, Owner::Quarantine).len(), 2),
    );
    assert_eq!((left, listed(&machine, Owner::Host).len()), (0, 2));
    check(&machine);
}

#[test]
fn a_group_that_somebody_has_open_waits_until_run_deferred() {
    for addresses in [&["03:00.0"][..], &["03:00.0", "03:00.1"]] {
        let machine = grouped(addresses);
        machine.assign(&set(addresses), GUEST).expect("assigned");
        machine.platform().set_group_in_use(GROUP, true);
        machine.deassign(&set(addresses), TO_GUEST).expect("deassigned");
        assert_eq!(listed(&machine, Owner::Quarantine).len(), addresses.len());
        assert!(addresses.iter().all(|address| deferred(&machine, address)));
        assert_eq!(machine.run_deferred(), addresses.len(), "still open");
        machine.platform().set_group_in_use(GROUP, false);
        assert_eq!(machine.run_deferred(), 0);
        assert_eq!(listed(&machine, Owner::Host).len(), addresses.len());
        check(&machine);
    }
}

#[test]
fn the_four_port_adapter_stays_detached() {
    let machine = grouped(&FOUR);
    machine.quarantine(&set(&FOUR)).expect("detach 4");
    machine.assign(&set(&["03:00.1"]), GUEST).expect("attach 1");
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("release it");
    assert_eq!(listed(&machine, Owner::Quarantine).len(), 4);
    assert_eq!(machine.run_deferred(), 0, "nobody waits: somebody detached them by hand");
    assert_eq!(listed(&machine, Owner::Quarantine).len(), 4);
    check(&machine);
    machine.deassign(&set(&FOUR), Owner::Quarantine).expect("reattach 4");
    assert_eq!(listed(&machine, Owner::Host).len(), 4);
    check(&machine);
}

#[test]
fn members_detached_by_hand_stay_when_the_others_go_back() {
    let machine = grouped(&FOUR);
    machine.quarantine(&set(&["03:00.3"])).expect("detached by hand");
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect("deassigned");
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("deassigned");
    assert_eq!(listed(&machine, Owner::Quarantine), ["0000:03:00.3"]);
    check(&machine);
}

#[test]
fn one_that_cannot_go_back_alone_keeps_all_of_its_group_that_wait() {
    let all = ["03:00.0", "05:01.0", "05:02.0"];
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    for address in all {
        machine.platform().set_group(at(address), GROUP);
        plug(&machine, address, nic());
    }
    machine.assign(&set(&all), GUEST).expect("assigned");
    machine.platform().set_group_in_use(GROUP, true);
    machine.deassign(&set(&all), TO_GUEST).expect("deassigned");
    machine.quarantine(&set(&["05:02.0"])).expect("it stays");
    machine.platform().set_group_in_use(GROUP, false);
    assert_eq!(machine.run_deferred(), 2, "they go in one transition, or not at all");
    assert!(deferred(&machine, "03:00.0") && deferred(&machine, "05:01.0"));
    assert_eq!(listed(&machine, Owner::Quarantine).len(), 3);
    check(&machine);
    machine.deassign(&set(&["05:02.0"]), Owner::Quarantine).expect("now nothing keeps them");
    assert!(listed(&machine, Owner::Quarantine).is_empty());
    check(&machine);
}

#[test]
fn a_deferred_member_can_be_assigned_again_and_waits_no_more() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect("deassigned");
    machine.assign(&set(&["03:00.0"]), GUEST).expect("assigned again");
    assert!(!deferred(&machine, "03:00.0"));
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, "03:00.0"), Some(TO_GUEST));
    check(&machine);
}

#[test]
fn a_deferred_member_that_is_quarantined_by_hand_waits_no_more() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect("deassigned");
    machine.quarantine(&set(&["03:00.0"])).expect("it stays");
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("deassigned");
    assert_eq!(
        (owner(&machine, "03:00.0"), owner(&machine, "03:00.1")),
        (Some(Owner::Quarantine), Some(Owner::Host),)
    );
    check(&machine);
}

#[test]
fn a_refused_deassign_marks_nobody_to_give_back() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    let before = dump(&machine);
    machine.platform().refuse(Rule::new(Refusal::Denied).to(Owner::Quarantine));
    assert_eq!(errno(machine.deassign(&set(&["03:00.0"]), TO_GUEST)), Errno::EPERM);
    assert_eq!(dump(&machine), before);
    machine.platform().permit_all();
    for hook in [Hook::ResetScope, Hook::AwaitIdle, Hook::Reset] {
        fail(&machine, hook);
        machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect_err("a hook failed");
        assert_eq!(dump(&machine), before, "{hook}");
    }
}

#[test]
fn a_return_that_fails_is_tried_again() {
    let machine = grouped(&["03:00.0", "03:00.1"]);
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("assigned");
    machine.deassign(&set(&["03:00.0"]), TO_GUEST).expect("deassigned");
    fail(&machine, Hook::IommuAttach);
    machine.deassign(&set(&["03:00.1"]), TO_GUEST).expect("it left its guest");
    assert_eq!(listed(&machine, Owner::Quarantine).len(), 2, "and waits");
    assert!(deferred(&machine, "03:00.0") && deferred(&machine, "03:00.1"));
    check(&machine);
    assert_eq!(machine.run_deferred(), 0);
    assert_eq!(listed(&machine, Owner::Host).len(), 2);
    check(&machine);
}

#[test]
fn release_of_a_domain_gives_its_groups_back() {
    let machine = grouped(&FOUR);
    machine.assign(&set(&FOUR), OTHER).expect("assigned");
    machine.release_domain(OTHER).expect("released");
    assert_eq!(listed(&machine, Owner::Host).len(), 4);
    assert_eq!(machine.devices_of(TO_OTHER).expect("memory").map(|devices| devices.len()), None);
    check(&machine);
}
