//! What was bound to an owner who did not get the device in the end, and could not be undone.

use pcidevs::Owner;
use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::Hook;

use crate::scaffold::{GUEST, Machine, TO_GUEST, at, check, fail, machine, owner, set, while_it_hangs};

/// 00:03.0 is broken: its assignment failed when the guest saw it, and the guest's view could not be undone.
fn stray() -> Machine {
    let both = ["00:03.0", "00:04.0"];
    let machine = machine(&both);
    machine.quarantine(&set(&both)).expect("nobody's");
    let result = while_it_hangs(
        &machine,
        Hook::Bind,
        || machine.assign(&set(&both), GUEST),
        || {
            machine.report_gone(at("00:04.0")).expect("gone");
            // The next attachment that is undone is the guest's new view of the other one.
            fail(&machine, Hook::Facts);
        },
    );
    assert!(matches!(result, Err(TransitionError::Failed(_))), "{result:?}");
    let status = machine.status(at("00:03.0")).expect("known");
    assert!(status.broken.is_some());
    assert_eq!(status.attachments.len(), 1, "it can be seen");
    assert_eq!(machine.platform().views(at("00:03.0")), [TO_GUEST]);
    machine
}

#[test]
fn r11_what_could_not_be_unbound_is_undone_by_the_repair() {
    let machine = stray();
    machine.repair(at("00:03.0")).expect("repaired");
    assert_eq!(machine.platform().views(at("00:03.0")), []);
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Quarantine));
    check(&machine);
}

#[test]
fn r11_what_could_not_be_unbound_is_undone_when_the_device_leaves() {
    let machine = stray();
    machine.remove_device(at("00:03.0")).expect("removed");
    check(&machine);
    let machine = stray();
    machine.report_gone(at("00:03.0")).expect("gone");
    check(&machine);
}

#[test]
fn r11_a_repair_that_fails_again_keeps_it() {
    let machine = stray();
    fail(&machine, Hook::Facts);
    machine.repair(at("00:03.0")).expect_err("the view is undone first");
    assert_eq!(machine.platform().views(at("00:03.0")), [TO_GUEST]);
    machine.repair(at("00:03.0")).expect("repaired");
    check(&machine);
}
