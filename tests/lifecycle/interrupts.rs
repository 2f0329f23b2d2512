//! MSI prepare and release: the MSI-X table is the host's before another domain uses the device.

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{AttachmentKind, ConfigBytes, Hook, Refusal, Rule};
use pcidevs::{Errno, Holder, Transition};

use crate::bench::VECTOR;
use crate::scaffold::{
    GUEST, OUTAGE, TO_GUEST, at, busy, check, dump, empty, errno, fail, failure, machine, plug, set,
    while_it_hangs,
};

const NIC: &str = "00:03.0";

#[test]
fn prepare_maps_the_table_once_and_release_unmaps_it_once() {
    let machine = machine(&[NIC]);
    machine.platform().record(true);
    machine.msi_prepare(at(NIC)).expect("prepared");
    machine.msi_prepare(at(NIC)).expect("prepared already");
    assert!(machine.platform().msix_prepared(at(NIC)));
    let attachments: Vec<_> = machine.lock(at(NIC)).expect("known").attachments().collect();
    assert_eq!(attachments, [AttachmentKind::Vpci, AttachmentKind::MsixTable]);
    machine.msi_release(at(NIC)).expect("released");
    machine.msi_release(at(NIC)).expect("released already");
    let expected = [
        "permit 0000:00:03.0, interrupts to host",
        "msix_prepare 0000:00:03.0",
        "permit 0000:00:03.0, interrupts to host",
        "msix_release 0000:00:03.0",
    ];
    assert_eq!(machine.platform().story(), expected);
    assert!(!machine.platform().msix_prepared(at(NIC)));
    check(&machine);
}

#[test]
fn the_table_stays_prepared_through_assignments() {
    let machine = machine(&[NIC]);
    machine.msi_prepare(at(NIC)).expect("prepared");
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert!(machine.platform().msix_prepared(at(NIC)));
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    machine.msi_release(at(NIC)).expect("released");
}

#[test]
fn a_device_without_msix_is_enodev_and_so_is_none() {
    let machine = empty();
    plug(&machine, NIC, ConfigBytes::endpoint(1, 2).msi());
    for operation in [pcidevs::lifecycle::Lifecycle::msi_prepare, pcidevs::lifecycle::Lifecycle::msi_release]
    {
        let refused = operation(&machine, at(NIC));
        assert_eq!(refused, Err(TransitionError::NoMsix(at(NIC))));
        assert_eq!(errno(refused), Errno::ENODEV);
        assert_eq!(errno(operation(&machine, at("00:04.0"))), Errno::ENODEV);
    }
}

#[test]
fn entries_in_use_are_ebusy() {
    let machine = machine(&[NIC]);
    machine.msi_prepare(at(NIC)).expect("prepared");
    let vector = machine.platform().thing(VECTOR, at(NIC));
    machine.lock(at(NIC)).expect("known").attach(vector).expect("registered");
    let before = dump(&machine);
    for refused in [machine.msi_release(at(NIC)), machine.msi_prepare(at(NIC))] {
        assert_eq!(refused, Err(TransitionError::VectorsInUse(at(NIC))));
        assert_eq!(errno(refused), Errno::EBUSY);
    }
    assert_eq!(dump(&machine), before);
}

#[test]
fn a_hook_that_fails_changes_nothing() {
    let machine = machine(&[NIC]);
    let before = dump(&machine);
    fail(&machine, Hook::MsixPrepare);
    assert_eq!(failure(machine.msi_prepare(at(NIC))).error, OUTAGE);
    assert_eq!(dump(&machine), before);
    machine.msi_prepare(at(NIC)).expect("prepared");
    let before = dump(&machine);
    fail(&machine, Hook::MsixRelease);
    assert_eq!(failure(machine.msi_release(at(NIC))).error, OUTAGE);
    assert_eq!(dump(&machine), before);
}

#[test]
fn they_are_transitions_and_keep_others_out() {
    let machine = machine(&[NIC]);
    let done = while_it_hangs(
        &machine,
        Hook::MsixPrepare,
        || machine.msi_prepare(at(NIC)),
        || {
            let interrupts = Holder::Transition(Transition::Interrupts);
            assert_eq!(busy(machine.assign(&set(&[NIC]), GUEST)).holders, [interrupts]);
            assert_eq!(busy(machine.msi_release(at(NIC))).holders, [interrupts]);
        },
    );
    done.expect("prepared");
}

#[test]
fn a_removal_that_fails_gives_the_table_back() {
    let machine = machine(&[NIC]);
    machine.msi_prepare(at(NIC)).expect("prepared");
    fail(&machine, Hook::IommuDetach);
    failure(machine.remove_device(at(NIC)));
    assert!(machine.platform().msix_prepared(at(NIC)));
    machine.remove_device(at(NIC)).expect("asked for again");
    assert!(!machine.platform().msix_prepared(at(NIC)));
}

#[test]
fn the_policy_is_asked_before_the_table_is_prepared_and_released() {
    let (machine, nic) = (machine(&[NIC]), at(NIC));
    let denied = Rule::new(Refusal::Denied).transition(Transition::Interrupts);
    machine.platform().refuse(denied.device(nic));
    assert_eq!(machine.msi_prepare(nic), Err(TransitionError::Refused(nic, Refusal::Denied)));
    assert!(!machine.platform().msix_prepared(nic));
    machine.platform().permit_all();
    machine.msi_prepare(nic).expect("prepared");
    machine.platform().refuse(denied);
    assert_eq!(machine.msi_release(nic), Err(TransitionError::Refused(nic, Refusal::Denied)));
    assert!(machine.platform().msix_prepared(nic));
}
