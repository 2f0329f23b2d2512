//! Quarantine: nobody's, with its DMA blocked; and the flag that brings a device back to it.

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{Entry, Hook, Refusal, Rule};
use pcidevs::{Errno, Owner, Transition};

use crate::scaffold::{
    GUEST, OUTAGE, TO_GUEST, assigned, at, check, dump, entry, errno, fail, failure, listed, machine, owner,
    plug, port, set,
};

const NIC: &str = "00:03.0";

#[test]
fn quarantine_goes_through_the_steps_of_assign_but_attaches_to_nobody() {
    let machine = machine(&[NIC]);
    machine.platform().record(true);
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    let expected = [
        "permit 0000:00:03.0, quarantine to quarantine",
        "reset_scope 0000:00:03.0, quarantine",
        "undo vPCI of 0000:00:03.0",
        "await_idle 0000:00:03.0",
        "set_ats 0000:00:03.0, off",
        "iommu_block 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
        "reset 0000:00:03.0, Function",
    ];
    let mut story = machine.platform().story();
    story.truncate(expected.len());
    assert_eq!(story, expected);
    assert_eq!((owner(&machine, NIC), entry(&machine, NIC)), (Some(Owner::Quarantine), Entry::Blocked));
    check(&machine);
}

#[test]
fn the_flag_is_sticky_until_the_device_goes_from_quarantine_to_the_host() {
    let machine = machine(&[NIC]);
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    for _ in 0..2 {
        machine.assign(&set(&[NIC]), GUEST).expect("assigned");
        machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
        assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
        check(&machine);
    }
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("to the host");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host), "the flag is clear");
    check(&machine);
}

#[test]
fn the_platform_can_want_a_device_in_quarantine() {
    let machine = assigned(&[NIC, "00:04.0"]);
    machine.platform().keep_in_quarantine(at(NIC));
    machine.deassign(&set(&[NIC, "00:04.0"]), TO_GUEST).expect("deassigned");
    assert_eq!(listed(&machine, Owner::Quarantine), ["0000:00:03.0"]);
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:04.0"]);
    check(&machine);
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("by hand it goes");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
}

#[test]
fn quarantine_again_is_ok_and_does_nothing() {
    let machine = machine(&[NIC]);
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    let before = dump(&machine);
    machine.platform().record(true);
    machine.quarantine(&set(&[NIC])).expect("it is there");
    assert_eq!(machine.platform().story(), [""; 0]);
    assert_eq!(dump(&machine), before);
}

#[test]
fn every_refusal_of_quarantine() {
    let machine = assigned(&[NIC, "00:04.0"]);
    machine.deassign(&set(&["00:04.0"]), TO_GUEST).expect("deassigned");
    plug(&machine, "00:01.0", port(1, 1));
    let before = dump(&machine);
    let refused = machine.quarantine(&set(&[NIC]));
    assert_eq!(refused, Err(TransitionError::Taken { device: at(NIC), owner: TO_GUEST }));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(errno(machine.quarantine(&set(&["00:1e.0"]))), Errno::ENODEV);
    assert_eq!(errno(machine.quarantine(&set(&["00:01.0"]))), Errno::EINVAL);
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Quarantine));
    assert_eq!(errno(machine.quarantine(&set(&["00:04.0"]))), Errno::EPERM);
    assert_eq!(dump(&machine), before);
    machine.platform().permit_all();
    fail(&machine, Hook::IommuDetach);
    failure(machine.remove_device(at("00:04.0")));
    assert_eq!(errno(machine.quarantine(&set(&["00:04.0"]))), Errno::EBADF);
}

#[test]
fn quarantine_that_fails_leaves_the_host_with_all_it_had() {
    for hook in
        [Hook::ResetScope, Hook::AwaitIdle, Hook::SetAts, Hook::IommuBlock, Hook::IommuFlush, Hook::Reset]
    {
        let machine = machine(&[NIC]);
        let before = dump(&machine);
        fail(&machine, hook);
        assert_eq!(failure(machine.quarantine(&set(&[NIC]))).error, OUTAGE);
        assert_eq!(dump(&machine), before, "{hook}");
        machine.assign(&set(&[NIC]), GUEST).expect("assigned");
        machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
        assert_eq!(owner(&machine, NIC), Some(Owner::Host), "{hook}: the flag was not set");
    }
}

#[test]
fn a_device_in_quarantine_reaches_nobody_even_if_it_masters_the_bus() {
    let machine = machine(&[NIC]);
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    crate::scaffold::work(&machine, NIC);
    assert_eq!(machine.platform().dma(at(NIC)), pcidevs::platform::Dma::Blocked);
}
