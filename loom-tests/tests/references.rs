//! get, put, remove and add against each other (L1, L4, L5, L15 and the lookups of a stale slot).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::modelled::Shared;
use pcidevs::{AddRefused, Holder, Registry, RemoveError};
use pcidevs_loom::{Destroyed, ONE, TWO, Unlocked, explore, one_device};

#[test]
fn l1_read_of_one_device_while_its_neighbour_comes_and_goes() {
    explore(Some(4), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let neighbour = {
            let (registry, destroyed) = (registry.clone(), destroyed.clone());
            thread::spawn(move || {
                registry.add(TWO, destroyed.device(2)).expect("added");
                registry.remove_device(TWO).expect("removed");
            })
        };
        let user = {
            let registry = registry.clone();
            thread::spawn(move || {
                let device = registry.get(ONE).expect("nobody removes it");
                assert_eq!(device.lock().expect("held").register, 1);
            })
        };
        assert_eq!(registry.lock(ONE).expect("untouched").register, 1);
        if let Ok(device) = registry.lock(TWO) {
            assert_eq!(device.register, 2);
        }
        neighbour.join().unwrap();
        user.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l4_last_put_and_get() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let last = registry.get(ONE).expect("live");
        let putter = thread::spawn(move || drop(last));
        let remover = {
            let registry = registry.clone();
            thread::spawn(move || registry.remove_device(ONE))
        };
        let other = registry.get(ONE);
        if let Some(device) = &other {
            assert_eq!(device.lock().expect("used").register, 1);
        }
        let removed = remover.join().unwrap();
        match &removed {
            Ok(()) => assert!(other.is_none() && destroyed.count() == 1),
            Err(RemoveError::Busy(busy)) => {
                assert!(other.is_some(), "busy, so it stays");
                assert!((1..=2).contains(&busy.uses) && busy.unnamed == busy.uses, "{busy}");
                assert_eq!(destroyed.count(), 0);
            }
            Err(error) => panic!("{error}"),
        }
        putter.join().unwrap();
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
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                if let Ok(device) = registry.lock(ONE) {
                    assert_eq!(device.register, 1);
                }
            })
        };
        let results = [registry.remove_device(ONE), other.join().unwrap()];
        reader.join().unwrap();
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
fn r7_a_slot_is_retired_before_its_generations_are_used_up() {
    // Under loom a slot has three generations: the fourth device of an address stands in another slot.
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = one_device(&destroyed);
        let first = registry.get(ONE).expect("live").downgrade();
        for register in 2..6 {
            registry.remove_device(ONE).expect("unused");
            registry.add(ONE, destroyed.device(register)).expect("the address is never used up");
            assert_eq!(registry.lock(ONE).expect("there").register, register);
            assert!(first.upgrade().is_none(), "not the device that was meant");
        }
        drop(registry);
        assert_eq!(destroyed.count(), 5);
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

#[test]
fn r2_what_was_done_under_a_reference_happens_before_ok() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let work = Arc::new(Unlocked::new(0));
        let device = registry.get(ONE).expect("live");
        let user = {
            let work = work.clone();
            thread::spawn(move || {
                work.set(1);
                drop(device);
            })
        };
        if registry.remove_device(ONE).is_ok() {
            assert_eq!(work.get(), 1);
        }
        user.join().unwrap();
    });
}

#[test]
fn r1_what_was_done_before_add_is_seen_by_who_gets() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        registry.remove_device(ONE).expect("unused");
        let work = Arc::new(Unlocked::new(0));
        let getter = {
            let (registry, work) = (registry.clone(), work.clone());
            thread::spawn(move || {
                if registry.get(ONE).is_some() {
                    assert_eq!(work.get(), 1);
                }
            })
        };
        work.set(1);
        registry.add(ONE, destroyed.device(2)).expect("the address is free");
        getter.join().unwrap();
    });
}

#[test]
fn l5_add_by_another_thread_while_the_device_is_torn_down() {
    explore(None, || {
        let (old, new) = (Destroyed::none(), Destroyed::none());
        let registry = Arc::new(one_device(&old));
        let adder = {
            let (registry, new) = (registry.clone(), new.clone());
            thread::spawn(move || match registry.add(ONE, new.device(2)).map_err(|error| error.reason) {
                Ok(()) => true,
                Err(AddRefused::Exists(ONE) | AddRefused::Busy(_)) => false,
                Err(error) => panic!("{error}"),
            })
        };
        registry
            .remove_device(ONE)
            .or_else(|error| match error {
                // The new device, already: then the old one was not removed by us, which cannot be.
                RemoveError::NotFound(_) => panic!("{error}"),
                error => Err(error),
            })
            .expect("unused");
        let added = adder.join().unwrap();
        assert_eq!(old.count(), 1);
        assert_eq!(registry.lock(ONE).map(|device| device.register).ok(), added.then_some(2));
    });
}

#[test]
fn r2_a_hold_is_dropped_while_its_device_is_removed() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let registry = one_device(&destroyed);
        let hold = registry.hold(ONE, Holder::Named("backend")).expect("memory").expect("live");
        let holder = thread::spawn(move || drop(hold));
        match registry.remove_device(ONE) {
            Ok(()) => assert_eq!(destroyed.count(), 1),
            Err(RemoveError::Busy(busy)) => {
                assert_eq!(busy.uses, 1);
                assert_eq!(busy.holders.len() + busy.unnamed as usize, 1, "named, or about to be put");
            }
            Err(error) => panic!("{error}"),
        }
        drop(registry);
        holder.join().unwrap();
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l15_the_last_share_of_memory_frees_after_every_other_use() {
    struct Freed(Unlocked);

    impl Drop for Freed {
        fn drop(&mut self) {
            self.0.set(u32::MAX);
        }
    }

    explore(None, || {
        let mine = Shared::try_new(Freed(Unlocked::new(1))).expect("memory");
        let other = mine.clone();
        let user = thread::spawn(move || assert_eq!(other.0.get(), 1));
        drop(mine);
        user.join().unwrap();
    });
}
