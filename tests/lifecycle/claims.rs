//! While a hook hangs on one device, everybody else goes on, and whoever wants that device is told who has it.

use pcidevs::lifecycle::{DeviceInfo, TransitionError, Visibility};
use pcidevs::platform::{Hook, ResetKind};
use pcidevs::{Errno, Holder, Owner, Transition};

use crate::scaffold::{
    GUEST, Machine, OTHER, TO_GUEST, TO_OTHER, assigned, at, busy, check, errno, listed, machine, nic, owner,
    plug, set, while_it_hangs,
};

const NIC: &str = "00:03.0";

/// What is asked of the device, and what of another one.
fn each_operation(machine: &Machine, name: Transition) {
    let transition = Holder::Transition(name);
    let holders = |result: Result<(), TransitionError>| {
        assert_eq!(result.as_ref().map_err(TransitionError::errno), Err(Errno::EBUSY));
        busy(result).holders
    };
    let before = owner(machine, NIC);
    let refused = [
        machine.assign(&set(&[NIC]), OTHER),
        machine.quarantine(&set(&[NIC])),
        machine.deassign(&set(&[NIC]), TO_GUEST),
        machine.hide(at(NIC), Visibility::None),
        machine.reset(at(NIC), ResetKind::Flr),
        machine.report_reset(at(NIC), ResetKind::Flr),
        machine.repair(at(NIC)),
        machine.msi_prepare(at(NIC)),
        machine.msi_release(at(NIC)),
        machine.can_assign(at(NIC), GUEST),
        machine.remove_device(at(NIC)),
        machine.remove_slot(at(NIC)),
        machine.begin_removal(at(NIC)).map(drop),
    ];
    for (place, result) in refused.into_iter().enumerate() {
        assert!(holders(result).contains(&transition), "operation {place}");
    }
    let again = machine.add(at(NIC), DeviceInfo::default(), 1).map_err(|error| error.reason);
    assert_eq!(again.as_ref().map_err(TransitionError::errno), Err(Errno::EBUSY));
    assert_eq!(owner(machine, NIC), before, "access to it goes on");

    machine.assign(&set(&["00:04.0"]), OTHER).expect("another device");
    assert_eq!(listed(machine, TO_OTHER), ["0000:00:04.0"]);
    machine.deassign(&set(&["00:04.0"]), TO_OTHER).expect("another device");
    plug(machine, "00:05.0", nic());
    machine.reset(at("00:05.0"), ResetKind::Flr).expect("another device");
    machine.remove_device(at("00:05.0")).expect("another device");
    assert_eq!(machine.run_deferred(), 0);
    assert_eq!(machine.devices().count(), 2);
}

#[test]
fn every_other_operation_is_busy_and_every_other_device_goes_on() {
    for hook in [Hook::Permit, Hook::ResetScope, Hook::AwaitIdle, Hook::IommuFlush, Hook::Reset, Hook::Bind] {
        let machine = machine(&[NIC, "00:04.0"]);
        let done = while_it_hangs(
            &machine,
            hook,
            || machine.assign(&set(&[NIC]), GUEST),
            || each_operation(&machine, Transition::Assign),
        );
        done.expect("assigned");
        check(&machine);
    }
    let machine = assigned(&[NIC]);
    plug(&machine, "00:04.0", nic());
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.deassign(&set(&[NIC]), TO_GUEST),
        || each_operation(&machine, Transition::Deassign),
    );
    done.expect("deassigned");
    check(&machine);
}

#[test]
fn add_again_during_a_transition_is_busy_only_if_it_has_to_adopt() {
    let machine = machine(&[]);
    machine.platform().plug(at(NIC), nic());
    machine.scan(at(NIC).segment(), |_| 1).expect("scanned");
    let done = while_it_hangs(
        &machine,
        Hook::IommuAttach,
        || machine.set_host(),
        || {
            let again = machine.add(at(NIC), DeviceInfo::default(), 1).map_err(|error| error.reason);
            let busy = busy(again.map(drop));
            assert_eq!(busy.holders, [Holder::Transition(Transition::Adopt)]);
        },
    );
    done.expect("adopted");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    check(&machine);
}

#[test]
fn the_names_of_transitions_are_the_holders() {
    type Operation = fn(&Machine) -> Result<(), TransitionError>;
    let operations: [(Transition, Hook, Operation); 5] = [
        (Transition::Quarantine, Hook::Reset, |machine| machine.quarantine(&set(&[NIC]))),
        (Transition::Hide, Hook::IommuBlock, |machine| machine.hide(at(NIC), Visibility::None)),
        (Transition::Reset, Hook::Reset, |machine| machine.reset(at(NIC), ResetKind::Flr)),
        (Transition::Reset, Hook::Bind, |machine| machine.report_reset(at(NIC), ResetKind::Flr)),
        (Transition::Interrupts, Hook::MsixPrepare, |machine| machine.msi_prepare(at(NIC))),
    ];
    for (name, hook, operation) in operations {
        let machine = machine(&[NIC]);
        let done = while_it_hangs(
            &machine,
            hook,
            || operation(&machine),
            || {
                let status = machine.status(at(NIC)).expect("known").status;
                assert_eq!((status.holders, status.unnamed), (vec![Holder::Transition(name)], 0));
                assert_eq!(busy(machine.remove_device(at(NIC))).holders, [Holder::Transition(name)]);
            },
        );
        done.expect("done");
        assert_eq!(machine.status(at(NIC)).expect("known").status.uses, 0, "{name}: nothing is left");
    }
}

#[test]
fn the_thread_inside_a_device_would_deadlock_in_every_transition_of_it() {
    let machine = machine(&[NIC]);
    let inside = machine.lock(at(NIC)).expect("known");
    let refused = [
        machine.assign(&set(&[NIC]), GUEST),
        machine.quarantine(&set(&[NIC])),
        machine.deassign(&set(&[NIC]), TO_GUEST),
        machine.hide(at(NIC), Visibility::None),
        machine.reset(at(NIC), ResetKind::Flr),
        machine.report_reset(at(NIC), ResetKind::Flr),
        machine.repair(at(NIC)),
        machine.msi_prepare(at(NIC)),
        machine.can_assign(at(NIC), GUEST),
        machine.report_flush_timeout(at(NIC)),
        machine.request_unplug(at(NIC)),
        machine.begin_removal(at(NIC)).map(drop),
        machine.report_gone(at(NIC)),
    ];
    for (place, result) in refused.into_iter().enumerate() {
        assert_eq!(errno(result), Errno::EDEADLK, "operation {place}");
    }
    drop(inside);
    machine.assign(&set(&[NIC]), GUEST).expect("nothing is left of it");
    check(&machine);
}

#[test]
fn a_hook_may_use_other_devices_and_its_own_transition_is_busy() {
    let machine = machine(&[NIC, "00:04.0"]);
    let inner = machine.clone();
    machine.platform().on_bind(move |device, to| {
        if device.address() == at(NIC) && to == TO_GUEST {
            assert_eq!(errno(inner.quarantine(&set(&[NIC]))), Errno::EBUSY);
            inner.quarantine(&set(&["00:04.0"])).expect("another device");
            assert!(inner.get(at(NIC)).is_some(), "and handles of its own");
            device.with(&mut |data| *data += 1);
        }
        Ok(None)
    });
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(**machine.lock(at(NIC)).expect("known"), 8);
    assert_eq!(owner(&machine, "00:04.0"), Some(Owner::Quarantine));
    machine.platform().on_bind(|_, _| Ok(None));
}
