//! Moving sets: publication, removal of a device on its way, overlapping sets (L7, L16, L20).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::{Holder, Member, MoveError, Owner, Registry, RemoveError, Transition};
use pcidevs_loom::{Destroyed, Device, GUEST, ONE, TWO, explore, one_device};

fn two_devices(destroyed: &Destroyed) -> Arc<Registry<Device>> {
    let registry = one_device(destroyed);
    registry.add(TWO, destroyed.device(2)).expect("added");
    registry.create_domain(GUEST).expect("created");
    Arc::new(registry)
}

const SET: [Member; 2] = [Member::at(ONE, ONE), Member::at(TWO, TWO)];

#[test]
fn l7_assign_and_remove() {
    explore(Some(4), || {
        let destroyed = Destroyed::none();
        let registry = Arc::new(one_device(&destroyed));
        let guest = registry.create_domain(GUEST).expect("created");
        let remover = {
            let registry = registry.clone();
            thread::spawn(move || registry.remove_device(ONE))
        };
        let vcpu = {
            let guest = guest.clone();
            thread::spawn(move || {
                if let Ok(device) = guest.lock(ONE) {
                    assert_eq!(device.register, 1, "owned, so not removed");
                }
            })
        };
        let assigned = registry.move_devices(&[Member::at(ONE, ONE)], Owner::Guest(GUEST));
        let removed = remover.join().unwrap();
        vcpu.join().unwrap();
        assert_ne!(assigned.is_ok(), removed.is_ok(), "{assigned:?} {removed:?}");
        assert_eq!(guest.lock(ONE).is_ok(), assigned.is_ok());
        assert_eq!(guest.devices().expect("memory").len(), usize::from(assigned.is_ok()));
        assert_eq!(destroyed.count(), usize::from(removed.is_ok()));
        match removed {
            Ok(()) | Err(RemoveError::NotFound(_)) => {}
            Err(RemoveError::Busy(busy)) => assert!(
                busy.unnamed > 0
                    || busy.holders.iter().all(|holder| matches!(
                        holder,
                        Holder::Domain(GUEST) | Holder::Transition(Transition::Assign)
                    )),
                "{busy}"
            ),
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn l16_publication_of_a_set_and_iteration_and_guest_access() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = two_devices(&destroyed);
        let lister = {
            let guest = registry.domain(GUEST).expect("exists");
            thread::spawn(move || {
                let listed = guest.devices().expect("memory").len();
                assert!(listed == 0 || listed == 2, "{listed} of 2 are listed");
                if listed == 2 {
                    assert!(guest.lock(ONE).is_ok() && guest.lock(TWO).is_ok(), "listed, so reachable");
                }
            })
        };
        let vcpu = {
            let guest = registry.domain(GUEST).expect("exists");
            thread::spawn(move || {
                if guest.lock(TWO).is_ok() {
                    assert!(guest.lock(ONE).is_ok(), "who reached one reaches all");
                    assert_eq!(guest.devices().expect("memory").len(), 2);
                }
            })
        };
        registry.move_devices(&SET, Owner::Guest(GUEST)).expect("assigned");
        lister.join().unwrap();
        vcpu.join().unwrap();
    });
}

#[test]
fn l8_access_by_the_old_owner_and_deassign() {
    explore(Some(4), || {
        let destroyed = Destroyed::none();
        let registry = two_devices(&destroyed);
        registry.move_devices(&SET, Owner::Guest(GUEST)).expect("assigned");
        let guest = registry.domain(GUEST).expect("exists");
        let other = {
            let guest = guest.clone();
            thread::spawn(move || drop(guest.lock(ONE)))
        };
        let vcpu = thread::spawn(move || {
            if let Ok(device) = guest.lock(ONE) {
                assert_eq!(device.register, 1);
            }
            guest
        });
        registry.move_devices(&[ONE.into()], Owner::Host).expect("deassigned");
        let guest = vcpu.join().unwrap();
        other.join().unwrap();
        assert!(guest.lock(ONE).is_err(), "no longer the guest's");
        assert!(guest.lock(TWO).is_ok());
    });
}

#[test]
fn l20_overlapping_sets() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let registry = two_devices(&destroyed);
        let other = {
            let registry = registry.clone();
            thread::spawn(move || registry.move_devices(&[TWO.into(), ONE.into()], Owner::Quarantine))
        };
        let lister = {
            let guest = registry.domain(GUEST).expect("exists");
            thread::spawn(move || assert_ne!(guest.devices().expect("memory").len(), 1))
        };
        let mine = registry.move_devices(&SET, Owner::Guest(GUEST));
        let others = other.join().unwrap();
        lister.join().unwrap();
        assert!(mine.is_ok() || others.is_ok(), "one winner at least: {mine:?} {others:?}");
        for lost in [mine, others].into_iter().filter_map(Result::err) {
            assert!(matches!(lost, MoveError::Busy(..)), "{lost}");
        }
        let mut lengths = [Owner::Host, Owner::Quarantine, Owner::Guest(GUEST)]
            .map(|owner| registry.devices_of(owner).expect("memory").expect("exists").len());
        lengths.sort_unstable();
        assert_eq!(lengths, [0, 0, 2], "both together, with one owner");
    });
}
