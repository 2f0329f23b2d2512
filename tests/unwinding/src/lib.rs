//! The core without the standard library, in programs that unwind: a panic in a hook passes through the core, which
//! cannot catch it, and must leave nothing half done on its way.
#![cfg(test)]

mod machine;
mod vpci;

use std::panic::{AssertUnwindSafe, catch_unwind};

use machine::{Machine, Moment, NIC, machine};
use pcidevs::lifecycle::DeviceInfo;
use pcidevs::platform::ResetKind;
use pcidevs::{Errno, Owner};

/// Runs `operation`, which must panic, and not fail.
fn panics<R>(operation: impl FnOnce() -> R) {
    assert!(catch_unwind(AssertUnwindSafe(operation)).is_err(), "the hook panics");
}

fn add(machine: &Machine) -> bool {
    machine.add(NIC, DeviceInfo::default(), ()).is_ok()
}

/// A machine with one device, at work for the host.
fn with_device() -> Machine {
    let machine = machine();
    assert!(add(&machine));
    machine.platform().set_command(6);
    machine
}

#[test]
fn a_panic_in_a_hook_of_add_leaves_the_device_unknown() {
    for hook in ["facts", "permit", "bind", "attach", "flush"] {
        for moment in [Moment::Before, Moment::After] {
            let machine = machine();
            machine.platform().explode(hook, moment);
            panics(|| add(&machine));
            assert!(machine.status(NIC).is_none(), "{hook}");
            assert!(machine.platform().is_untouched(), "{hook} {moment:?}: {:?}", machine.platform().state());
            assert!(add(&machine), "{hook}: nothing is in the way");
        }
    }
}

#[test]
fn what_cannot_be_undone_of_an_add_that_panicked_is_cleared_up_later() {
    let machine = machine();
    machine.platform().explode("attach", Moment::After);
    machine.platform().fail("detach");
    panics(|| add(&machine));
    assert!(!machine.platform().is_untouched());
    assert_eq!(machine.run_deferred(), 0);
    assert!(machine.platform().is_untouched(), "{:?}", machine.platform().state());
    assert!(add(&machine));
}

#[test]
fn a_panic_in_a_hook_of_remove_leaves_the_device_known_and_broken() {
    for hook in ["undo", "detach", "flush"] {
        let machine = with_device();
        let before = machine.platform().state();
        machine.platform().explode(hook, Moment::Before);
        panics(|| machine.remove_device(NIC));
        let status = machine.status(NIC).expect("known");
        assert_eq!(status.status.owner, Some(Owner::Host), "{hook}");
        assert_eq!(status.broken.map(|because| because.errno()), Some(Errno::EIO), "{hook}");
        assert_eq!(machine.platform().state(), before, "{hook}");
        machine.remove_device(NIC).expect("asked for again");
        assert!(machine.platform().is_untouched(), "{hook}");
    }
}

#[test]
fn a_panic_in_a_hook_of_reset_leaves_the_device_as_it_was() {
    for hook in ["permit", "reset_scope", "await_idle", "reset", "bind"] {
        let machine = with_device();
        let before = machine.platform().state();
        machine.platform().explode(hook, Moment::Before);
        panics(|| machine.reset(NIC, ResetKind::Flr));
        let device = machine.lock(NIC).expect("unlocked");
        assert!(!device.is_claimed() && device.broken().is_none(), "{hook}");
        drop(device);
        assert_eq!(machine.platform().state(), before, "{hook}");
        machine.reset(NIC, ResetKind::Flr).expect("nothing is in the way");
    }
}

#[test]
fn a_panic_in_a_hook_of_a_move_leaves_the_device_with_its_owner() {
    for hook in ["permit", "await_idle", "block", "flush", "reset"] {
        for moment in [Moment::Before, Moment::After] {
            let machine = with_device();
            let before = machine.platform().state();
            machine.platform().explode(hook, moment);
            panics(|| machine.quarantine(&[NIC.into()]));
            let device = machine.lock(NIC).expect("unlocked");
            assert_eq!((device.owner(), device.is_claimed(), device.broken()), (Owner::Host, false, None));
            drop(device);
            assert_eq!(machine.platform().state(), before, "{hook} {moment:?}");
            machine.quarantine(&[NIC.into()]).expect("nothing is in the way");
        }
    }
}

#[test]
fn a_panic_in_an_undo_breaks_the_device_and_the_rest_is_undone() {
    let machine = with_device();
    machine.platform().fail("reset");
    machine.platform().explode("attach", Moment::Before);
    panics(|| machine.quarantine(&[NIC.into()]));
    let state = machine.platform().state();
    assert_eq!((state.views, state.command), (1, 6), "all else is as it was");
    assert!(machine.status(NIC).expect("known").broken.is_some());
    machine.repair(NIC).expect("its DMA is blocked");
}
