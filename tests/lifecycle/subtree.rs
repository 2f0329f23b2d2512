//! `remove_slot` and `remove_subtree`: all or none.

use pcidevs::lifecycle::{DeviceInfo, TransitionError, Visibility};
use pcidevs::platform::{Fault, Hook, Refusal, Rule};
use pcidevs::{Errno, Holder, Owner, Transition};

use crate::scaffold::{
    GUEST, Machine, OUTAGE, at, check, dump, empty, errno, fail, failure, held_by, listed, machine, nic,
    plug, plug_vf, port, set, while_it_hangs,
};

/// A card: two functions, of which one has a virtual function on the next bus, and a switch with a device.
fn card() -> Machine {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 4));
    plug(&machine, "01:00.0", nic().multifunction());
    plug(&machine, "01:00.1", port(3, 4));
    plug_vf(&machine, "02:00.0", "01:00.0");
    plug(&machine, "03:00.0", port(4, 4));
    plug(&machine, "04:00.0", nic());
    plug(&machine, "00:1f.0", nic());
    machine
}

fn everything(machine: &Machine) -> Vec<String> {
    machine.devices().map(|device| device.status.address.to_string()).collect()
}

#[test]
fn remove_slot_takes_all_functions_their_vfs_and_everything_behind() {
    let machine = card();
    machine.remove_slot(at("01:00.0")).expect("unused");
    assert_eq!(everything(&machine), ["0000:00:01.0", "0000:00:1f.0"]);
    assert_eq!(machine.status(at("00:01.0")).expect("known").status.uses, 0);
    check(&machine);
}

#[test]
fn remove_slot_takes_any_function_of_the_slot_for_its_name() {
    let machine = card();
    machine.remove_slot(at("01:00.7")).expect("unused");
    assert_eq!(everything(&machine).len(), 2);
    assert_eq!(machine.remove_slot(at("01:00.0")), Err(TransitionError::NotFound(at("01:00.0"))));
}

#[test]
fn remove_subtree_takes_the_bridge_and_everything_behind_it() {
    let machine = card();
    machine.remove_subtree(at("00:01.0")).expect("unused");
    assert_eq!(everything(&machine), ["0000:00:1f.0"]);
    assert_eq!(machine.platform().entries().len(), 1);
    check(&machine);
}

#[test]
fn remove_subtree_of_what_is_no_bridge_is_einval() {
    let machine = card();
    let refused = machine.remove_subtree(at("00:1f.0"));
    assert_eq!(refused, Err(TransitionError::NotBridge(at("00:1f.0"))));
    assert_eq!(errno(refused), Errno::EINVAL);
    assert_eq!(errno(machine.remove_subtree(at("00:1e.0"))), Errno::ENODEV);
}

#[test]
fn busy_names_only_outsiders() {
    let machine = card();
    let held = machine.hold(at("01:00.0"), Holder::Named("console")).expect("memory").expect("known");
    let before = dump(&machine);
    held_by(machine.remove_subtree(at("00:01.0")), &[Holder::Named("console")]);
    assert_eq!(dump(&machine), before);
    held_by(machine.remove_slot(at("01:00.0")), &[Holder::Named("console")]);
    assert_eq!(dump(&machine), before);
    drop(held);
    machine.remove_slot(at("01:00.0")).expect("unused");
}

#[test]
fn one_assigned_or_hidden_member_refuses_all() {
    let machine = card();
    machine.assign(&set(&["04:00.0"]), GUEST).expect("assigned");
    let before = dump(&machine);
    held_by(machine.remove_subtree(at("00:01.0")), &[Holder::Domain(GUEST)]);
    assert_eq!(dump(&machine), before);
    machine.deassign(&set(&["04:00.0"]), Owner::Guest(GUEST)).expect("deassigned");
    machine.hide(at("04:00.0"), Visibility::None).expect("unused");
    let before = dump(&machine);
    assert_eq!(machine.remove_subtree(at("00:01.0")), Err(TransitionError::Hidden(at("04:00.0"))));
    assert_eq!(dump(&machine), before);
}

#[test]
fn one_refusal_of_the_policy_refuses_all() {
    let machine = card();
    let rule = Rule::new(Refusal::Denied).transition(Transition::Remove).device(at("03:00.0"));
    machine.platform().refuse(rule);
    let before = dump(&machine);
    let refused = machine.remove_slot(at("01:00.0"));
    assert_eq!(refused, Err(TransitionError::Refused(at("03:00.0"), Refusal::Denied)));
    assert_eq!(dump(&machine), before);
}

#[test]
fn a_hook_that_fails_at_a_later_member_brings_all_back() {
    let machine = card();
    let before = dump(&machine);
    machine.platform().record(true);
    machine.remove_slot(at("01:00.0")).expect("once, to see the calls");
    let calls = machine.platform().take_journal();
    let detaches = calls.iter().enumerate().filter(|(_, call)| call.hook == Hook::IommuDetach);
    let (number, second) = detaches.map(|(number, call)| (number, call.device)).nth(1).expect("several");
    let second = second.expect("of a device");

    let machine = card();
    let number = u64::try_from(number).expect("few");
    machine.platform().fail_call(number, Fault::Error(OUTAGE));
    let failed = failure(machine.remove_slot(at("01:00.0")));
    assert_eq!((failed.device, failed.error), (second, OUTAGE));
    assert_eq!(machine.status(second).expect("known").broken, Some(OUTAGE));
    let but_broken = |line: &String| line.replace(&format!("broken: Some({OUTAGE:?})"), "broken: None");
    assert_eq!(dump(&machine).iter().map(but_broken).collect::<Vec<_>>(), before);
    machine.remove_slot(at("01:00.0")).expect("asked for again");
    check(&machine);
}

#[test]
fn a_member_in_a_transition_refuses_all() {
    let machine = card();
    let assigned = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&["04:00.0"]), GUEST),
        || {
            let busy = crate::scaffold::busy(machine.remove_subtree(at("00:01.0")));
            assert!(busy.holders.contains(&Holder::Transition(Transition::Assign)), "{busy}");
            let held = [Holder::Child(at("04:00.0"))];
            assert_eq!(machine.status(at("03:00.0")).expect("open").status.holders, held);
        },
    );
    assigned.expect("assigned");
    check(&machine);
}

#[test]
fn remove_slot_on_a_bus_without_bridges_or_vfs() {
    let machine = machine(&["00:03.0", "00:03.3", "00:04.0"]);
    fail(&machine, Hook::IommuFlush);
    failure(machine.remove_slot(at("00:03.0")));
    machine.remove_slot(at("00:03.0")).expect("asked for again");
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:04.0"]);
}

#[test]
fn a_bridge_that_comes_after_what_is_behind_it_is_refused() {
    let machine = empty();
    plug(&machine, "01:00.0", nic());
    plug(&machine, "01:00.1", nic());
    machine.platform().plug(at("00:01.0"), port(1, 1));
    let add = || machine.add(at("00:01.0"), DeviceInfo::default(), 7).map_err(|error| error.reason);
    let before = dump(&machine);
    let refused = add();
    let expected = TransitionError::BridgeTooLate { bridge: at("00:01.0"), behind: at("01:00.0") };
    assert_eq!(refused, Err(expected));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(dump(&machine), before);
    for address in ["01:00.0", "01:00.1"] {
        machine.remove_device(at(address)).expect("it holds nothing");
    }
    add().expect("first");
    plug(&machine, "01:00.0", nic());
    plug(&machine, "01:00.1", nic());
    let holders = [Holder::Child(at("01:00.0")), Holder::Child(at("01:00.1"))];
    held_by(machine.remove_device(at("00:01.0")), &holders);
    check(&machine);
}

#[test]
fn a_bridge_does_not_come_above_what_is_on_its_way() {
    let machine = empty();
    machine.platform().plug(at("00:01.0"), port(1, 1));
    machine.platform().plug(at("01:00.0"), nic());
    let add = |address| machine.add(at(address), DeviceInfo::default(), 7).map_err(|error| error.reason);
    let too_late = TransitionError::BridgeTooLate { bridge: at("00:01.0"), behind: at("01:00.0") };
    let added = while_it_hangs(
        &machine,
        Hook::Bind,
        || add("01:00.0"),
        || assert_eq!(add("00:01.0"), Err(too_late.clone())),
    );
    added.expect("added");
    assert_eq!(add("00:01.0"), Err(too_late));
    machine.remove_device(at("01:00.0")).expect("unused");
    // The other way round: what comes while its bridge is on its way comes again.
    let added = while_it_hangs(
        &machine,
        Hook::Bind,
        || add("00:01.0"),
        || assert_eq!(errno(add("01:00.0")), Errno::EBUSY),
    );
    added.expect("added");
    add("01:00.0").expect("its bridge is there");
    held_by(machine.remove_device(at("00:01.0")), &[Holder::Child(at("01:00.0"))]);
    check(&machine);
}
