//! Devices that vanish while a transition has them (L18), and what comes to their address (L14).
#![cfg(loom)]

use loom::thread;
use pcidevs::lifecycle::{Added, TransitionError};
use pcidevs::platform::{Entry, Fault, GroupId, Hook, HookError, ResetKind};
use pcidevs::{Errno, Holder, Member, Owner};
use pcidevs_loom::machine::{
    Machine, Note, add, bare, endpoint, machine, owner, plug, settled, touches, with_vpci,
};
use pcidevs_loom::{Destroyed, GUEST, ONE, TWO, explore};

const EIO: HookError = HookError::new(Errno::EIO, "as the model asked");

/// Reports [`ONE`] gone and notes how many hooks had been called when that returned.
fn report(machine: &Machine, reported: &Note) {
    machine.report_gone(ONE).expect("known");
    reported.put(machine.platform().journal().len());
}

/// After the report at most the hook that was under way touched the hardware; and what was left behind is cleared.
fn left_alone(machine: &Machine, reported: &Note) {
    let from = reported.number().expect("reported");
    let after = touches(machine, ONE, from);
    let touching = after.iter().filter(|hook| !matches!(hook, Hook::IommuDetach | Hook::IommuFlush));
    assert!(touching.count() <= 1, "touched after it was reported gone: {after:?}");
    assert_eq!(machine.platform().entry(ONE), Entry::Absent, "left in the IOMMU");
}

#[test]
fn l18_report_gone_and_locked_access_and_transition_at_its_next_step() {
    explore(Some(2), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let live = with_vpci(&machine);
        machine.report_reset(ONE, ResetKind::Flr).expect("bound anew");
        machine.platform().record(true);
        let reported = Note::empty();
        let mover = {
            let machine = machine.clone();
            thread::spawn(move || machine.assign(&[Member::at(ONE, ONE)], GUEST))
        };
        let reader = {
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(mut device) = machine.lock(ONE) {
                    device.register = 7;
                    assert_eq!(device.register, 7, "not destroyed while an access is inside");
                }
            })
        };
        report(&machine, &reported);
        assert!(machine.lock(ONE).is_err(), "reported, so nobody comes in");
        reader.join().unwrap();
        match mover.join().unwrap() {
            Ok(()) | Err(TransitionError::Gone(ONE) | TransitionError::NotFound(ONE)) => {}
            Err(error) => panic!("{error}"),
        }
        left_alone(&machine, &reported);
        assert_eq!((destroyed.count(), live.count()), (1, 0));
        settled(&machine);
        assert!(matches!(add(&machine, &destroyed, ONE), Ok(Added::New)), "its address is free");
        settled(&machine);
    });
}

#[test]
fn l18_report_gone_of_a_member_of_a_set() {
    explore(Some(2), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE, TWO]);
        let live = with_vpci(&machine);
        machine.platform().record(true);
        let reported = Note::empty();
        let mover = {
            let machine = machine.clone();
            thread::spawn(move || machine.assign(&[Member::at(ONE, ONE), Member::at(TWO, TWO)], GUEST))
        };
        report(&machine, &reported);
        let expected = match mover.join().unwrap() {
            Ok(()) => Owner::Guest(GUEST),
            Err(TransitionError::Gone(ONE) | TransitionError::NotFound(ONE)) => Owner::Host,
            Err(error) => panic!("{error}"),
        };
        left_alone(&machine, &reported);
        assert_eq!(owner(&machine, TWO), Some(expected));
        assert!(live.count() <= 1, "what the lost device had is undone");
        settled(&machine);
        assert_eq!(destroyed.count(), 1);
    });
}

#[test]
fn l18_report_gone_and_deassign_and_the_next_device() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        let live = with_vpci(&machine);
        machine.assign(&[Member::at(ONE, ONE)], GUEST).expect("assigned");
        let mover = {
            let machine = machine.clone();
            thread::spawn(move || machine.deassign(&[ONE.into()], Owner::Guest(GUEST)))
        };
        machine.report_gone(ONE).expect("known");
        let added = match add(&machine, &destroyed, ONE).map_err(|error| error.reason) {
            Ok(Added::New) => true,
            Err(TransitionError::Busy(ONE, busy)) => {
                assert_eq!(busy.holders, [Holder::DmaTeardown]);
                false
            }
            other => panic!("{other:?}"),
        };
        match mover.join().unwrap() {
            Ok(()) | Err(TransitionError::Gone(ONE) | TransitionError::NotFound(ONE)) => {}
            // The new one, already.
            Err(TransitionError::NotOwned { device: ONE, owner: Owner::Host }) => assert!(added),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(owner(&machine, ONE), added.then_some(Owner::Host));
        settled(&machine);
        assert_eq!(live.count(), usize::from(added));
        assert_eq!(destroyed.count(), if added { 1 } else { 2 });
        machine.domain(GUEST).expect("exists").acknowledge_gone(ONE).expect("not inside");
        machine.release_domain(GUEST).expect("nothing is left with it");
    });
}

#[test]
fn l18_report_gone_and_a_removal_that_fails() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = machine(&destroyed, &[ONE]);
        machine.platform().fail_next(Hook::IommuFlush, Fault::Error(EIO));
        let remover = {
            let machine = machine.clone();
            thread::spawn(move || machine.remove_device(ONE))
        };
        // Closed or open, it is known: it leaves with this report, or with the end of the removal.
        machine.report_gone(ONE).expect("known");
        let _not_removed = remover.join().unwrap().expect_err("gone, or the flush fails");
        assert_eq!(owner(&machine, ONE), None, "it came back");
        // The flush may have failed for the departure.
        machine.run_deferred();
        assert_eq!(machine.platform().entry(ONE), Entry::Absent);
        assert_eq!(destroyed.count(), 1);
        settled(&machine);
    });
}

#[test]
fn l18_the_next_device_at_the_address_is_in_its_group() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = bare();
        for at in [ONE, TWO] {
            plug(&machine, at, &endpoint());
            machine.platform().set_group(at, GroupId(1));
            add(&machine, &destroyed, at).expect("added");
        }
        let mover = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || {
                let _moved = machine.quarantine(&[ONE.into()]);
                matches!(add(&machine, &destroyed, ONE), Ok(Added::New))
            })
        };
        machine.report_gone(ONE).expect("known");
        let added = mover.join().unwrap();
        let members = machine.group_of(TWO).expect("known");
        assert_eq!(members, if added { vec![ONE] } else { vec![] });
        settled(&machine);
    });
}
