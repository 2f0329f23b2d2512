//! remove: exact. `Ok` means nobody can reach the function any more; `Busy` says who can; a failing teardown leaves
//! the device known and broken.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{AttachmentKind, Dma, Entry, Hook, Platform, Refusal, Rule, Width};
use pcidevs::{Errno, Holder, Owner, Transition};

use crate::bench::{IRQFD, SLOT};
use crate::scaffold::{
    COMMAND, GUEST, MASTER, OUTAGE, TO_GUEST, assigned, at, block_by_hand, busy, check, dump, empty, entry,
    errno, fail, failure, held_by, listed, machine, nic, owner, plug, plug_vf, port, set, while_it_hangs,
};

#[test]
fn remove_goes_vpci_off_msi_iommu_unlink() {
    let machine = empty();
    plug(&machine, "00:03.0", nic().phantom_bits(1));
    machine.platform().record(true);
    machine.platform().watch_config(true);
    machine.platform().config_write(at("00:03.0"), COMMAND, Width::Word, MASTER);
    machine.platform().take_journal();
    machine.remove_device(at("00:03.0")).expect("unused");
    let expected = [
        "permit 0000:00:03.0, remove to unowned",
        "undo vPCI of 0000:00:03.0",
        "config_write 0000:00:03.0, 0x4 = 0x2",
        "iommu_detach 0000:00:03.0 as 0000:00:03.0",
        "iommu_detach 0000:00:03.0 as 0000:00:03.4",
        "iommu_flush 0000:00:03.0",
    ];
    assert_eq!(machine.platform().story(), expected);
    assert!(machine.get(at("00:03.0")).is_none() && machine.lock(at("00:03.0")).is_err());
    assert!(machine.status(at("00:03.0")).is_none() && listed(&machine, Owner::Host).is_empty());
    assert_eq!(machine.platform().dma_raw(at("00:03.4")), Dma::NoEntry);
    check(&machine);
}

#[test]
fn remove_undoes_attachments_in_reverse_and_releases_the_msix_table() {
    let machine = machine(&["00:03.0"]);
    machine.msi_prepare(at("00:03.0")).expect("prepared");
    for kind in [IRQFD, SLOT] {
        let thing = machine.platform().thing(kind, at("00:03.0"));
        machine.lock(at("00:03.0")).expect("known").attach(thing).expect("registered");
    }
    machine.platform().record(true);
    machine.remove_device(at("00:03.0")).expect("attachments are no uses");
    let story = machine.platform().story();
    let expected = [
        "permit 0000:00:03.0, remove to unowned",
        "undo memory slot of 0000:00:03.0",
        "undo irqfd of 0000:00:03.0",
        "undo vPCI of 0000:00:03.0",
        "msix_release 0000:00:03.0",
        "iommu_detach 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
    ];
    assert_eq!(story, expected);
    assert!(!machine.platform().msix_prepared(at("00:03.0")));
    assert_eq!(machine.platform().things(), [""; 0]);
    check(&machine);
}

#[test]
fn remove_of_an_unknown_device_or_segment_is_enodev_and_creates_nothing() {
    let machine = machine(&["00:03.0"]);
    let before = dump(&machine);
    for address in ["00:04.0", "0001:00:00.0", "ffffffff:ff:1f.7"] {
        let refused = machine.remove_device(at(address));
        assert_eq!(refused, Err(TransitionError::NotFound(at(address))));
        assert_eq!(errno(refused), Errno::ENODEV);
    }
    assert_eq!(dump(&machine), before);
}

#[test]
fn remove_with_uses_is_busy_says_who_and_changes_nothing() {
    let machine = machine(&["00:03.0"]);
    let unnamed = machine.get(at("00:03.0")).expect("known");
    let named = machine.hold(at("00:03.0"), Holder::Named("dump")).expect("memory").expect("known");
    let before = dump(&machine);
    for _ in 0..2 {
        let refused = machine.remove_device(at("00:03.0"));
        assert_eq!(errno(refused.clone()), Errno::EBUSY);
        let busy = busy(refused);
        assert_eq!((busy.uses, busy.unnamed, busy.holders), (2, 1, vec![Holder::Named("dump")]));
        assert_eq!(dump(&machine), before);
    }
    drop((unnamed, named));
    machine.remove_device(at("00:03.0")).expect("unused");
}

#[test]
fn remove_of_a_device_of_a_guest_is_busy_assigned_to_the_domain() {
    let machine = assigned(&["00:03.0"]);
    let before = dump(&machine);
    held_by(machine.remove_device(at("00:03.0")), &[Holder::Domain(GUEST)]);
    assert_eq!(dump(&machine), before);
}

#[test]
fn remove_from_quarantine_works_and_of_a_hidden_device_is_eperm() {
    let machine = machine(&["00:03.0", "00:04.0"]);
    machine.quarantine(&set(&["00:03.0"])).expect("quarantined");
    machine.remove_device(at("00:03.0")).expect("unused");
    assert_eq!(entry(&machine, "00:03.0"), Entry::Absent);
    machine.hide(at("00:04.0"), Visibility::None).expect("unused");
    let before = dump(&machine);
    let refused = machine.remove_device(at("00:04.0"));
    assert_eq!(refused, Err(TransitionError::Hidden(at("00:04.0"))));
    assert_eq!(errno(refused), Errno::EPERM);
    assert_eq!(dump(&machine), before);
}

#[test]
fn remove_refused_by_policy_is_eperm() {
    let machine = machine(&["00:03.0"]);
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Remove));
    let before = dump(&machine);
    assert_eq!(errno(machine.remove_device(at("00:03.0"))), Errno::EPERM);
    assert_eq!(dump(&machine), before);
}

#[test]
fn remove_of_a_pf_with_vfs_names_each_vf() {
    let machine = machine(&["00:03.0"]);
    plug_vf(&machine, "00:03.2", "00:03.0");
    plug_vf(&machine, "00:03.1", "00:03.0");
    let refused = machine.remove_device(at("00:03.0"));
    assert_eq!(errno(refused.clone()), Errno::EBUSY);
    let mut holders = busy(refused).holders;
    holders.sort_by_key(ToString::to_string);
    assert_eq!(holders, [Holder::Vf(at("00:03.1")), Holder::Vf(at("00:03.2"))]);
    for address in ["00:03.1", "00:03.2", "00:03.0"] {
        machine.remove_device(at(address)).expect("unused by now");
    }
}

#[test]
fn remove_of_a_bridge_names_each_device_right_behind_it() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 2));
    plug(&machine, "01:00.0", port(2, 2));
    plug(&machine, "02:00.0", nic());
    held_by(machine.remove_device(at("00:01.0")), &[Holder::Child(at("01:00.0"))]);
    held_by(machine.remove_device(at("01:00.0")), &[Holder::Child(at("02:00.0"))]);
    for address in ["02:00.0", "01:00.0", "00:01.0"] {
        machine.remove_device(at(address)).expect("unused by now");
    }
}

#[test]
fn remove_during_a_transition_is_busy_with_its_name() {
    let machine = machine(&["00:03.0"]);
    let assigned = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&["00:03.0"]), GUEST),
        || {
            let busy = busy(machine.remove_device(at("00:03.0")));
            assert!(busy.holders.contains(&Holder::Transition(Transition::Assign)), "{busy}");
        },
    );
    assigned.expect("assigned");
    let remove = |hook| {
        let machine = crate::scaffold::machine(&["00:03.0"]);
        let removed = while_it_hangs(
            &machine,
            hook,
            || machine.remove_device(at("00:03.0")),
            || {
                assert!(machine.get(at("00:03.0")).is_none(), "closed");
                let refused = machine.remove_device(at("00:03.0"));
                let is_known = |error: &TransitionError| {
                    matches!(error, TransitionError::NotFound(_) | TransitionError::Busy(..))
                };
                assert!(refused.as_ref().is_err_and(is_known), "{refused:?}");
            },
        );
        removed.expect("removed");
    };
    [Hook::IommuDetach, Hook::IommuFlush].into_iter().for_each(remove);
}

#[test]
fn remove_by_the_thread_that_is_inside_the_device_would_deadlock() {
    let machine = machine(&["00:03.0"]);
    let inside = machine.lock(at("00:03.0")).expect("known");
    let refused = machine.remove_device(at("00:03.0"));
    assert!(matches!(refused, Err(TransitionError::WouldDeadlock(_))), "{refused:?}");
    assert_eq!(errno(refused), Errno::EDEADLK);
    drop(inside);
    machine.remove_device(at("00:03.0")).expect("unused");
}

#[test]
fn remove_whose_teardown_fails_leaves_the_device_known_and_broken() {
    for hook in [Hook::IommuDetach, Hook::IommuFlush] {
        let machine = machine(&["00:03.0", "00:04.0"]);
        fail(&machine, hook);
        let failed = failure(machine.remove_device(at("00:03.0")));
        assert_eq!((failed.device, failed.error), (at("00:03.0"), OUTAGE));
        let status = machine.status(at("00:03.0")).expect("known");
        assert_eq!((status.broken, status.status.owner), (Some(OUTAGE), Some(Owner::Host)), "{hook}");
        assert_eq!(status.attachments, [AttachmentKind::Vpci], "it has what it had");
        assert_eq!(machine.platform().views(at("00:03.0")), [Owner::Host]);
        let handle = machine.get(at("00:03.0")).expect("usable");
        drop(handle);
        let refused = machine.assign(&set(&["00:03.0"]), GUEST);
        assert_eq!(refused, Err(TransitionError::Broken { device: at("00:03.0"), because: OUTAGE }));
        assert_eq!(errno(refused), Errno::EBADF);
        machine.remove_device(at("00:03.0")).expect("it may be asked for again");
        assert_eq!(entry(&machine, "00:03.0"), Entry::Absent);
        plug(&machine, "00:03.0", nic());
        machine.assign(&set(&["00:03.0"]), GUEST).expect("remove and add have cleared it");
        check(&machine);
    }
}

#[test]
fn remove_of_a_broken_device_of_a_guest_is_busy_with_its_dma() {
    let machine = assigned(&["00:03.0"]);
    machine.report_flush_timeout(at("00:03.0")).expect("known");
    let refused = machine.remove_device(at("00:03.0"));
    assert_eq!(errno(refused.clone()), Errno::EBUSY);
    let holders = busy(refused).holders;
    assert_eq!(holders, [Holder::DmaOf(GUEST)]);
    block_by_hand(&machine, "00:03.0");
    machine.repair(at("00:03.0")).expect("blocked");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Quarantine));
    machine.remove_device(at("00:03.0")).expect("as any device in quarantine");
    check(&machine);
}

#[test]
fn remove_whose_attachment_cannot_be_undone_is_broken_with_the_reason() {
    let machine = machine(&["00:03.0"]);
    machine.platform().fail_call(1, pcidevs::platform::Fault::Error(OUTAGE));
    let failed = failure(machine.remove_device(at("00:03.0")));
    assert_eq!((failed.step, failed.error), ("undo attachment", OUTAGE));
    assert_eq!(machine.status(at("00:03.0")).expect("known").broken, Some(OUTAGE));
    machine.remove_device(at("00:03.0")).expect("asked for again");
    check(&machine);
}

#[test]
fn no_hook_is_called_for_a_device_that_was_removed() {
    let machine = machine(&["00:03.0"]);
    machine.remove_device(at("00:03.0")).expect("unused");
    machine.platform().record(true);
    let error: fn(_) -> Errno = errno::<()>;
    assert_eq!(error(machine.assign(&set(&["00:03.0"]), GUEST)), Errno::ENODEV);
    assert_eq!(error(machine.quarantine(&set(&["00:03.0"]))), Errno::ENODEV);
    assert_eq!(error(machine.deassign(&set(&["00:03.0"]), TO_GUEST)), Errno::ENODEV);
    assert_eq!(error(machine.repair(at("00:03.0"))), Errno::ENODEV);
    assert_eq!(error(machine.report_gone(at("00:03.0"))), Errno::ENODEV);
    assert_eq!(machine.platform().story(), [""; 0]);
}
