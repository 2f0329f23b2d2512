//! Removal that waits: tickets against gets, puts, cancelling and `report_gone` (L13, L17, L19, L22).
#![cfg(loom)]

use std::sync::Arc;

use loom::{future::block_on, thread};
use pcidevs::{Holder, Member, Owner, TicketError};
use pcidevs_loom::{Destroyed, GUEST, ONE, explore, one_device};

#[test]
fn l13_begin_removal_and_cancel_and_get() {
    explore(Some(5), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let getters = [(); 2].map(|()| {
            let registry = registry.clone();
            thread::spawn(move || drop(registry.get(ONE)))
        });
        let ticket = registry.begin_removal(ONE).expect("begun");
        assert!(registry.get(ONE).is_none(), "refused while it is pending");
        ticket.cancel().expect("nobody reported it gone");
        assert!(registry.get(ONE).is_some(), "and again afterwards");
        for getter in getters {
            getter.join().unwrap();
        }
        registry.remove_device(ONE).expect("unused");
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l13_a_ticket_completes_after_the_last_put() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let user = registry.get(ONE).expect("live");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let putter = thread::spawn(move || {
            let mut device = user.lock().expect("usable while the removal is pending");
            device.register += 1;
            drop(device);
            drop(user);
        });
        block_on(ticket).expect("removed");
        assert_eq!(destroyed.count(), 1);
        putter.join().unwrap();
    });
}

#[test]
fn l17_ticket_and_locked_access_that_holds_and_deassign() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let guest = registry.create_domain(GUEST).expect("created");
        registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST)).expect("assigned");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let vcpu = thread::spawn(move || {
            let effect =
                guest.lock(ONE).ok().map(|device| device.keep(Holder::Named("effect")).expect("memory"));
            drop(effect);
        });
        let administrator = {
            let registry = registry.clone();
            thread::spawn(move || {
                registry.move_devices(&[ONE.into()], Owner::Host).expect("deassigned");
                let quarantined = registry.devices_of(Owner::Quarantine).expect("memory").expect("exists");
                assert!(quarantined.len() <= 1);
                assert!(registry.devices_of(Owner::Host).expect("memory").expect("exists").is_empty());
            })
        };
        block_on(ticket).expect("removed after the last use");
        assert_eq!(destroyed.count(), 1);
        vcpu.join().unwrap();
        administrator.join().unwrap();
    });
}

#[test]
fn l19_report_gone_and_ticket_completing_and_cancel() {
    for cancel in [false, true] {
        explore(None, move || {
            let destroyed = Destroyed::none();
            let registry = Arc::new(one_device(&destroyed));
            let weak = registry.get(ONE).expect("live").downgrade();
            let mut ticket = registry.begin_removal(ONE).expect("begun");
            let reporter = {
                let registry = registry.clone();
                thread::spawn(move || registry.report_gone(ONE).is_ok())
            };
            let observer = thread::spawn(move || drop(weak.upgrade()));
            let ended =
                if cancel { ticket.cancel() } else { ticket.try_complete().map(|done| assert!(done)) };
            let gone = reporter.join().unwrap();
            observer.join().unwrap();
            match ended {
                Err(TicketError::Gone) => assert!(gone),
                Ok(()) if cancel => assert!(gone, "given back, then gone"),
                Ok(()) => assert!(!gone, "removed, so it cannot have gone"),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(destroyed.count(), 1);
        });
    }
}

#[test]
fn l22_put_that_wakes_a_ticket_and_registry_dropped() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = one_device(&destroyed);
        let user = registry.get(ONE).expect("live");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let putter = thread::spawn(move || drop(user));
        let waiter = thread::spawn(move || match block_on(ticket) {
            Ok(()) | Err(TicketError::Gone) => {}
            Err(error) => panic!("{error}"),
        });
        drop(registry);
        putter.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l15_a_ticket_that_completes_frees_everything_the_put_could_touch() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = one_device(&destroyed);
        let user = registry.get(ONE).expect("live");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let putter = thread::spawn(move || drop(user));
        block_on(ticket).expect("removed");
        drop(registry);
        assert_eq!(destroyed.count(), 1);
        putter.join().unwrap();
    });
}

#[test]
fn l15_a_ticket_completes_after_the_registry_was_dropped_while_a_handle_puts() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = one_device(&destroyed);
        let user = registry.get(ONE).expect("live");
        let mut ticket = registry.begin_removal(ONE).expect("begun");
        drop(registry);
        let putter = thread::spawn(move || {
            assert!(user.lock().is_err(), "reported gone with its registry");
            drop(user);
        });
        let ended = ticket.try_complete();
        assert!(matches!(ended, Err(TicketError::Gone)), "{ended:?}");
        assert!(ticket.busy().is_none());
        drop(ticket);
        putter.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l19_a_ticket_that_waits_is_woken_by_gone() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let user = registry.get(ONE).expect("live");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let reporter = {
            let registry = registry.clone();
            thread::spawn(move || registry.report_gone(ONE).expect("known"))
        };
        // The use stays: nothing but the report can wake the ticket.
        assert_eq!(block_on(ticket), Err(TicketError::Gone));
        reporter.join().unwrap();
        drop(user);
        assert_eq!(destroyed.count(), 1);
    });
}
