//! Resets: the whole of what a reset reaches is claimed, and what owners see is made anew.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{AttachmentKind, Hook, Platform, Refusal, ResetKind, ResetSupport, Rule, Switch};
use pcidevs::{Errno, Owner, Transition};

use crate::bench::IRQFD;
use crate::scaffold::{
    GUEST, OTHER, OUTAGE, TO_GUEST, TO_OTHER, assigned, at, busy, check, dump, empty, errno, fail, failure,
    machine, nic, owner, plug, port, set, while_it_hangs,
};

const NIC: &str = "00:03.0";

#[test]
fn reset_kinds_come_from_the_flags_of_the_hypercall() {
    let kinds = [ResetKind::Cold, ResetKind::Warm, ResetKind::Hot, ResetKind::Flr];
    for (flags, kind) in (0..).zip(kinds) {
        assert_eq!(ResetKind::from_flags(flags), Some(kind));
    }
    assert_eq!([4, 7, u32::MAX].map(ResetKind::from_flags), [None; 3]);
}

#[test]
fn reset_makes_the_view_anew_and_undoes_what_was_registered() {
    let machine = assigned(&[NIC]);
    let thing = machine.platform().thing(IRQFD, at(NIC));
    machine.lock(at(NIC)).expect("known").attach(thing).expect("registered");
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    machine.platform().record(true);
    machine.reset(at(NIC), ResetKind::Flr).expect("reset");
    let expected = [
        "permit 0000:00:03.0, reset to domain 1",
        "reset_scope 0000:00:03.0, reset",
        "undo irqfd of 0000:00:03.0",
        "undo vPCI of 0000:00:03.0",
        "await_idle 0000:00:03.0",
        "set_ats 0000:00:03.0, off",
        "reset 0000:00:03.0, Function Flr",
        "set_ats 0000:00:03.0, on",
        "bind 0000:00:03.0, domain 1",
    ];
    assert_eq!(machine.platform().story(), expected);
    let attachments: Vec<_> = machine.lock(at(NIC)).expect("known").attachments().collect();
    assert_eq!(attachments, [AttachmentKind::Vpci]);
    assert_eq!((machine.platform().resets(at(NIC)), owner(&machine, NIC)), (2, Some(TO_GUEST)));
    check(&machine);
}

#[test]
fn reset_of_an_unknown_device_is_enodev_and_of_a_hidden_one_eperm() {
    let machine = machine(&[NIC]);
    assert_eq!(errno(machine.reset(at("00:04.0"), ResetKind::Flr)), Errno::ENODEV);
    assert_eq!(errno(machine.report_reset(at("00:04.0"), ResetKind::Flr)), Errno::ENODEV);
    machine.hide(at(NIC), Visibility::None).expect("unused");
    assert_eq!(errno(machine.reset(at(NIC), ResetKind::Flr)), Errno::EPERM);
    assert_eq!(errno(machine.report_reset(at(NIC), ResetKind::Flr)), Errno::EPERM);
}

#[test]
fn reset_during_a_transition_is_ebusy() {
    let machine = machine(&[NIC]);
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.reset(at(NIC), ResetKind::Flr),
        || {
            let reset = pcidevs::Holder::Transition(Transition::Reset);
            assert_eq!(busy(machine.reset(at(NIC), ResetKind::Flr)).holders, [reset]);
            assert_eq!(busy(machine.report_reset(at(NIC), ResetKind::Hot)).holders, [reset]);
            assert_eq!(busy(machine.assign(&set(&[NIC]), GUEST)).holders, [reset]);
        },
    );
    done.expect("reset");
    check(&machine);
}

#[test]
fn a_reset_that_would_reach_another_owner_is_ebusy_and_touches_nothing() {
    for (support, others) in [(ResetSupport::Slot, "00:03.1"), (ResetSupport::Bus, "00:04.0")] {
        let machine = machine(&[NIC, others]);
        machine.assign(&set(&[others]), OTHER).expect("assigned");
        machine.platform().set_reset(at(NIC), support);
        let before = dump(&machine);
        let refused = machine.reset(at(NIC), ResetKind::Hot);
        let expected = TransitionError::OthersInReset { device: at(NIC), other: at(others), owner: TO_OTHER };
        assert_eq!(refused, Err(expected.clone()));
        assert_eq!(errno(refused), Errno::EBUSY);
        assert_eq!(machine.assign(&set(&[NIC]), GUEST), Err(expected));
        assert_eq!(dump(&machine), before);
    }
}

#[test]
fn siblings_of_the_same_owner_are_reset_together_once() {
    let machine = assigned(&["00:03.0", "00:03.1", "00:04.0"]);
    machine.platform().set_reset(at(NIC), ResetSupport::Slot);
    let resets = |address| machine.platform().resets(at(address));
    let before = ["00:03.0", "00:03.1", "00:04.0"].map(resets);
    machine.platform().record(true);
    machine.reset(at(NIC), ResetKind::Hot).expect("reset");
    let calls = machine.platform().take_journal();
    assert_eq!(calls.iter().filter(|call| call.hook == Hook::Reset).count(), 1);
    let bound: Vec<_> = calls.iter().filter(|call| call.hook == Hook::Bind).map(|call| call.device).collect();
    assert_eq!(bound, [Some(at("00:03.0")), Some(at("00:03.1"))], "both see a new device");
    assert_eq!(["00:03.0", "00:03.1", "00:04.0"].map(resets), [before[0] + 1, before[1] + 1, before[2]]);
    check(&machine);
}

#[test]
fn the_whole_scope_is_claimed() {
    let machine = machine(&["00:03.0", "00:03.1", "00:03.2"]);
    machine.quarantine(&set(&["00:03.2"])).expect("quarantined");
    machine.platform().set_reset(at(NIC), ResetSupport::Slot);
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.reset(at(NIC), ResetKind::Hot),
        || {
            for address in ["00:03.0", "00:03.1", "00:03.2"] {
                assert_eq!(errno(machine.assign(&set(&[address]), GUEST)), Errno::EBUSY, "{address}");
            }
        },
    );
    done.expect("reset");
    check(&machine);
}

#[test]
fn a_bus_reset_reaches_what_is_behind_the_bridges_of_the_bus() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 3));
    plug(&machine, "01:00.0", nic());
    plug(&machine, "01:01.0", port(2, 3));
    plug(&machine, "02:00.0", nic());
    machine.platform().set_reset(at("01:00.0"), ResetSupport::Bus);
    machine.assign(&set(&["02:00.0"]), OTHER).expect("assigned");
    let refused = machine.assign(&set(&["01:00.0"]), GUEST);
    let expected =
        TransitionError::OthersInReset { device: at("01:00.0"), other: at("02:00.0"), owner: TO_OTHER };
    assert_eq!(refused, Err(expected));
    machine.deassign(&set(&["02:00.0"]), TO_OTHER).expect("deassigned");
    machine.quarantine(&set(&["02:00.0"])).expect("quarantined");
    machine.assign(&set(&["01:00.0"]), GUEST).expect("what is in quarantine may be reset");
    check(&machine);
}

#[test]
fn members_of_a_set_that_share_a_reset_are_reset_once() {
    let machine = machine(&["00:03.0", "00:03.1"]);
    for address in ["00:03.0", "00:03.1"] {
        machine.platform().set_reset(at(address), ResetSupport::Slot);
    }
    assert_eq!(errno(machine.assign(&set(&["00:03.0"]), GUEST)), Errno::EBUSY, "the other is the host's");
    machine.platform().record(true);
    machine.assign(&set(&["00:03.0", "00:03.1"]), GUEST).expect("together");
    let calls = machine.platform().take_journal();
    assert_eq!(calls.iter().filter(|call| call.hook == Hook::Reset).count(), 1);
    check(&machine);
}

#[test]
fn report_reset_makes_the_view_anew_and_resets_nothing() {
    let machine = assigned(&[NIC]);
    let before = machine.platform().things();
    machine.platform().record(true);
    machine.report_reset(at(NIC), ResetKind::Hot).expect("known");
    let expected = ["undo vPCI of 0000:00:03.0", "bind 0000:00:03.0, domain 1"];
    assert_eq!(machine.platform().story(), expected);
    assert_ne!(machine.platform().things(), before, "a new one");
    check(&machine);
}

#[test]
fn a_reset_that_fails_leaves_the_owner_with_the_view_it_had() {
    for hook in [Hook::ResetScope, Hook::AwaitIdle, Hook::SetAts, Hook::Reset, Hook::Bind] {
        let machine = assigned(&[NIC]);
        machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
        crate::scaffold::work(&machine, NIC);
        let before = dump(&machine);
        fail(&machine, hook);
        assert_eq!(failure(machine.reset(at(NIC), ResetKind::Flr)).error, OUTAGE, "{hook}");
        assert_eq!(dump(&machine), before, "{hook}");
        check(&machine);
    }
}

#[test]
fn a_device_without_a_reset_is_eopnotsupp() {
    let machine = machine(&[NIC]);
    machine.platform().set_reset(at(NIC), ResetSupport::Missing);
    assert_eq!(errno(machine.reset(at(NIC), ResetKind::Flr)), Errno::EOPNOTSUPP);
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
}

#[test]
fn the_policy_is_asked_of_every_device_that_is_reset() {
    for denied in ["00:03.0", "00:03.1"] {
        let machine = assigned(&["00:03.0", "00:03.1"]);
        machine.platform().set_reset(at(NIC), ResetSupport::Slot);
        let rule = Rule::new(Refusal::Denied).transition(Transition::Reset).to(TO_GUEST);
        machine.platform().refuse(rule.device(at(denied)));
        let before = dump(&machine);
        let refused = machine.reset(at(NIC), ResetKind::Hot);
        assert_eq!(refused, Err(TransitionError::Refused(at(denied), Refusal::Denied)));
        assert_eq!(dump(&machine), before);
        machine.report_reset(at(denied), ResetKind::Hot).expect("it has happened");
    }
}
