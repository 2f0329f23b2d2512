//! Broken devices: listed where their DMA may still reach, refused for assignment, and whole again only after the
//! platform confirmed that the DMA is blocked.

use pcidevs::lifecycle::{DeviceInfo, TransitionError};
use pcidevs::platform::{Fault, Hook, ResetKind};
use pcidevs::{Errno, Holder, Owner};

use crate::bench::IRQFD;
use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, assigned, at, block_by_hand, check, dump, errno, fail, failure,
    held_by, listed, machine, nic, owner, plug, set,
};

const NIC: &str = "00:03.0";

/// A device whose assignment failed, and whose undo could not take the guest's tables away.
fn stranded() -> Machine {
    let machine = machine(&[NIC]);
    fail(&machine, Hook::Bind);
    machine.platform().record(true);
    failure(machine.assign(&set(&[NIC]), GUEST));
    let calls = machine.platform().take_journal();
    let bind = calls.iter().position(|call| call.hook == Hook::Bind).expect("bound");
    drop(machine);

    let machine = crate::scaffold::machine(&[NIC]);
    let bind = u64::try_from(bind).expect("few");
    // What comes after it is the undo: first of the flush, then of the attachment to the guest's tables.
    machine.platform().fail_call(bind, Fault::Error(OUTAGE));
    machine.platform().fail_call(bind + 1, Fault::Error(OUTAGE));
    failure(machine.assign(&set(&[NIC]), GUEST));
    machine.platform().clear_faults();
    machine
}

#[test]
fn it_is_listed_under_the_guest_but_out_of_its_sight() {
    let machine = stranded();
    let status = machine.status(at(NIC)).expect("known");
    assert_eq!((status.broken, status.status.owner), (Some(OUTAGE), Some(TO_GUEST)));
    assert_eq!(status.status.holders, [Holder::DmaOf(GUEST)]);
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0"]);
    assert!(listed(&machine, Owner::Host).is_empty());
    let guest = machine.domain(GUEST).expect("known");
    assert!((0..8).all(|place| guest.lock(pcidevs::Sbdf::from_u32(place << 3)).is_err()));
    assert_eq!(machine.lock(at(NIC)).expect("known").guest_address(), None);
    let stopped = machine.platform().stopped();
    assert_eq!(stopped.iter().map(|stop| (stop.guest, stop.device)).collect::<Vec<_>>(), [(GUEST, at(NIC))]);
    check(&machine);
}

#[test]
fn everything_but_repair_refuses_it() {
    let machine = stranded();
    let before = dump(&machine);
    let broken = || Err(TransitionError::Broken { device: at(NIC), because: OUTAGE });
    assert_eq!(machine.can_assign(at(NIC), GUEST), broken());
    assert_eq!(machine.assign(&set(&[NIC]), GUEST), broken());
    assert_eq!(machine.quarantine(&set(&[NIC])), broken());
    assert_eq!(machine.deassign(&set(&[NIC]), TO_GUEST), broken());
    assert_eq!(machine.reset(at(NIC), ResetKind::Flr), broken());
    assert_eq!(machine.release_domain(GUEST), broken());
    assert_eq!(errno(broken()), Errno::EBADF);
    held_by(machine.remove_device(at(NIC)), &[Holder::DmaOf(GUEST)]);
    assert_eq!(dump(&machine), before);
}

#[test]
fn repair_without_the_platforms_word_is_ebusy_and_changes_nothing() {
    let machine = stranded();
    crate::scaffold::work(&machine, NIC);
    machine.platform().fail_next(Hook::Permit, Fault::Error(OUTAGE));
    assert_eq!(errno(machine.repair(at(NIC))), Errno::EPERM);
    fail(&machine, Hook::DmaBlocked);
    assert_eq!(failure(machine.repair(at(NIC))).error, OUTAGE);
    assert_eq!(machine.status(at(NIC)).expect("known").broken, Some(OUTAGE));
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
}

#[test]
fn dma_that_is_not_blocked_is_not_repaired() {
    let machine = assigned(&[NIC]);
    machine.report_flush_timeout(at(NIC)).expect("known");
    let before = dump(&machine);
    let refused = machine.repair(at(NIC));
    assert_eq!(refused, Err(TransitionError::DmaNotBlocked(at(NIC))));
    assert_eq!(errno(refused), Errno::EBUSY);
    assert_eq!(dump(&machine), before);
}

#[test]
fn repair_moves_it_to_quarantine_whole_again() {
    let machine = stranded();
    block_by_hand(&machine, NIC);
    machine.repair(at(NIC)).expect("blocked");
    let status = machine.status(at(NIC)).expect("known");
    assert_eq!((status.broken, status.status.owner), (None, Some(Owner::Quarantine)));
    assert!(status.status.holders.is_empty() && status.attachments.is_empty());
    check(&machine);
    machine.assign(&set(&[NIC]), GUEST).expect("whole");
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    check(&machine);
}

#[test]
fn repair_of_what_is_whole_is_einval_and_of_nothing_enodev() {
    let machine = machine(&[NIC]);
    let before = dump(&machine);
    assert_eq!(machine.repair(at(NIC)), Err(TransitionError::NotBroken(at(NIC))));
    assert_eq!(errno(machine.repair(at(NIC))), Errno::EINVAL);
    assert_eq!(errno(machine.repair(at("00:04.0"))), Errno::ENODEV);
    assert_eq!(dump(&machine), before);
}

#[test]
fn repair_undoes_what_the_binding_left_and_stays_broken_if_it_cannot() {
    let machine = assigned(&[NIC]);
    let thing = machine.platform().thing(IRQFD, at(NIC));
    machine.lock(at(NIC)).expect("known").attach(thing).expect("registered");
    machine.report_flush_timeout(at(NIC)).expect("known");
    block_by_hand(&machine, NIC);
    // permit, dma_blocked, then the attachment.
    machine.platform().fail_call(2, Fault::Error(OUTAGE));
    assert_eq!(failure(machine.repair(at(NIC))).step, "undo attachment");
    assert!(machine.status(at(NIC)).expect("known").broken.is_some());
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
    machine.repair(at(NIC)).expect("asked for again");
    assert_eq!(machine.platform().things(), [""; 0]);
    check(&machine);
}

#[test]
fn remove_and_add_clears_it_where_no_guest_is_the_dma_owner() {
    let machine = machine(&[NIC]);
    fail(&machine, Hook::IommuFlush);
    failure(machine.remove_device(at(NIC)));
    assert_eq!(errno(machine.assign(&set(&[NIC]), GUEST)), Errno::EBADF);
    machine.add(at(NIC), DeviceInfo::default(), 7).expect("again");
    assert_eq!(errno(machine.assign(&set(&[NIC]), GUEST)), Errno::EBADF, "reporting it again does not");
    machine.remove_device(at(NIC)).expect("unused");
    plug(&machine, NIC, nic());
    machine.assign(&set(&[NIC]), GUEST).expect("whole");
    check(&machine);
}

#[test]
fn a_broken_device_under_the_host_can_be_repaired_too() {
    let machine = machine(&[NIC]);
    fail(&machine, Hook::IommuFlush);
    failure(machine.remove_device(at(NIC)));
    assert_eq!(machine.repair(at(NIC)), Err(TransitionError::DmaNotBlocked(at(NIC))));
    block_by_hand(&machine, NIC);
    machine.repair(at(NIC)).expect("blocked");
    assert_eq!(owner(&machine, NIC), Some(Owner::Quarantine));
    check(&machine);
}

#[test]
fn only_the_member_whose_undo_failed_is_broken() {
    let both = ["00:03.0", "00:04.0"];
    let machine = machine(&both);
    machine.platform().record(true);
    fail(&machine, Hook::Bind);
    failure(machine.assign(&set(&both), GUEST));
    let calls = machine.platform().take_journal();
    let bind = calls.iter().position(|call| call.hook == Hook::Bind).expect("bound");
    let bind = u64::try_from(bind).expect("few");
    for undo in 1..=2 {
        let machine = crate::scaffold::machine(&both);
        machine.platform().fail_call(bind, Fault::Error(OUTAGE));
        machine.platform().fail_call(bind + undo, Fault::Error(OUTAGE));
        let failed = failure(machine.assign(&set(&both), GUEST));
        assert_eq!(failed.undo.len(), 1);
        let broken = failed.undo[0].device;
        for address in both {
            let status = machine.status(at(address)).expect("known");
            assert_eq!(status.broken.is_some(), at(address) == broken, "{address}");
            let expected = if at(address) == broken { TO_GUEST } else { Owner::Host };
            assert_eq!(status.status.owner, Some(expected), "{address}");
        }
        check(&machine);
    }
}

#[test]
fn a_deassign_whose_undo_fails_leaves_the_device_with_its_guest_broken() {
    let machine = assigned(&[NIC]);
    machine.platform().record(true);
    fail(&machine, Hook::Reset);
    failure(machine.deassign(&set(&[NIC]), TO_GUEST));
    let calls = machine.platform().take_journal();
    let reset = calls.iter().position(|call| call.hook == Hook::Reset).expect("reset");
    let reset = u64::try_from(reset).expect("few");
    for undo in 1..=3 {
        let machine = assigned(&[NIC]);
        machine.platform().fail_call(reset, Fault::Error(OUTAGE));
        machine.platform().fail_call(reset + undo, Fault::Error(OUTAGE));
        let failed = failure(machine.deassign(&set(&[NIC]), TO_GUEST));
        if failed.undo.is_empty() {
            assert_eq!(machine.platform().pending_faults(), 1, "there was no such call");
            continue;
        }
        let status = machine.status(at(NIC)).expect("known");
        assert_eq!((status.broken, status.status.owner), (Some(OUTAGE), Some(TO_GUEST)), "undo {undo}");
        assert_eq!(status.status.holders, [Holder::DmaOf(GUEST)]);
        assert_eq!(machine.platform().stopped().len(), 1);
        check(&machine);
    }
}
