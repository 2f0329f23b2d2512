//! `report_gone`, and handles that outlive the registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::{AccessError, GoneError, Holder, Member, Owner, RemoveError, TicketError};

use crate::{DISK, GUEST, Machine, NIC, at};

#[test]
fn gone_leaves_every_list_at_once_and_is_freed_at_its_last_put() {
    let machine = Machine::with(&[NIC]);
    let handle = machine.registry.get(NIC).unwrap();
    let other = handle.clone();
    machine.registry.report_gone(NIC).unwrap();
    assert_eq!(machine.lists(NIC), []);
    assert!(machine.registry.get(NIC).is_none());
    assert_eq!(handle.lock().err(), Some(AccessError::NotFound));
    assert_eq!(machine.registry.report_gone(NIC), Err(GoneError::NotFound(NIC)));
    assert_eq!(machine.registry.remove_device(NIC), Err(RemoveError::NotFound(NIC)));
    drop(handle);
    assert_eq!(machine.destroyed(), 0);
    drop(other);
    assert_eq!(machine.destroyed(), 1);
}

#[test]
fn gone_without_users_is_freed_at_once() {
    let machine = Machine::with(&[NIC]);
    machine.registry.report_gone(NIC).unwrap();
    assert_eq!(machine.destroyed(), 1);
}

#[test]
fn a_new_device_comes_while_the_old_one_is_still_held() {
    let machine = Machine::with(&[NIC]);
    let old: Vec<_> = (1..4)
        .map(|register| {
            let handle = machine.registry.get(NIC).unwrap();
            machine.registry.report_gone(NIC).unwrap();
            machine.registry.add(NIC, machine.device(register)).unwrap();
            handle
        })
        .collect();
    assert_eq!(machine.registry.lock(NIC).unwrap().register, 3);
    assert!(old.iter().all(|handle| handle.lock().is_err()), "handles of the old never reach the new");
    machine.registry.remove_device(NIC).unwrap();
    assert_eq!(machine.destroyed(), 1);
    drop(old);
    assert_eq!(machine.destroyed(), 4);
}

#[test]
fn holders_are_told_through_their_callback_once() {
    let machine = Machine::with(&[NIC]);
    let told = Arc::new(AtomicUsize::new(0));
    let hold = |name| {
        let hold = machine.registry.hold(NIC, Holder::Named(name)).unwrap().unwrap();
        let told = Arc::clone(&told);
        hold.on_gone(Arc::new(move |address, holder| {
            assert_eq!((address, holder), (NIC, Holder::Named(name)));
            told.fetch_add(1, Ordering::SeqCst);
        }));
        hold
    };
    let (first, second, third) = (hold("first"), hold("second"), hold("third"));
    drop(second);
    machine.registry.report_gone(NIC).unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 2);
    drop((first, third));
    assert_eq!(machine.destroyed(), 1);
}

#[test]
fn the_guests_slot_stays_taken_until_it_acknowledges() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(GUEST)).unwrap();
    let slot = at("00:00.0");
    assert!(!guest.acknowledge_gone(slot).unwrap(), "it is not gone");
    machine.registry.report_gone(NIC).unwrap();
    assert_eq!(guest.lock(slot).err(), Some(AccessError::NotFound), "reads ones");
    assert!(guest.devices().unwrap().is_empty());
    machine.registry.add(NIC, machine.device(9)).unwrap();
    assert!(guest.lock(slot).is_err(), "the new device is not the guest's");
    machine.registry.move_devices(&[DISK.into()], Owner::Guest(GUEST)).unwrap();
    assert!(guest.lock(slot).is_err() && guest.lock(at("00:01.0")).is_ok(), "the slot was taken");
    assert!(guest.acknowledge_gone(slot).unwrap());
    assert!(!guest.acknowledge_gone(slot).unwrap(), "once");
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(GUEST)).unwrap();
    assert_eq!(guest.lock(slot).unwrap().register, 9);
}

#[test]
fn a_ticket_of_a_device_that_goes_resolves_gone() {
    let machine = Machine::with(&[NIC, DISK]);
    let mut waiting = machine.registry.begin_removal(NIC).unwrap();
    let cancelled = machine.registry.begin_removal(DISK).unwrap();
    machine.registry.report_gone(NIC).unwrap();
    machine.registry.report_gone(DISK).unwrap();
    assert_eq!(waiting.try_complete(), Err(TicketError::Gone));
    assert_eq!(cancelled.cancel(), Err(TicketError::Gone));
    machine.registry.add(NIC, machine.device(1)).unwrap();
    drop(waiting);
    assert!(machine.registry.get(NIC).is_some(), "an old ticket does not touch the new device");
}

#[test]
fn l15_handles_outlive_the_registry() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[DISK.into()], Owner::Guest(GUEST)).unwrap();
    let handle = machine.registry.get(NIC).unwrap();
    let weak = handle.downgrade();
    let ticket = machine.registry.begin_removal(NIC).unwrap();
    let Machine { registry, destroyed } = machine;
    drop(registry);
    assert_eq!(destroyed.load(Ordering::SeqCst), 1, "the assigned device had no other user");
    assert!(guest.lock(at("00:00.0")).is_err());
    assert!(weak.upgrade().is_none() && handle.lock().is_err());
    assert_eq!(ticket.cancel(), Err(TicketError::Gone));
    drop(handle);
    assert_eq!(destroyed.load(Ordering::SeqCst), 2);
    assert_eq!(weak.address(), NIC);
}

#[test]
fn a_reset_of_the_guest_frees_the_slots_of_all_it_lost() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    let slots = [at("00:03.0"), at("10000:07:1f.7")];
    let set = [Member::at(NIC, slots[0]), Member::at(DISK, slots[1])];
    machine.registry.move_devices(&set, Owner::Guest(GUEST)).unwrap();
    assert_eq!(guest.acknowledge_reset(), Ok(0), "nothing is gone");
    machine.registry.report_gone(NIC).unwrap();
    machine.registry.report_gone(DISK).unwrap();
    assert_eq!(guest.acknowledge_reset(), Ok(2));
    assert_eq!(guest.acknowledge_reset(), Ok(0), "once");
}
