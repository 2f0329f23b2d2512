//! get, put, remove and add against each other (L1, L4, L5, L15 and the lookups of a stale slot).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::{Registry, RemoveError};
use pcidevs_loom::{Destroyed, ONE, TWO, explore, one_device};

#[test]
fn l1_read_of_one_device_while_its_neighbour_comes_and_goes() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let neighbour = {
            let (registry, destroyed) = (registry.clone(), destroyed.clone());
            thread::spawn(move || {
                registry.add(TWO, destroyed.device(2)).expect("added");
                registry.remove_device(TWO).expect("removed");
            })
        };
        assert_eq!(registry.lock(ONE).expect("untouched").register, 1);
        if let Ok(device) = registry.lock(TWO) {
            assert_eq!(device.register, 2);
        }
        neighbour.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l4_last_put_and_get() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let last = registry.get(ONE).expect("live");
        let remover = {
            let registry = registry.clone();
            thread::spawn(move || {
                drop(last);
                registry.remove_device(ONE)
            })
        };
        let other = registry.get(ONE);
        if let Some(device) = &other {
            assert_eq!(device.lock().expect("used").register, 1);
        }
        let removed = remover.join().unwrap();
        match &removed {
            Ok(()) => assert!(other.is_none() && destroyed.count() == 1),
            Err(RemoveError::Busy(busy)) => {
                assert!(other.is_some());
                assert_eq!((busy.uses, busy.unnamed, destroyed.count()), (1, 1, 0));
            }
            Err(error) => panic!("{error}"),
        }
        drop(other);
        if removed.is_err() {
            registry.remove_device(ONE).expect("no use is left");
        }
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l5_remove_and_remove() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let other = {
            let registry = registry.clone();
            thread::spawn(move || registry.remove_device(ONE))
        };
        let results = [registry.remove_device(ONE), other.join().unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l5_remove_and_re_add_under_a_reader() {
    explore(Some(4), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let remover = {
            let (registry, destroyed) = (registry.clone(), destroyed.clone());
            thread::spawn(move || {
                if registry.remove_device(ONE).is_ok() {
                    registry.add(ONE, destroyed.device(2)).expect("the address is free");
                }
            })
        };
        if let Some(device) = registry.get(ONE) {
            assert!([1, 2].contains(&device.lock().expect("held").register));
        }
        if let Ok(device) = registry.lock(ONE) {
            assert!([1, 2].contains(&device.register));
        }
        remover.join().unwrap();
        registry.remove_device(ONE).expect("unused");
    });
}

#[test]
fn l15_a_handle_outlives_the_registry() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry: Registry<_> = one_device(&destroyed);
        let handle = registry.get(ONE).expect("live");
        let weak = handle.downgrade();
        let holder = thread::spawn(move || {
            let gone = handle.lock().is_err();
            drop(handle);
            gone
        });
        let observer = thread::spawn(move || drop(weak.upgrade()));
        drop(registry);
        holder.join().unwrap();
        observer.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}
