//! Devices on their way to guests and back, hooks and all (L6, L8, L12).
#![cfg(loom)]

use loom::thread;
use pcidevs::lifecycle::TransitionError;
use pcidevs::{Member, Owner};
use pcidevs_loom::machine::{Machine, machine, owner, reaches, settled, with_vpci};
use pcidevs_loom::{Destroyed, GUEST, ONE, OTHER, TWO, explore};

fn assign_one(machine: &Machine, guest: pcidevs::DomainId) -> Result<(), TransitionError> {
    machine.assign(&[Member::at(ONE, ONE)], guest)
}

#[test]
fn l6_assign_to_a_and_assign_to_b() {
    explore(Some(2), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let other = {
            let machine = machine.clone();
            thread::spawn(move || assign_one(&machine, OTHER))
        };
        let vcpu = {
            let guest = machine.domain(GUEST).expect("exists");
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(_device) = guest.lock(ONE) {
                    assert_eq!(reaches(&machine, ONE), Some(Owner::Guest(GUEST)), "seen, so attached");
                }
            })
        };
        let mine = assign_one(&machine, GUEST);
        let others = other.join().unwrap();
        vcpu.join().unwrap();
        let winner = match (&mine, &others) {
            (Ok(()), Err(_)) => GUEST,
            (Err(_), Ok(())) => OTHER,
            both => panic!("{both:?}"),
        };
        for lost in [mine, others].into_iter().filter_map(Result::err) {
            assert_eq!(lost.errno(), pcidevs::Errno::EBUSY, "{lost}");
        }
        assert_eq!(owner(&machine, ONE), Some(Owner::Guest(winner)));
        settled(&machine);
    });
}

#[test]
fn l8_config_access_by_the_old_owner_and_deassign() {
    explore(Some(2), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let live = with_vpci(&machine);
        assign_one(&machine, GUEST).expect("assigned");
        let vcpus = [(); 2].map(|()| {
            let guest = machine.domain(GUEST).expect("exists");
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(device) = guest.lock(ONE) {
                    let value = device.register;
                    assert!([1, u32::MAX].contains(&value), "{value:#x}");
                    let reached = reaches(&machine, ONE);
                    assert!(value != 1 || reached == Some(Owner::Guest(GUEST)), "seen, and with {reached:?}");
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
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        with_vpci(&machine);
        assign_one(&machine, GUEST).expect("assigned");
        machine.deassign(&[ONE.into()], Owner::Guest(GUEST)).expect("deassigned");
        let host = {
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(device) = machine.lock(ONE)
                    && device.owner() == Owner::Host
                    && device.register == 1
                {
                    let reached = reaches(&machine, ONE);
                    assert_eq!(reached, Some(Owner::Host), "the host still drives it");
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
    explore(Some(2), || {
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
