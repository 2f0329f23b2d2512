//! hide: taken away from everyone, for good.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{Entry, Hook, Refusal, Rule};
use pcidevs::{Errno, Holder, Owner, Transition};

use crate::scaffold::{
    GUEST, OUTAGE, TO_GUEST, assigned, at, busy, check, dump, entry, errno, fail, failure, listed, machine,
    owner, set,
};

#[test]
fn hide_blocks_the_device_and_takes_the_hosts_view() {
    let machine = machine(&["00:03.0"]);
    machine.platform().record(true);
    machine.hide(at("00:03.0"), Visibility::None).expect("unused");
    let expected = [
        "permit 0000:00:03.0, hide to hidden",
        "undo vPCI of 0000:00:03.0",
        "iommu_block 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
    ];
    assert_eq!(machine.platform().story(), expected);
    assert_eq!(listed(&machine, Owner::Hidden), ["0000:00:03.0"]);
    assert!(!machine.lock(at("00:03.0")).expect("known").is_read_only());
    assert_eq!(entry(&machine, "00:03.0"), Entry::Blocked);
    check(&machine);
}

#[test]
fn hide_read_only_marks_the_device_and_the_mark_can_change() {
    let machine = machine(&["00:03.0"]);
    let read_only = || machine.lock(at("00:03.0")).expect("known").is_read_only();
    machine.hide(at("00:03.0"), Visibility::ReadOnly).expect("unused");
    assert!(read_only());
    machine.hide(at("00:03.0"), Visibility::None).expect("hidden already");
    assert!(!read_only());
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Hidden));
}

#[test]
fn the_read_only_mark_goes_with_the_device() {
    let machine = machine(&["00:03.0"]);
    machine.hide(at("00:03.0"), Visibility::ReadOnly).expect("unused");
    machine.report_gone(at("00:03.0")).expect("known");
    crate::scaffold::plug(&machine, "00:03.0", crate::scaffold::nic());
    assert!(!machine.lock(at("00:03.0")).expect("known").is_read_only());
}

#[test]
fn hide_of_a_device_of_a_guest_is_ebusy() {
    let machine = assigned(&["00:03.0"]);
    let before = dump(&machine);
    let refused = machine.hide(at("00:03.0"), Visibility::None);
    assert_eq!(refused, Err(TransitionError::Taken { device: at("00:03.0"), owner: TO_GUEST }));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(dump(&machine), before);
}

#[test]
fn hide_of_a_device_in_use_is_ebusy_with_the_holders() {
    let machine = machine(&["00:03.0"]);
    let used = machine.hold(at("00:03.0"), Holder::Named("driver")).expect("memory").expect("known");
    let refused = machine.hide(at("00:03.0"), Visibility::ReadOnly);
    assert_eq!(errno(refused.clone()), Errno::EBUSY);
    assert_eq!(busy(refused).holders, [Holder::Named("driver")]);
    drop(used);
    let ticket = machine.begin_removal(at("00:03.0")).expect("known");
    assert_eq!(errno(machine.hide(at("00:03.0"), Visibility::None)), Errno::EBUSY);
    ticket.cancel().expect("pending");
    machine.hide(at("00:03.0"), Visibility::None).expect("unused");
}

#[test]
fn hide_of_an_unknown_or_broken_device_and_by_policy() {
    let machine = machine(&["00:03.0"]);
    assert_eq!(errno(machine.hide(at("00:04.0"), Visibility::None)), Errno::ENODEV);
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Hide));
    assert_eq!(errno(machine.hide(at("00:03.0"), Visibility::None)), Errno::EPERM);
    machine.platform().permit_all();
    fail(&machine, Hook::IommuDetach);
    failure(machine.remove_device(at("00:03.0")));
    assert_eq!(errno(machine.hide(at("00:03.0"), Visibility::None)), Errno::EBADF);
}

#[test]
fn hide_that_fails_leaves_the_host_with_all_it_had() {
    for hook in [Hook::IommuBlock, Hook::IommuFlush] {
        let machine = machine(&["00:03.0"]);
        let before = dump(&machine);
        fail(&machine, hook);
        assert_eq!(failure(machine.hide(at("00:03.0"), Visibility::ReadOnly)).error, OUTAGE);
        assert_eq!(dump(&machine), before, "{hook}");
    }
}

#[test]
fn a_hidden_device_goes_nowhere() {
    let machine = machine(&["00:03.0"]);
    machine.hide(at("00:03.0"), Visibility::None).expect("unused");
    let before = dump(&machine);
    let hidden = Err(TransitionError::Hidden(at("00:03.0")));
    assert_eq!(machine.assign(&set(&["00:03.0"]), GUEST), hidden);
    assert_eq!(machine.quarantine(&set(&["00:03.0"])), hidden);
    assert_eq!(machine.reset(at("00:03.0"), pcidevs::platform::ResetKind::Flr), hidden);
    assert_eq!(machine.begin_removal(at("00:03.0")).map(drop), hidden);
    let refused = machine.deassign(&set(&["00:03.0"]), Owner::Hidden);
    assert_eq!(refused, Err(TransitionError::NotOwned { device: at("00:03.0"), owner: Owner::Hidden }));
    assert_eq!(dump(&machine), before);
}
