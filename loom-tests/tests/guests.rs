//! Guests and tickets beside moves: destroying and re-creating, acknowledging twice, a removal that begins
//! during a move, callbacks that come late (L13, L17, L18, R2).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::{Holder, Member, Owner, RemoveError};
use pcidevs_loom::machine::{machine, settled};
use pcidevs_loom::{Destroyed, GUEST, ONE, explore, one_device};

#[test]
fn l12_destroy_and_destroy_and_create_of_one_guest() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        registry.create_domain(GUEST).expect("created");
        let other = {
            let registry = registry.clone();
            thread::spawn(move || registry.destroy_domain(GUEST).is_ok())
        };
        let mut created = false;
        if registry.destroy_domain(GUEST).is_ok() {
            created = registry.create_domain(GUEST).is_ok()
                && registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST)).is_ok();
        }
        let _either = other.join().unwrap();
        if created {
            assert!(registry.domain(GUEST).is_some(), "a guest with a device was forgotten");
        }
    });
}

#[test]
fn l18_acknowledge_twice_and_a_new_device() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let guest = registry.create_domain(GUEST).expect("created");
        registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST)).expect("assigned");
        registry.report_gone(ONE).expect("known");
        let other = {
            let guest = guest.clone();
            thread::spawn(move || guest.acknowledge_gone(ONE).is_ok())
        };
        if guest.acknowledge_gone(ONE) == Ok(true) {
            registry.add(ONE, destroyed.device(2)).expect("free");
            let moved = registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST));
            other.join().unwrap();
            assert_eq!(moved.is_ok(), guest.lock(ONE).is_ok(), "assigned, so reachable");
        } else {
            other.join().unwrap();
        }
    });
}

#[test]
fn l17_a_device_in_removal_comes_to_no_guest() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let guest = registry.create_domain(GUEST).expect("created");
        let mover = {
            let registry = registry.clone();
            thread::spawn(move || drop(registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST))))
        };
        let ticket = registry.begin_removal(ONE);
        let before = guest.lock(ONE).is_ok();
        mover.join().unwrap();
        let after = guest.lock(ONE).is_ok();
        match &ticket {
            Ok(_) => assert_eq!(before, after, "assigned while its removal was pending"),
            Err(RemoveError::Busy(_)) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn l13_a_second_ticket_does_not_lose_the_firsts_waker() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let user = registry.get(ONE).expect("live");
        let ticket = registry.begin_removal(ONE).expect("begun");
        let putter = {
            let registry = registry.clone();
            thread::spawn(move || {
                drop(registry.begin_removal(ONE).err().expect("busy"));
                drop(user);
            })
        };
        loom::future::block_on(ticket).expect("removed");
        putter.join().unwrap();
    });
}

#[test]
fn l17_begin_removal_and_hide() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let hider = {
            let machine = machine.clone();
            thread::spawn(move || machine.hide(ONE, Visibility::None).is_ok())
        };
        let user = {
            let machine = machine.clone();
            thread::spawn(move || drop(machine.get(ONE)))
        };
        let ticket = machine.begin_removal(ONE);
        let hidden = hider.join().unwrap();
        user.join().unwrap();
        assert!(!(hidden && ticket.is_ok()), "hidden, and on its way out");
        match ticket {
            Ok(mut ticket) => assert!(ticket.try_complete().expect("not hidden")),
            Err(TransitionError::Busy(..)) => {}
            Err(TransitionError::Hidden(ONE)) => assert!(hidden),
            Err(error) => panic!("{error}"),
        }
        settled(&machine);
    });
}

#[test]
fn l17_begin_removal_and_deassign_to_the_host() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.assign(&[Member::at(ONE, ONE)], GUEST).expect("assigned");
        let administrator = {
            let machine = machine.clone();
            thread::spawn(move || machine.deassign(&[ONE.into()], Owner::Guest(GUEST)))
        };
        let lister = {
            let machine = machine.clone();
            thread::spawn(move || {
                let listed = |owner| machine.devices_of(owner).expect("memory").expect("exists").len();
                assert!(listed(Owner::Guest(GUEST)) <= 1 && listed(Owner::Quarantine) <= 1);
            })
        };
        let ticket = machine.begin_removal(ONE);
        let owner = || machine.lock(ONE).map(|device| device.owner()).expect("known");
        let before = owner();
        administrator.join().unwrap().expect("a removal is in nobody's way");
        lister.join().unwrap();
        match (&ticket, before) {
            (Ok(_), Owner::Guest(GUEST)) => assert_eq!(owner(), Owner::Quarantine, "to no host driver"),
            (Ok(_), _) => assert_eq!(owner(), before),
            (Err(TransitionError::Busy(..)), _) => assert_eq!(owner(), Owner::Host),
            (Err(error), _) => panic!("{error}"),
        }
        drop(ticket);
        settled(&machine);
    });
}

#[test]
fn l8_an_access_of_the_last_guest_of_a_number_reaches_nothing_of_the_next_ones() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.assign(&[Member::at(ONE, ONE)], GUEST).expect("assigned");
        let late = {
            let guest = machine.domain(GUEST).expect("exists");
            thread::spawn(move || guest.lock(ONE).map(|device| device.register).ok())
        };
        machine.release_domain(GUEST).expect("released");
        machine.create_domain(GUEST).expect("the number is free");
        machine.lock(ONE).expect("with the host").register = 2;
        machine.assign(&[Member::at(ONE, ONE)], GUEST).expect("assigned");
        assert!([None, Some(1)].contains(&late.join().unwrap()), "the next guest's");
        settled(&machine);
    });
}

/// The registrant against the reporter: told once, whoever comes first.
#[test]
fn l18_on_gone_is_left_while_the_device_goes() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let hold = registry.hold(ONE, Holder::Named("backend")).expect("memory").expect("live");
        let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let holder = {
            let told = told.clone();
            thread::spawn(move || {
                hold.on_gone(Arc::new(move |_, _| {
                    told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }));
                hold
            })
        };
        registry.report_gone(ONE).expect("known");
        let hold = holder.join().unwrap();
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(hold);
        assert_eq!(destroyed.count(), 1);
    });
}
