//! `remove_device` and tickets: every row of the contract's table that this stage has, and R4, R9.

use std::time::{Duration, Instant};

use pcidevs::{
    AccessError, AddRefused, Busy, Holder, Owner, RemoveError, TicketError, Transition, WouldDeadlock,
};

use crate::{DISK, GUEST, Machine, NIC, at};

fn busy(machine: &Machine) -> Busy {
    match machine.registry.remove_device(NIC) {
        Err(RemoveError::Busy(busy)) => busy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn remove_of_what_is_not_there_creates_nothing() {
    let machine = Machine::with(&[]);
    for address in [NIC, at("0007:00:00.0"), at("ffffffff:ff:1f.7")] {
        assert_eq!(machine.registry.remove_device(address), Err(RemoveError::NotFound(address)));
        assert!(matches!(machine.registry.begin_removal(address), Err(RemoveError::NotFound(_))));
        assert!(machine.registry.report_gone(address).is_err());
    }
    assert_eq!(machine.registry.devices().count(), 0);
}

#[test]
fn r9_ok_means_the_destructor_has_run_and_the_address_is_free() {
    let machine = Machine::with(&[NIC]);
    machine.registry.remove_device(NIC).unwrap();
    assert_eq!(machine.destroyed(), 1);
    assert_eq!(machine.registry.lock(NIC).err(), Some(AccessError::NotFound));
    assert_eq!(machine.lists(NIC), []);
    machine.registry.add(NIC, machine.device(5)).unwrap();
    assert_eq!(machine.registry.lock(NIC).unwrap().register, 5);
}

#[test]
fn busy_changes_nothing_however_often_it_is_asked() {
    let machine = Machine::with(&[NIC]);
    let user = machine.registry.get(NIC).unwrap();
    let first = busy(&machine);
    for _ in 0..100 {
        assert_eq!(busy(&machine), first);
    }
    assert!(machine.registry.get(NIC).is_some(), "fully usable");
    assert_eq!(machine.lists(NIC), [Owner::Host]);
    drop(user);
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn remove_from_host_and_from_quarantine_is_ok() {
    let machine = Machine::with(&[NIC, DISK]);
    machine.registry.move_devices(&[DISK.into()], Owner::Quarantine).unwrap();
    machine.registry.remove_device(NIC).unwrap();
    machine.registry.remove_device(DISK).unwrap();
    assert_eq!(machine.destroyed(), 2);
}

#[test]
fn remove_of_an_assigned_device_is_busy_with_its_domain() {
    let machine = Machine::with(&[NIC]);
    machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(GUEST)).unwrap();
    let busy = busy(&machine);
    assert_eq!((busy.uses, busy.holders), (1, vec![Holder::Domain(GUEST)]));
}

#[test]
fn remove_of_a_hidden_device_is_denied() {
    let machine = Machine::with(&[NIC]);
    machine.registry.move_devices(&[NIC.into()], Owner::Hidden).unwrap();
    assert_eq!(machine.registry.remove_device(NIC), Err(RemoveError::Denied));
    assert!(matches!(machine.registry.begin_removal(NIC), Err(RemoveError::Denied)));
    assert_eq!(machine.lists(NIC), [Owner::Hidden]);
}

#[test]
fn remove_by_the_holder_of_the_lock_would_deadlock_and_says_so() {
    let machine = Machine::with(&[NIC]);
    let inside = machine.registry.lock(NIC).unwrap();
    assert_eq!(machine.registry.remove_device(NIC), Err(RemoveError::WouldDeadlock(WouldDeadlock)));
    assert_eq!(machine.registry.report_gone(NIC), Err(pcidevs::GoneError::WouldDeadlock(WouldDeadlock)));
    assert!(matches!(machine.registry.lock(NIC), Err(AccessError::WouldDeadlock(_))));
    drop(inside);
    let handle = machine.registry.get(NIC).unwrap();
    assert_eq!(busy(&machine).uses, 1, "holding a handle is Busy, not a deadlock");
    drop(handle);
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn a_second_ticket_and_a_remove_during_one_are_busy_with_the_removal() {
    let machine = Machine::with(&[NIC]);
    let ticket = machine.registry.begin_removal(NIC).unwrap();
    let removal = [Holder::Transition(Transition::Remove)];
    assert!(
        matches!(machine.registry.begin_removal(NIC), Err(RemoveError::Busy(busy)) if busy.holders == removal)
    );
    assert_eq!(busy(&machine).holders, removal);
    let refused = machine.registry.add(NIC, machine.device(9)).unwrap_err();
    assert!(matches!(&refused.reason, AddRefused::Busy(busy) if busy.holders == removal));
    assert_eq!(refused.data.register, 9, "what could not be added comes back");
    ticket.cancel().unwrap();
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn r4_the_thread_in_wait_does_the_teardown_when_the_last_use_is_put() {
    let machine = Machine::with(&[NIC]);
    let user = machine.registry.get(NIC).unwrap();
    let mut ticket = machine.registry.begin_removal(NIC).unwrap();
    assert_eq!(ticket.wait(Some(Instant::now())), Err(TicketError::TimedOut));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(user);
        });
        ticket.wait(None).unwrap();
    });
    assert_eq!(machine.destroyed(), 1);
    assert_eq!(ticket.wait(None), Err(TicketError::Over));
}

#[test]
fn locked_access_goes_on_while_a_removal_is_pending() {
    let machine = Machine::with(&[NIC]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(GUEST)).unwrap();
    let mut ticket = machine.registry.begin_removal(NIC).unwrap();
    let access = guest.lock(at("00:00.0")).unwrap();
    assert!(access.is_removing());
    let effect = access.keep(Holder::Named("effect")).unwrap();
    assert!(matches!(ticket.try_complete(), Err(TicketError::WouldDeadlock(_))), "this thread is inside");
    drop(access);
    assert!(!ticket.try_complete().unwrap());
    machine.registry.move_devices(&[NIC.into()], Owner::Host).unwrap();
    assert_eq!(machine.lists(NIC), [Owner::Quarantine], "to quarantine, never to a host driver");
    assert!(!ticket.try_complete().unwrap(), "the effect is a use");
    drop(effect);
    assert!(ticket.try_complete().unwrap());
    assert_eq!(machine.destroyed(), 1);
}

#[test]
fn dropping_a_ticket_gives_the_device_back_as_it_was() {
    let machine = Machine::with(&[NIC]);
    let user = machine.registry.get(NIC).unwrap();
    drop(machine.registry.begin_removal(NIC).unwrap());
    let status = machine.registry.status(NIC).unwrap();
    assert_eq!((status.uses, status.phase), (1, pcidevs::Phase::Live));
    assert!(machine.registry.get(NIC).is_some());
    drop(user);
}

#[test]
fn a_destructor_that_panics_leaves_the_slot_closed_and_consistent() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("in the destructor");
        }
    }
    let registry = pcidevs::Registry::<Grenade>::new().unwrap();
    for _ in 0..2 {
        registry.add(NIC, Grenade).unwrap();
        let removal = std::panic::AssertUnwindSafe(|| registry.remove_device(NIC));
        assert!(std::panic::catch_unwind(removal).is_err());
        assert!(registry.get(NIC).is_none());
        assert_eq!(registry.devices().count(), 0);
    }
}

#[test]
fn a_panic_under_the_device_lock_does_not_keep_it() {
    let machine = Machine::with(&[NIC]);
    let inside = std::panic::AssertUnwindSafe(|| {
        let _device = machine.registry.lock(NIC).unwrap();
        panic!("in a handler");
    });
    assert!(std::panic::catch_unwind(inside).is_err());
    assert!(machine.registry.lock(NIC).is_ok());
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn a_removed_and_re_added_address_is_not_used_up() {
    let machine = Machine::with(&[]);
    for register in 0..10_000 {
        machine.registry.add(NIC, machine.device(register)).unwrap();
        machine.registry.remove_device(NIC).unwrap();
    }
    assert_eq!(machine.destroyed(), 10_000);
}
