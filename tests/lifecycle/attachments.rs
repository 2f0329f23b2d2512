//! R11: attachments are registered under the claim or the device lock, undone in reverse order, and a failure to undo
//! one makes the device broken.

use pcidevs::lifecycle::AttachRefused;
use pcidevs::platform::{Attachment, AttachmentKind, Claimed, Fault, Hardware, Hook, HookError};
use pcidevs::{Errno, NoMemory, Owner};

use crate::bench::{IRQFD, SLOT, VECTOR};
use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, assigned, at, check, dump, fail, failure, listed, machine, owner, set,
    while_it_hangs,
};

const NIC: &str = "00:03.0";

fn register(machine: &Machine, kinds: &[usize]) {
    for kind in kinds {
        let thing = machine.platform().thing(*kind, at(NIC));
        machine.lock(at(NIC)).expect("known").attach(thing).expect("registered");
    }
}

fn kinds(machine: &Machine) -> Vec<AttachmentKind> {
    machine.lock(at(NIC)).expect("known").attachments().collect()
}

#[test]
fn r11_attachments_are_listed_and_are_no_uses() {
    let machine = machine(&[NIC]);
    register(&machine, &[IRQFD, VECTOR]);
    let status = machine.status(at(NIC)).expect("known");
    let expected = [AttachmentKind::Vpci, AttachmentKind::Other("irqfd"), AttachmentKind::MsiVector];
    assert_eq!((status.attachments.as_slice(), status.status.uses), (&expected[..], 0));
}

#[test]
fn r11_they_are_undone_in_reverse_order_by_deassign() {
    let machine = assigned(&[NIC]);
    register(&machine, &[IRQFD, SLOT, VECTOR]);
    machine.platform().record(true);
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    let story = machine.platform().story();
    let undone: Vec<_> = story.iter().filter(|line| line.starts_with("undo")).collect();
    let expected =
        ["MSI vector", "memory slot", "irqfd", "vPCI"].map(|kind| format!("undo {kind} of 0000:00:03.0"));
    assert_eq!(undone, expected.iter().collect::<Vec<_>>());
    assert_eq!(kinds(&machine), [AttachmentKind::Vpci], "the host's");
    check(&machine);
}

#[test]
fn r11_they_are_redone_in_order_when_the_transition_fails() {
    let machine = assigned(&[NIC]);
    register(&machine, &[IRQFD, SLOT]);
    let before = dump(&machine);
    machine.platform().record(true);
    fail(&machine, Hook::Reset);
    failure(machine.deassign(&set(&[NIC]), TO_GUEST));
    let story = machine.platform().story();
    let redone: Vec<_> = story.iter().filter(|line| line.starts_with("redo")).collect();
    let expected = ["vPCI", "irqfd", "memory slot"].map(|kind| format!("redo {kind} of 0000:00:03.0"));
    assert_eq!(redone, expected.iter().collect::<Vec<_>>());
    assert_eq!(dump(&machine), before);
}

#[test]
fn r11_none_is_registered_while_a_transition_has_the_device() {
    let machine = machine(&[NIC]);
    register(&machine, &[SLOT]);
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&[NIC]), GUEST),
        || {
            let thing = machine.platform().thing(IRQFD, at(NIC));
            let refused = machine.lock(at(NIC)).expect("known").attach(thing).expect_err("claimed");
            assert_eq!((refused.reason, refused.reason.errno()), (AttachRefused::Transition, Errno::EBUSY));
            assert_eq!(refused.attachment.kind(), AttachmentKind::Other("irqfd"), "it comes back");
            std::mem::forget(refused.attachment);
            let mut device = machine.lock(at(NIC)).expect("known");
            assert!(device.detach(|_| true).is_none());
            assert!(!device.is_settled_with(Owner::Host));
        },
    );
    done.expect("assigned");
    assert!(machine.lock(at(NIC)).expect("known").is_settled_with(TO_GUEST));
}

#[test]
fn r11_none_is_registered_with_a_broken_device() {
    let machine = assigned(&[NIC]);
    machine.report_flush_timeout(at(NIC)).expect("known");
    let thing = machine.platform().thing(IRQFD, at(NIC));
    let refused = machine.lock(at(NIC)).expect("known").attach(thing).expect_err("broken");
    assert_eq!((refused.reason, refused.reason.errno()), (AttachRefused::Broken, Errno::EBADF));
    assert_eq!(AttachRefused::NoMemory(NoMemory).errno(), Errno::ENOMEM);
    assert!(refused.to_string().contains("broken"), "{refused}");
}

#[test]
fn r11_detach_hands_back_what_was_registered_last_and_undoes_nothing() {
    let machine = machine(&[NIC]);
    register(&machine, &[IRQFD, SLOT, IRQFD]);
    let irqfd = AttachmentKind::Other("irqfd");
    machine.platform().record(true);
    let taken = machine.lock(at(NIC)).expect("known").detach(|thing| thing.kind() == irqfd).expect("there");
    assert_eq!(kinds(&machine), [AttachmentKind::Vpci, irqfd, AttachmentKind::Other("memory slot")]);
    assert_eq!(machine.platform().story(), [""; 0]);
    drop(taken);
    assert_eq!(machine.platform().lost(), 1, "it was the caller's to end");
    let mut device = machine.lock(at(NIC)).expect("known");
    assert!(device.detach(|thing| thing.kind() == AttachmentKind::MsiVector).is_none());
}

#[test]
fn r11_a_failure_to_undo_breaks_the_device_where_it_is() {
    for fault in [Fault::Error(OUTAGE), Fault::Panic] {
        let machine = assigned(&[NIC]);
        register(&machine, &[IRQFD]);
        machine.platform().fail_next(Hook::Facts, fault);
        let failed = failure(machine.deassign(&set(&[NIC]), TO_GUEST));
        assert_eq!((failed.step, failed.device), ("undo attachment", at(NIC)));
        let status = machine.status(at(NIC)).expect("known");
        assert_eq!(status.broken, Some(failed.error));
        assert_eq!(owner(&machine, NIC), Some(TO_GUEST), "listed under its DMA owner");
        assert_eq!(machine.platform().stopped().len(), 1);
        check(&machine);
    }
}

#[test]
fn r11_a_failure_to_undo_the_hosts_view_breaks_the_device_with_the_host() {
    let machine = machine(&[NIC]);
    fail(&machine, Hook::Facts);
    let failed = failure(machine.assign(&set(&[NIC]), GUEST));
    assert_eq!(failed.step, "undo attachment");
    assert_eq!(machine.status(at(NIC)).expect("known").broken, Some(OUTAGE));
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:03.0"]);
    assert!(machine.platform().stopped().is_empty(), "no guest is in danger");
    check(&machine);
}

/// What cannot be ended, and may know that trying has changed nothing.
struct Stubborn {
    is_intact: bool,
}

impl Attachment<u32> for Stubborn {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Other("stubborn")
    }

    fn undo(&mut self, _: &dyn Claimed<u32>, _: Hardware) -> Result<(), HookError> {
        Err(OUTAGE)
    }

    fn is_intact(&self) -> bool {
        self.is_intact
    }

    fn redo(&mut self, _: &dyn Claimed<u32>) -> Result<(), HookError> {
        unreachable!("it was never undone")
    }
}

#[test]
fn r11_a_failure_to_undo_what_is_intact_all_the_same_breaks_nothing() {
    for is_intact in [false, true] {
        let machine = assigned(&[NIC]);
        // Registered before, so undone after it, and redone.
        register(&machine, &[IRQFD]);
        machine.lock(at(NIC)).expect("known").attach(Box::new(Stubborn { is_intact })).expect("registered");
        register(&machine, &[SLOT]);
        let before = dump(&machine);
        let failed = failure(machine.deassign(&set(&[NIC]), TO_GUEST));
        assert_eq!((failed.step, failed.error, failed.undo.len()), ("undo attachment", OUTAGE, 0));
        let broken = machine.status(at(NIC)).expect("known").broken;
        assert_eq!(broken, (!is_intact).then_some(OUTAGE));
        assert_eq!(machine.platform().stopped().is_empty(), is_intact);
        if is_intact {
            assert_eq!(dump(&machine), before);
        }
        assert_eq!(kinds(&machine).len(), 4);
        check(&machine);
    }
}

#[test]
fn r11_a_failure_to_redo_breaks_the_device() {
    let machine = assigned(&[NIC]);
    register(&machine, &[IRQFD]);
    machine.platform().record(true);
    fail(&machine, Hook::Reset);
    failure(machine.deassign(&set(&[NIC]), TO_GUEST));
    let calls = machine.platform().take_journal();
    // The last call for an attachment: the redo of the one registered last.
    let redo = calls.iter().rposition(|call| call.hook == Hook::Facts).expect("redone");
    let reset = calls.iter().position(|call| call.hook == Hook::Reset).expect("reset");

    let machine = assigned(&[NIC]);
    register(&machine, &[IRQFD]);
    for call in [reset, redo] {
        machine.platform().fail_call(u64::try_from(call).expect("few"), Fault::Error(OUTAGE));
    }
    let failed = failure(machine.deassign(&set(&[NIC]), TO_GUEST));
    assert_eq!((failed.step, failed.undo.len(), failed.undo[0].step), ("reset", 1, "undo attachment"));
    assert_eq!(machine.status(at(NIC)).expect("known").broken, Some(OUTAGE));
    check(&machine);
    crate::scaffold::block_by_hand(&machine, NIC);
    machine.repair(at(NIC)).expect("what is in effect is undone");
    assert!(machine.platform().things().is_empty(), "{:?}", machine.platform().things());
    check(&machine);
}
