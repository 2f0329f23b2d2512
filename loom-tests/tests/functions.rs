//! Physical functions and their virtual ones, coming and going at once (L9, L21).
#![cfg(loom)]

use loom::thread;
use pcidevs::Holder;
use pcidevs::lifecycle::{Added, TransitionError};
use pcidevs::platform::ConfigBytes;
use pcidevs_loom::machine::{Machine, add, add_vf, machine, owner, plug, settled};
use pcidevs_loom::{Destroyed, ONE, TWO, explore};

/// A physical function at [`ONE`], and the hardware of a virtual one at [`TWO`].
fn pf(destroyed: &Destroyed) -> Machine {
    let machine = machine(destroyed, &[ONE]);
    plug(&machine, TWO, &ConfigBytes::virtual_function());
    machine
}

#[test]
fn l9_remove_of_the_pf_and_add_of_a_vf() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = pf(&destroyed);
        let adder = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || add_vf(&machine, &destroyed, ONE, TWO).map_err(|error| error.reason))
        };
        let user = {
            let machine = machine.clone();
            thread::spawn(move || {
                if let Ok(vf) = machine.lock(TWO) {
                    assert_eq!(vf.register, 2);
                    drop(vf);
                    assert!(machine.lock(ONE).is_ok(), "a virtual function without its physical one");
                }
            })
        };
        let removed = machine.remove_device(ONE);
        let added = adder.join().unwrap();
        user.join().unwrap();
        match (removed, added) {
            (Ok(()), Err(TransitionError::NoPf { vf: TWO, pf: ONE })) => {
                assert!(owner(&machine, TWO).is_none())
            }
            (Err(TransitionError::Busy(ONE, busy)), Ok(Added::New)) => {
                assert!(busy.uses >= 1, "{busy}");
                let again = machine.remove_device(ONE);
                let Err(TransitionError::Busy(ONE, busy)) = again else { panic!("{again:?}") };
                assert_eq!(busy.holders, [Holder::Vf(TWO)]);
            }
            other => panic!("{other:?}"),
        }
        settled(&machine);
    });
}

#[test]
fn l21_add_of_a_vf_and_pf_reported_gone() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = pf(&destroyed);
        let adder = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || add_vf(&machine, &destroyed, ONE, TWO).map_err(|error| error.reason))
        };
        let user = {
            let machine = machine.clone();
            thread::spawn(move || {
                if let Some(vf) = machine.get(TWO) {
                    drop(vf.lock());
                }
            })
        };
        machine.report_gone(ONE).expect("known");
        match adder.join().unwrap() {
            Ok(Added::New) | Err(TransitionError::NoPf { .. }) => {}
            other => panic!("{other:?}"),
        }
        user.join().unwrap();
        assert!(owner(&machine, ONE).is_none());
        assert!(owner(&machine, TWO).is_none(), "a virtual function without its physical one");
        // Whoever cleared up while the other one had the requester ID left that for later.
        machine.run_deferred();
        settled(&machine);
        add(&machine, &destroyed, ONE).expect("free");
        add_vf(&machine, &destroyed, ONE, TWO).expect("free");
    });
}

#[test]
fn l21_the_next_pf_keeps_its_vfs() {
    explore(Some(3), || {
        let destroyed = Destroyed::none();
        let machine = pf(&destroyed);
        let adder = {
            let (machine, destroyed) = (machine.clone(), destroyed.clone());
            thread::spawn(move || match add(&machine, &destroyed, ONE) {
                Ok(Added::New) => add_vf(&machine, &destroyed, ONE, TWO).expect("its function is there"),
                _ => Added::New,
            })
        };
        machine.report_gone(ONE).expect("known");
        adder.join().unwrap();
        assert_eq!(owner(&machine, ONE).is_some(), owner(&machine, TWO).is_some());
        machine.run_deferred();
        settled(&machine);
    });
}
