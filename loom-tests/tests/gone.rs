//! Surprise removal against handles, accesses and a new device at the address (L14, L18).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::{Member, MoveError, Owner};
use pcidevs_loom::{Destroyed, GUEST, ONE, TWO, explore, one_device};

#[test]
fn l14_report_gone_and_re_add_and_put_of_the_old_handle() {
    explore(Some(3), || {
        let (old, new) = (Destroyed::none(), Destroyed::none());
        let registry = Arc::new(one_device(&old));
        let handle = registry.get(ONE).expect("live");
        let weak = handle.downgrade();
        let holder = thread::spawn(move || {
            if let Ok(device) = handle.lock() {
                assert_eq!(device.register, 1);
            }
            drop(handle);
        });
        let observer = thread::spawn(move || {
            if let Some(device) = weak.upgrade() {
                if let Ok(device) = device.lock() {
                    assert_eq!(device.register, 1, "the device that was meant");
                }
            }
        });
        registry.report_gone(ONE).expect("known");
        registry.add(ONE, new.device(2)).expect("another slot");
        assert_eq!(registry.lock(ONE).expect("there").register, 2);
        holder.join().unwrap();
        observer.join().unwrap();
        assert_eq!((old.count(), new.count()), (1, 0));
        registry.remove_device(ONE).expect("the old handle is not a use of the new device");
        assert_eq!(new.count(), 1);
    });
}

#[test]
fn l14_weak_upgrade_and_remove_and_re_add() {
    explore(None, || {
        let (old, new) = (Destroyed::none(), Destroyed::none());
        let registry = Arc::new(one_device(&old));
        let weak = registry.get(ONE).expect("live").downgrade();
        let observer = thread::spawn(move || match weak.upgrade() {
            Some(device) => {
                assert_eq!(device.lock().expect("held").register, 1, "the device that was meant");
            }
            None => {}
        });
        if registry.remove_device(ONE).is_ok() {
            registry.add(ONE, new.device(2)).expect("the same slot");
        }
        observer.join().unwrap();
    });
}

#[test]
fn l14_late_getter_while_the_last_handle_goes() {
    // A get that read the word before the device was gone, the last put, and the memory going right after:
    // the interleaving that made the additive get unsound (docs/decisions).
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let handle = registry.get(ONE).expect("live");
        let holder = thread::spawn(move || drop(handle));
        let getter = {
            let registry = registry.clone();
            thread::spawn(move || drop(registry.get(ONE)))
        };
        registry.report_gone(ONE).expect("known");
        getter.join().unwrap();
        drop(registry);
        holder.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l18_report_gone_and_locked_access_and_a_move() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        registry.add(TWO, destroyed.device(2)).expect("added");
        let guest = registry.create_domain(GUEST).expect("created");
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                if let Ok(mut device) = registry.lock(ONE) {
                    device.register += 1;
                    assert_eq!(device.register, 2, "not destroyed while an access is inside");
                }
            })
        };
        let mover = {
            let registry = registry.clone();
            thread::spawn(move || {
                let set = [Member::at(ONE, ONE), Member::at(TWO, TWO)];
                registry.move_devices(&set, Owner::Guest(GUEST))
            })
        };
        registry.report_gone(ONE).expect("known");
        match mover.join().unwrap() {
            Ok(()) => assert!(guest.lock(TWO).is_ok()),
            Err(MoveError::Gone(ONE) | MoveError::NotFound(ONE)) => assert!(guest.lock(TWO).is_err()),
            Err(error) => panic!("{error}"),
        }
        assert!(guest.lock(ONE).is_err() && registry.lock(ONE).is_err());
        reader.join().unwrap();
        assert_eq!(destroyed.count(), 1, "freed at its last put");
        let listed: usize = [Owner::Host, Owner::Guest(GUEST)]
            .map(|owner| registry.devices_of(owner).expect("memory").expect("exists").len())
            .iter()
            .sum();
        assert_eq!(listed, 1, "the device that is left is on one list, the gone one on none");
    });
}
