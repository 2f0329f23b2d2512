//! Vectors that a guest sets up, and the table that the host maps, against the end of either (L10).
#![cfg(loom)]

use loom::thread;
use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::AttachmentKind;
use pcidevs::{Errno, Member, Owner};
use pcidevs_loom::machine::{Live, Machine, machine, owner, settled};
use pcidevs_loom::{Destroyed, GUEST, ONE, explore};

/// The owner sets up a vector: attached, or not at all.
fn set_up(machine: &Machine, vectors: &Live, expected: Owner) -> bool {
    let Ok(mut device) = machine.lock(ONE) else { return false };
    if device.owner() != expected {
        return false;
    }
    let vector = vectors.attachment(AttachmentKind::MsiVector);
    match device.attach(vector) {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused.reason.errno(), Errno::EBUSY, "{}", refused.reason);
            vectors.give_back();
            false
        }
    }
}

fn prepare(machine: &Machine) -> bool {
    match machine.msi_prepare(ONE) {
        Ok(()) => true,
        Err(TransitionError::NotFound(ONE)) => false,
        Err(error) => {
            assert_eq!(error.errno(), Errno::EBUSY, "{error}");
            false
        }
    }
}

#[test]
fn l10_msi_set_up_and_msi_prepare_and_removes_clean_up() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let vectors = Live::none();
        let driver = {
            let (machine, vectors) = (machine.clone(), vectors.clone());
            thread::spawn(move || set_up(&machine, &vectors, Owner::Host))
        };
        let host = {
            let machine = machine.clone();
            thread::spawn(move || prepare(&machine))
        };
        let removed = machine.remove_device(ONE);
        let attached = driver.join().unwrap();
        let prepared = host.join().unwrap();
        match removed {
            Ok(()) => {
                assert_eq!(vectors.count(), 0, "a vector is left");
                assert!(!machine.platform().msix_prepared(ONE), "the table is left");
            }
            // The only thing in the way can be the transition that prepares.
            Err(TransitionError::Busy(ONE, busy)) => {
                assert_eq!(busy.uses, 1, "{busy}");
                assert_eq!(vectors.count(), usize::from(attached));
                assert_eq!(machine.platform().msix_prepared(ONE), prepared);
                machine.remove_device(ONE).expect("attachments are no uses");
                assert_eq!(vectors.count(), 0, "a vector is left");
                assert!(!machine.platform().msix_prepared(ONE), "the table is left");
            }
            Err(error) => panic!("{error}"),
        }
        settled(&machine);
    });
}

#[test]
fn l10_msi_set_up_by_a_guest_and_deassign() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.assign(&[Member::at(ONE, ONE)], GUEST).expect("assigned");
        let vectors = Live::none();
        let guest = {
            let (machine, vectors) = (machine.clone(), vectors.clone());
            thread::spawn(move || set_up(&machine, &vectors, Owner::Guest(GUEST)))
        };
        let host = {
            let machine = machine.clone();
            thread::spawn(move || prepare(&machine))
        };
        let deassigned = machine.deassign(&[ONE.into()], Owner::Guest(GUEST));
        let attached = guest.join().unwrap();
        let prepared = host.join().unwrap();
        match deassigned {
            Ok(()) => {
                assert_eq!(owner(&machine, ONE), Some(Owner::Host));
                assert_eq!(vectors.count(), 0, "a vector of the guest is left");
            }
            Err(TransitionError::Busy(ONE, _)) => assert_eq!(vectors.count(), usize::from(attached)),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(machine.platform().msix_prepared(ONE), prepared);
        settled(&machine);
    });
}
