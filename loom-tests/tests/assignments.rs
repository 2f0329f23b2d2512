//! Devices on their way to guests and back, hooks and all (L6, L8, L12).
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::ResetKind;
use pcidevs::{DomainId, Errno, Member, Owner};
use pcidevs_loom::machine::{Machine, machine, owner, reaches, settled, view_of, with_vpci};
use pcidevs_loom::{Destroyed, GUEST, ONE, OTHER, TWO, Unlocked, explore};

fn assign_one(machine: &Machine, guest: DomainId) -> Result<(), TransitionError> {
    machine.assign(&[Member::at(ONE, ONE)], guest)
}

#[test]
fn l6_assign_to_a_and_assign_to_b() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let other = {
            let machine = machine.clone();
            thread::spawn(move || assign_one(&machine, OTHER))
        };
        let lister = {
            let machine = machine.clone();
            thread::spawn(move || {
                let listed =
                    |guest| machine.devices_of(Owner::Guest(guest)).expect("memory").expect("exists").len();
                assert!(listed(GUEST) + listed(OTHER) <= 1, "with both");
            })
        };
        let mine = assign_one(&machine, GUEST);
        let others = other.join().unwrap();
        lister.join().unwrap();
        let winner = match (&mine, &others) {
            (Ok(()), Err(_)) => GUEST,
            (Err(_), Ok(())) => OTHER,
            both => panic!("{both:?}"),
        };
        for lost in [mine, others].into_iter().filter_map(Result::err) {
            assert_eq!(lost.errno(), Errno::EBUSY, "{lost}");
        }
        assert_eq!(owner(&machine, ONE), Some(Owner::Guest(winner)));
        settled(&machine);
    });
}

#[test]
fn l6_assign_and_assign_and_who_sees_it_is_who_is_attached() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let other = {
            let machine = machine.clone();
            thread::spawn(move || {
                let assigned = assign_one(&machine, OTHER).is_ok();
                if assigned {
                    machine.deassign(&[ONE.into()], Owner::Guest(OTHER)).expect("deassigned");
                }
            })
        };
        let guest = machine.domain(OTHER).expect("exists");
        if let Ok(_device) = guest.lock(ONE) {
            assert_eq!(reaches(&machine, ONE), Some(Owner::Guest(OTHER)), "seen, so attached");
        }
        drop(assign_one(&machine, GUEST));
        other.join().unwrap();
        settled(&machine);
    });
}

#[test]
fn l8_config_access_by_the_old_owner_and_deassign() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let live = with_vpci(&machine);
        assign_one(&machine, GUEST).expect("assigned");
        let vcpus = [(); 2].map(|()| {
            let guest = machine.domain(GUEST).expect("exists");
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(device) = guest.lock(ONE) {
                    let (mine, theirs) = (view_of(Owner::Guest(GUEST)), view_of(Owner::Host));
                    assert!([mine, u32::MAX].contains(&device.register), "the host's is {theirs}");
                    assert_eq!(reaches(&machine, ONE), Some(Owner::Guest(GUEST)), "seen, so attached");
                }
            })
        });
        machine.deassign(&[ONE.into()], Owner::Guest(GUEST)).expect("deassigned");
        for vcpu in vcpus {
            vcpu.join().unwrap();
        }
        assert!(machine.domain(GUEST).expect("exists").lock(ONE).is_err());
        assert_eq!(live.count(), 1, "the host's");
        settled(&machine);
    });
}

#[test]
fn l8_the_old_owner_sees_the_device_only_while_its_dma_is_its_own() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        with_vpci(&machine);
        machine.report_reset(ONE, ResetKind::Flr).expect("bound anew");
        let host = {
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(device) = machine.lock(ONE)
                    && device.register == view_of(Owner::Host)
                {
                    assert_eq!(reaches(&machine, ONE), Some(Owner::Host), "the host still drives it");
                }
            })
        };
        assign_one(&machine, GUEST).expect("assigned");
        host.join().unwrap();
        settled(&machine);
    });
}

#[test]
fn l12_release_of_a_domain_and_assign_of_another_device_to_it() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE, TWO]);
        assign_one(&machine, GUEST).expect("assigned");
        let assigner = {
            let machine = machine.clone();
            thread::spawn(move || machine.assign(&[Member::at(TWO, TWO)], GUEST))
        };
        let lister = {
            let machine = machine.clone();
            thread::spawn(move || {
                let devices = machine.devices_of(Owner::Guest(GUEST)).expect("memory");
                assert!(devices.is_none_or(|devices| devices.len() <= 2));
            })
        };
        let released = machine.release_domain(GUEST);
        let had = machine.devices_of(Owner::Guest(GUEST)).expect("memory").map_or(0, |devices| devices.len());
        let assigned = assigner.join().unwrap();
        lister.join().unwrap();
        let has = machine.devices_of(Owner::Guest(GUEST)).expect("memory").map_or(0, |devices| devices.len());
        assert!(has <= had, "a device came to a guest that was released: {released:?} {assigned:?}");
        match released {
            Ok(()) => assert!(machine.domain(GUEST).is_none()),
            Err(TransitionError::NotReleased { .. } | TransitionError::Busy(..)) => {
                machine.release_domain(GUEST).expect("once more, with nothing under way");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!([owner(&machine, ONE), owner(&machine, TWO)], [Some(Owner::Host); 2]);
        settled(&machine);
    });
}

#[test]
fn l16_what_the_steps_did_is_seen_by_who_reaches_the_device() {
    explore(None, || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        // Memory that the binding prepares and no lock protects: only the order of commit and access does.
        let prepared = Arc::new(Unlocked::new(0));
        let binding = Arc::clone(&prepared);
        machine.platform().on_bind(move |_, _| {
            binding.set(1);
            Ok(None)
        });
        let vcpu = {
            let guest = machine.domain(GUEST).expect("exists");
            thread::spawn(move || {
                if let Ok(_device) = guest.lock(ONE) {
                    assert_eq!(prepared.get(), 1);
                }
            })
        };
        assign_one(&machine, GUEST).expect("assigned");
        vcpu.join().unwrap();
        machine.platform().on_bind(|_, _| Ok(None));
    });
}
