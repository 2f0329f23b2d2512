//! Published registers against everything that ends an audience: removal, surprise removal, a move, the next device.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use pcidevs::{Member, Owner, Registry};
use pcidevs_loom::{Destroyed, Device, GUEST, ONE, OTHER, TWO, explore, one_device};

const PUBLIC: u32 = 1;
/// What only the next audience may read.
const SECRET: u32 = 2;

fn publish(registry: &Registry<Device>, registers: &[u32]) {
    registry.lock(ONE).expect("there").publish(registers).expect("memory");
}

/// The device publishes [`PUBLIC`].
fn publishing(destroyed: &Destroyed) -> Arc<Registry<Device>> {
    let registry = Arc::new(one_device(destroyed));
    publish(&registry, &[PUBLIC]);
    registry
}

#[test]
fn r3_once_the_device_is_closed_nobody_reads_it() {
    explore(None, || {
        let registry = publishing(&Destroyed::none());
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                let was_closed = registry.lock(ONE).is_err();
                let read = registry.read_published(ONE, 0);
                assert!(read.is_none() || read == Some(PUBLIC) && !was_closed, "{read:?}, {was_closed}");
            })
        };
        registry.remove_device(ONE).expect("unused: a read is no use");
        assert_eq!(registry.read_published(ONE, 0), None);
        reader.join().unwrap();
    });
}

#[test]
fn r3_the_next_device_at_the_address_is_not_taken_for_the_last() {
    explore(Some(4), || {
        let destroyed = Destroyed::none();
        let registry = publishing(&destroyed);
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                let first = registry.read_published(ONE, 0);
                let second = registry.read_published(ONE, 0);
                assert!(first != Some(SECRET) || second != Some(PUBLIC), "back to the last device");
            })
        };
        registry.remove_device(ONE).expect("unused");
        registry.add(ONE, destroyed.device(2)).expect("the same slot");
        publish(&registry, &[SECRET]);
        reader.join().unwrap();
    });
}

#[test]
fn l18_after_report_gone_has_returned_nobody_reads_it() {
    explore(None, || {
        let registry = publishing(&Destroyed::none());
        let over = Arc::new(AtomicBool::new(false));
        let held = registry.get(ONE).expect("live");
        let reader = {
            let (registry, over) = (registry.clone(), over.clone());
            thread::spawn(move || {
                let was_over = over.load(Ordering::Acquire);
                let read = registry.read_published(ONE, 0);
                assert!(read.is_none() || read == Some(PUBLIC) && !was_over, "{read:?}, {was_over}");
            })
        };
        registry.report_gone(ONE).expect("known");
        over.store(true, Ordering::Release);
        reader.join().unwrap();
        drop(held);
    });
}

#[test]
fn l8_the_old_owner_reads_nothing_that_is_for_the_new_one() {
    explore(Some(3), || {
        let registry = publishing(&Destroyed::none());
        let guest = registry.create_domain(GUEST).expect("created");
        registry.move_devices(&[Member::at(ONE, TWO)], Owner::Guest(GUEST)).expect("free");
        let reader = thread::spawn(move || {
            let read = guest.read_published(TWO, 0);
            assert!(read.is_none() || read == Some(PUBLIC), "{read:?}");
        });
        registry.move_devices(&[ONE.into()], Owner::Host).expect("free");
        assert!(registry.lock(ONE).expect("there").set_published(0, SECRET));
        reader.join().unwrap();
    });
}

#[test]
fn l8_the_new_owner_reads_nothing_that_was_for_the_old_one() {
    explore(Some(3), || {
        let registry = Arc::new(one_device(&Destroyed::none()));
        let guest = registry.create_domain(GUEST).expect("created");
        publish(&registry, &[SECRET]);
        let reader = thread::spawn(move || {
            let read = guest.read_published(TWO, 0);
            assert!(read.is_none() || read == Some(PUBLIC), "{read:?}");
        });
        assert!(registry.lock(ONE).expect("there").set_published(0, PUBLIC));
        registry.move_devices(&[Member::at(ONE, TWO)], Owner::Guest(GUEST)).expect("free");
        reader.join().unwrap();
    });
}

#[test]
fn l16_once_the_new_owner_has_it_the_old_one_reads_nothing() {
    explore(Some(3), || {
        let registry = publishing(&Destroyed::none());
        let [old, new] = [GUEST, OTHER].map(|id| registry.create_domain(id).expect("created"));
        registry.move_devices(&[Member::at(ONE, TWO)], Owner::Guest(GUEST)).expect("free");
        let reader = thread::spawn(move || {
            if new.lock(TWO).is_ok() {
                assert_eq!(old.read_published(TWO, 0), None);
            }
        });
        registry.move_devices(&[Member::at(ONE, TWO)], Owner::Guest(OTHER)).expect("free");
        reader.join().unwrap();
    });
}

#[test]
fn r6_who_sees_one_register_change_sees_those_before() {
    explore(None, || {
        let registry = Arc::new(one_device(&Destroyed::none()));
        publish(&registry, &[0, 0]);
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                let second = registry.read_published(ONE, 1);
                let first = registry.read_published(ONE, 0);
                assert!(second == Some(0) || first == Some(1), "{first:?}, {second:?}");
            })
        };
        let mut device = registry.lock(ONE).expect("there");
        assert!(device.set_published(0, 1) && device.set_published(1, 1));
        drop(device);
        reader.join().unwrap();
    });
}

#[test]
fn r12_a_board_that_grows_is_read_as_it_was_or_as_it_is() {
    explore(None, || {
        let registry = Arc::new(one_device(&Destroyed::none()));
        let reader = {
            let registry = registry.clone();
            thread::spawn(move || {
                let reads = [0, 1].map(|register| registry.read_published(ONE, register));
                assert!([None, Some(1), Some(2)].contains(&reads[0]), "{reads:?}");
                assert!([None, Some(3)].contains(&reads[1]), "{reads:?}");
            })
        };
        publish(&registry, &[1]);
        publish(&registry, &[2, 3]);
        reader.join().unwrap();
    });
}
