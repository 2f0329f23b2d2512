//! Devices that vanish while a transition has them (L18), and what comes to their address (L14).
#![cfg(loom)]

use loom::thread;
use pcidevs::lifecycle::{Added, TransitionError};
use pcidevs::platform::{Entry, Hook, ResetKind};
use pcidevs::{Member, Owner};
use pcidevs_loom::machine::{Machine, Note, add, machine, owner, settled, touches, with_vpci};
use pcidevs_loom::{Destroyed, GUEST, ONE, TWO, explore};

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
    explore(Some(3), || {
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
        let adder = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || matches!(add(&machine, &destroyed, ONE), Ok(Added::New)))
        };
        machine.report_gone(ONE).expect("known");
        let _ = mover.join().unwrap();
        let added = adder.join().unwrap();
        if added {
            assert_eq!(owner(&machine, ONE), Some(Owner::Host), "the new device");
        }
        settled(&machine);
        assert_eq!(live.count(), usize::from(added));
        assert_eq!(destroyed.count(), 2 - usize::from(added));
        machine.domain(GUEST).expect("exists").acknowledge_gone(ONE).expect("not inside");
        machine.release_domain(GUEST).expect("nothing is left with it");
    });
}
