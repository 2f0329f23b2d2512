//! What is still to be done for a device when it goes: deferred effects (L2), faults (L3), flush timeouts (L11), and
//! what a teardown that failed has done (R9).
#![cfg(loom)]

use std::sync::Arc;

use loom::future::block_on;
use loom::thread;
use pcidevs::lifecycle::{Added, TransitionError};
use pcidevs::platform::{Attachment, AttachmentKind, Claimed, Fault, Hardware, Hook, HookError, Platform};
use pcidevs::{Errno, Holder, Owner};
use pcidevs_loom::machine::{
    Machine, Note, add, endpoint, machine, masters, owner, plug, reaches, settled, touches,
};
use pcidevs_loom::{Destroyed, Device, GUEST, ONE, Unlocked, explore};

/// A removal that may find users, and otherwise is complete.
fn removed(result: Result<(), TransitionError>) -> bool {
    match result {
        Ok(()) => true,
        Err(TransitionError::Busy(ONE, busy)) => {
            assert!(busy.uses > 0, "{busy}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn l2_deferred_effect_pending_and_remove() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let worker = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || {
                let Ok(device) = machine.lock(ONE) else { return };
                let effect = device.keep(Holder::Named("effect")).expect("memory");
                drop(device);
                // Carried out later, without the lock: the device is kept, and still the host's.
                assert_eq!(reaches(&machine, ONE), Some(Owner::Host));
                effect.lock().expect("kept").register += 1;
                assert_eq!(destroyed.count(), 0);
            })
        };
        let user = {
            let machine = machine.clone();
            thread::spawn(move || drop(machine.get(ONE)))
        };
        let gone = removed(machine.remove_device(ONE));
        worker.join().unwrap();
        user.join().unwrap();
        assert_eq!(destroyed.count(), usize::from(gone));
        settled(&machine);
        if !gone {
            machine.remove_device(ONE).expect("no effect is pending");
        }
    });
}

/// The ninth fault is counted already; one more and the device is to be silenced.
fn noisy(destroyed: &Destroyed) -> Machine {
    let machine = machine(destroyed, &[ONE]);
    for _ in 0..9 {
        machine.report_fault(ONE).expect("known");
    }
    machine
}

#[test]
fn l3_fault_report_and_remove() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = noisy(&destroyed);
        let interrupt = {
            let machine = machine.clone();
            thread::spawn(move || drop(machine.report_fault(ONE)))
        };
        let deferred = {
            let machine = machine.clone();
            thread::spawn(move || {
                machine.run_deferred();
            })
        };
        let gone = removed(machine.remove_device(ONE));
        interrupt.join().unwrap();
        deferred.join().unwrap();
        machine.run_deferred();
        assert!(gone, "a fault is no use");
        assert_eq!(destroyed.count(), 1);
        settled(&machine);
    });
}

#[test]
fn l3_the_next_device_does_not_pay_for_the_faults_of_the_last() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = noisy(&destroyed);
        let deferred = {
            let machine = machine.clone();
            thread::spawn(move || {
                machine.report_fault(ONE);
                machine.run_deferred();
            })
        };
        machine.remove_device(ONE).expect("unused");
        plug(&machine, ONE, &endpoint());
        assert!(matches!(add(&machine, &destroyed, ONE), Ok(Added::New)));
        deferred.join().unwrap();
        machine.run_deferred();
        assert!(masters(&machine, ONE), "silenced for its predecessor's faults");
    });
}

#[test]
fn l11_ats_walk_and_flush_timeout_and_remove() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let walker = {
            let machine = machine.clone();
            thread::spawn(move || {
                let hosts = machine.devices_of(Owner::Host).expect("memory").expect("exists");
                for device in hosts.iter().filter_map(|device| device.upgrade()) {
                    assert_eq!(device.lock().expect("kept").requesters(), [ONE]);
                    assert_eq!(reaches(&machine, ONE), Some(Owner::Host));
                }
            })
        };
        let reporter = {
            let machine = machine.clone();
            thread::spawn(move || machine.report_flush_timeout(ONE).is_ok())
        };
        machine.platform().record(true);
        let gone = removed(machine.remove_device(ONE));
        let after = machine.platform().journal().len();
        walker.join().unwrap();
        reporter.join().unwrap();
        if gone {
            assert_eq!(touches(&machine, ONE, after), [], "after it was removed");
        }
        assert_eq!(destroyed.count(), usize::from(gone));
        settled(&machine);
    });
}

#[test]
fn l11_flush_timeout_and_ticket() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.platform().record(true);
        let ticket = machine.begin_removal(ONE).expect("begun");
        let reporter = {
            let machine = machine.clone();
            thread::spawn(move || drop(machine.report_flush_timeout(ONE)))
        };
        block_on(ticket).expect("removed");
        let after = Note::empty();
        after.put(machine.platform().journal().len());
        reporter.join().unwrap();
        assert_eq!(touches(&machine, ONE, after.number().expect("noted")), [], "after it was removed");
        settled(&machine);
    });
}

#[test]
fn l11_flush_timeout_and_deassign() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.assign(&[ONE.into()], GUEST).expect("assigned");
        let reporter = {
            let machine = machine.clone();
            thread::spawn(move || machine.report_flush_timeout(ONE))
        };
        let deassigned = machine.deassign(&[ONE.into()], Owner::Guest(GUEST));
        reporter.join().unwrap().expect("known");
        let broken = machine.lock(ONE).expect("known").broken().is_some();
        match deassigned {
            Ok(()) => assert_eq!(owner(&machine, ONE), Some(Owner::Host)),
            Err(TransitionError::Broken { device: ONE, .. }) => assert!(broken),
            Err(error) => panic!("{error}"),
        }
        match machine.repair(ONE) {
            Ok(()) | Err(TransitionError::NotBroken(ONE)) => {}
            Err(TransitionError::DmaNotBlocked(ONE)) => {
                machine.platform().iommu_block(ONE, ONE).expect("blocked");
                machine.platform().iommu_flush(ONE).expect("flushed");
                machine.repair(ONE).expect("blocked by hand");
            }
            Err(error) => panic!("{error}"),
        }
        settled(&machine);
    });
}

/// Writes memory that no lock protects when it is undone, and when it is redone.
struct Writes(Arc<Unlocked>);

impl Attachment<Device> for Writes {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn undo(&mut self, _: &dyn Claimed<Device>, _: Hardware) -> Result<(), HookError> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn redo(&mut self, _: &dyn Claimed<Device>) -> Result<(), HookError> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[test]
fn r9_what_a_failed_teardown_did_is_seen_by_who_uses_the_device() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let written = Arc::new(Unlocked::new(0));
        let attachment = Box::new(Writes(Arc::clone(&written)));
        machine.lock(ONE).expect("known").attach(attachment).map_err(|error| error.reason).expect("attached");
        let failure = HookError::new(Errno::EIO, "as the model asked");
        machine.platform().fail_next(Hook::IommuDetach, Fault::Error(failure));
        let users = [false, true].map(|locks| {
            let (machine, written) = (machine.clone(), Arc::clone(&written));
            thread::spawn(move || {
                let read = || assert!([0, 2].contains(&written.get()), "half undone");
                if locks {
                    machine.lock(ONE).iter().for_each(|_| read());
                } else {
                    machine.get(ONE).iter().for_each(|_| read());
                }
            })
        });
        match machine.remove_device(ONE) {
            Err(TransitionError::Failed(failed)) => assert_eq!(failed.error, failure),
            Err(TransitionError::Busy(..)) => {}
            other => panic!("{other:?}"),
        }
        for user in users {
            user.join().unwrap();
        }
    });
}

#[test]
fn l14_what_was_cleared_up_is_seen_by_the_next_device() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let written = Arc::new(Unlocked::new(0));
        let attachment = Box::new(Writes(Arc::clone(&written)));
        machine.lock(ONE).expect("known").attach(attachment).map_err(|error| error.reason).expect("attached");
        // The old device's memory stays, so that only the mark tells that its address is free.
        let handle = machine.get(ONE).expect("live");
        let adder = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || {
                if matches!(add(&machine, &destroyed, ONE), Ok(Added::New)) {
                    assert_eq!(written.get(), 1, "what the old device had is undone");
                }
            })
        };
        machine.report_gone(ONE).expect("known");
        adder.join().unwrap();
        drop(handle);
    });
}
