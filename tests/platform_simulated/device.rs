//! Facts, policy, resets, and what happens to owners.

use std::sync::Arc;

use pcidevs::address::Bus;
use pcidevs::device::{BusRange, Capabilities, ConfigSpace};
use pcidevs::platform::{
    Attachment, AttachmentKind, Claimed, ConfigBytes, Facts, GroupId, Hardware, HookError, Platform, Refusal,
    Request, ResetKind, ResetScope, ResetSupport, Rule, Stopped, Switch, Width,
};
use pcidevs::{DomainId, Errno, Owner, Transition};

use super::{ALIAS, COMMAND, GROUP, GUEST, ID, InHand, Machine, NIC, OUTAGE, at, machine, nic, request};

#[test]
fn facts_are_what_the_test_said() {
    let machine = machine();
    assert_eq!(machine.facts(NIC), Ok(Facts::default()));
    machine.set_group(NIC, GROUP);
    machine.set_node(NIC, 1);
    machine.add_alias(NIC, ALIAS);
    machine.set_phantom_stride(NIC, 4);
    let facts = Facts { group: Some(GROUP), node: Some(1), aliases: vec![ALIAS], phantom_stride: Some(4) };
    assert_eq!(machine.facts(NIC).as_ref(), Ok(&facts));
    machine.set_facts(ALIAS, facts.clone());
    assert_eq!(machine.facts(ALIAS), Ok(facts));
}

#[test]
fn drivers_and_open_groups_come_and_go() {
    let machine = machine();
    for present in [false, true, false] {
        machine.set_driver(NIC, present);
        machine.set_group_in_use(GROUP, present);
        assert_eq!((machine.has_driver(NIC), machine.group_in_use(GROUP)), (present, present));
        assert!(!machine.has_driver(ALIAS) && !machine.group_in_use(GroupId(4)));
    }
}

#[test]
fn a_rule_refuses_what_matches_all_it_names() {
    let machine = machine();
    let assign = request(Transition::Assign, GUEST);
    let rule = Rule::new(Refusal::ReservedMemory).device(NIC).transition(Transition::Assign).to(GUEST);
    machine.refuse(rule);
    assert_eq!(machine.permit(&assign), Err(Refusal::ReservedMemory));
    let others = [
        Request { device: ALIAS, ..assign },
        Request { transition: Transition::Reset, ..assign },
        Request { to: Owner::Host, ..assign },
    ];
    assert!(others.iter().all(|other| machine.permit(other).is_ok()));
    machine.refuse(Rule::new(Refusal::Dying));
    assert_eq!(machine.permit(&assign), Err(Refusal::ReservedMemory), "the first that matches");
    assert!(others.iter().all(|other| machine.permit(other) == Err(Refusal::Dying)));
    machine.permit_all();
    assert_eq!(machine.permit(&assign), Ok(()));
}

#[test]
fn the_clock_stands_until_it_is_told_otherwise() {
    let machine = machine();
    machine.advance(10);
    machine.advance(5);
    assert_eq!((machine.now(), machine.now()), (15, 15));
    machine.run_clock();
    assert!(machine.now() >= 15);
}

#[test]
fn a_device_is_idle_once_its_bus_mastering_is_off() {
    let machine = machine();
    assert_eq!(machine.await_idle(NIC).map_err(HookError::errno), Err(Errno::ETIMEDOUT));
    machine.config_write(NIC, COMMAND, Width::Word, 0);
    assert_eq!(machine.await_idle(NIC), Ok(()));
    assert_eq!(machine.await_idle(ALIAS), Ok(()), "nothing there, nothing pending");
}

#[test]
fn ats_is_switched_in_the_capability() {
    let machine = machine();
    machine.plug(ALIAS, ConfigBytes::endpoint(1, 2));
    machine.set_ats(NIC, Switch::On).unwrap();
    assert_eq!(machine.ats(NIC), Switch::On);
    assert_eq!(machine.config_read(NIC, 0x106, Width::Word), 0x8000);
    machine.set_ats(NIC, Switch::Off).unwrap();
    assert_eq!(machine.ats(NIC), Switch::Off);
    assert_eq!(machine.set_ats(ALIAS, Switch::On).map_err(HookError::errno), Err(Errno::EOPNOTSUPP));
    assert_eq!(machine.set_ats(ALIAS, Switch::Off), Ok(()), "nothing to switch off");
}

#[test]
fn a_reset_switches_off_bus_mastering_msi_msix_and_ats() {
    let machine = machine();
    let found = Capabilities::read(ConfigSpace::new(nic().bytes())).found;
    let control = |id| u16::from(found.iter().find(|it| it.id == id).unwrap().offset) + 2;
    machine.config_write(NIC, control(0x05), Width::Word, 0x81);
    machine.config_write(NIC, control(0x11), Width::Word, 0xc003);
    machine.set_ats(NIC, Switch::On).unwrap();
    machine.reset(NIC, ResetScope::Function, Some(ResetKind::Flr)).unwrap();
    assert_eq!(machine.config_read(NIC, COMMAND, Width::Word), 0);
    assert_eq!(machine.config_read(NIC, control(0x05), Width::Word), 0x80);
    assert_eq!(machine.config_read(NIC, control(0x11), Width::Word), 0x4003);
    assert_eq!((machine.ats(NIC), machine.resets(NIC)), (Switch::Off, 1));
}

#[test]
fn a_reset_reaches_its_scope() {
    let functions = ["00:01.0", "02:00.0", "02:00.1", "02:01.0", "03:00.0", "04:00.0", "05:00.0", "06:00.0"];
    let resets = |scope| {
        let machine = Machine::new();
        for function in functions {
            machine.plug(at(function), nic());
        }
        let below = |secondary, subordinate| BusRange {
            primary: Bus::new(2),
            secondary: Bus::new(secondary),
            subordinate: Bus::new(subordinate),
        };
        machine.plug(at("02:01.0"), ConfigBytes::root_port(1, 2, below(3, 5)));
        machine.plug(at("04:00.0"), ConfigBytes::bridge(1, 2, below(5, 5)));
        machine.reset(at("02:00.0"), scope, None).unwrap();
        functions.map(|it| machine.resets(at(it)))
    };
    assert_eq!(resets(ResetScope::Function), [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(resets(ResetScope::Slot), [0, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(resets(ResetScope::Bus), [0, 1, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn the_scope_of_a_reset_is_what_the_test_said() {
    let machine = machine();
    let scope = |support| {
        machine.set_reset(NIC, support);
        machine.reset_scope(NIC, Transition::Assign).map_err(HookError::errno)
    };
    assert_eq!(machine.reset_scope(NIC, Transition::Assign), Ok(Some(ResetScope::Function)));
    assert_eq!(scope(ResetSupport::Slot), Ok(Some(ResetScope::Slot)));
    assert_eq!(scope(ResetSupport::Bus), Ok(Some(ResetScope::Bus)));
    assert_eq!(scope(ResetSupport::NotNeeded), Ok(None));
    assert_eq!(scope(ResetSupport::Missing), Err(Errno::EOPNOTSUPP));
    assert_eq!(scope(ResetSupport::Function), Ok(Some(ResetScope::Function)));
}

#[test]
fn msix_is_prepared_until_it_is_released() {
    let machine = machine();
    machine.msix_prepare(NIC).unwrap();
    assert!(machine.msix_prepared(NIC));
    machine.msix_release(NIC).unwrap();
    assert!(!machine.msix_prepared(NIC) && !machine.msix_prepared(ALIAS));
}

struct Vpci;

impl Attachment<u32> for Vpci {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn undo(&mut self, _: &dyn Claimed<u32>, _: Hardware) -> Result<(), HookError> {
        Ok(())
    }

    fn redo(&mut self, _: &dyn Claimed<u32>) -> Result<(), HookError> {
        Ok(())
    }
}

/// The binder is foreign code: it may lock the device, and call the machine as it likes.
#[test]
fn bind_does_what_the_test_said_with_no_lock_held() {
    let machine = Arc::new(machine());
    let device = InHand(0.into());
    assert!(machine.bind(&device, GUEST).unwrap().is_none());
    let inside = Arc::downgrade(&machine);
    machine.on_bind(move |device, owner| {
        device.with(&mut |data| *data += 1);
        inside.upgrade().unwrap().on_bind(|_, _| Err(OUTAGE));
        Ok(if owner == GUEST { Some(Box::new(Vpci)) } else { None })
    });
    assert_eq!(machine.bind(&device, GUEST).unwrap().unwrap().kind(), AttachmentKind::Vpci);
    assert_eq!(*device.0.lock().unwrap(), 1);
    assert_eq!(machine.bind(&device, GUEST).unwrap_err(), OUTAGE);
}

#[test]
fn guests_asked_and_stopped_are_remembered() {
    let machine = machine();
    machine.ask_unplug(NIC, ID).unwrap();
    machine.stop_guest(ID, NIC, OUTAGE);
    assert_eq!(machine.asked_unplug(), [(NIC, ID)]);
    assert_eq!(machine.stopped(), [Stopped { guest: ID, device: NIC, because: OUTAGE }]);
}

#[test]
fn what_was_asked_and_stopped_is_remembered_up_to_a_bound_and_can_be_taken() {
    let machine = machine();
    let guests = (0..100).map(DomainId::new);
    for guest in guests.clone() {
        machine.ask_unplug(NIC, guest).expect("asked");
        machine.stop_guest(guest, NIC, OUTAGE);
    }
    let last: Vec<_> = guests.skip(100 - 64).collect();
    let asked: Vec<_> = machine.take_asked_unplug().into_iter().map(|(_, guest)| guest).collect();
    let stopped: Vec<_> = machine.take_stopped().into_iter().map(|stopped| stopped.guest).collect();
    assert_eq!((&asked, &stopped), (&last, &last), "the last ones");
    assert!(machine.asked_unplug().is_empty() && machine.stopped().is_empty());
}
