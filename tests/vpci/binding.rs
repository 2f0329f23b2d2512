//! A function as what a transition binds: what it set up goes with it, and comes back if the transition fails.

use std::thread;

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::Width::Word;
use pcidevs::platform::{AttachmentKind, Fault, Hook, HookError};
use pcidevs::{Errno, Holder};

use crate::stage::{BAR0, COMMAND, FLR, MAPPED, MSIX, ROUTED, Stage, UNMAPPED, card, seen};

#[test]
fn each_live_vector_is_an_attachment() {
    let stage = Stage::new();
    stage.set_up();
    let kinds = || stage.machine.lock(card()).unwrap().attachments().collect::<Vec<_>>();
    assert_eq!(kinds(), [AttachmentKind::Vpci, AttachmentKind::MsiVector]);
    stage.write(MSIX, 0);
    assert_eq!(kinds(), [AttachmentKind::Vpci]);
}

#[test]
fn a_deassigned_device_reads_ones_and_nothing_of_it_is_left() {
    let stage = Stage::new();
    stage.set_up();
    stage.deassign().unwrap();
    assert_eq!(stage.story(), [UNMAPPED, "unroute 0"]);
    assert_eq!(stage.read(0), u32::MAX);
    assert!(stage.machine.lock(card()).unwrap().is_none(), "the function went with its binding");
    stage.machine.remove_device(card()).unwrap();
}

#[test]
fn a_deassign_that_fails_brings_back_all_that_the_guest_had() {
    let stage = Stage::new();
    stage.set_up();
    let before: Vec<u32> = (0..64).map(|dword| stage.read(dword * 4)).collect();
    stage.machine.platform().fail_next(Hook::Reset, Fault::Error(HookError::new(Errno::EIO, "no reset")));
    stage.deassign().unwrap_err();
    assert_eq!(stage.story(), [UNMAPPED, "unroute 0", MAPPED, ROUTED]);
    let after: Vec<u32> = (0..64).map(|dword| stage.read(dword * 4)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_guests_reset_makes_the_function_anew_under_the_claim() {
    let stage = Stage::new();
    stage.set_up();
    stage.write(FLR, 1);
    assert_eq!(stage.story(), ["reset", UNMAPPED, "unroute 0"]);
    assert_eq!(stage.read(BAR0), 4);
    assert_eq!(stage.read(COMMAND) & 0xffff, 0);
    stage.write(BAR0, 0xc000_0000);
    stage.write(COMMAND, 2);
    assert_eq!(stage.story(), [MAPPED], "and it works");
}

#[test]
fn while_an_effect_is_carried_out_a_removal_is_busy_and_says_with_what() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let writer = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let Err(TransitionError::Busy(_, busy)) = stage.machine.remove_device(card()) else {
            panic!("it is in use");
        };
        assert!(busy.holders.contains(&Holder::Named("vPCI effect")), "{busy:?}");
        assert_eq!(stage.read(COMMAND) & 2, 0, "decoding does not show before it is in effect");
        go_on.send(()).unwrap();
        writer.join().unwrap();
    });
    assert_eq!(stage.read(COMMAND) & 2, 2);
}

#[test]
fn a_deassign_waits_for_the_effect_under_way_and_undoes_it() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let writer = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let deassign = scope.spawn(|| stage.deassign());
        // It has begun when the guest reads ones.
        while stage.read(0) != u32::MAX {
            thread::yield_now();
        }
        assert!(!deassign.is_finished());
        go_on.send(()).unwrap();
        writer.join().unwrap();
        deassign.join().unwrap().unwrap();
    });
    assert_eq!(stage.story(), [MAPPED, UNMAPPED]);
}

#[test]
fn a_second_vcpu_waits_until_its_own_write_has_taken_effect() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let first = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let second = stage.bus.config_write(seen(), COMMAND, Word, 0);
        assert_eq!(format!("{second:?}"), "Pending");
        let second = scope.spawn(move || second.wait());
        go_on.send(()).unwrap();
        assert!(second.join().unwrap());
        first.join().unwrap();
    });
    assert_eq!(stage.story(), [MAPPED, UNMAPPED], "the last word is the last to be done");
    assert_eq!(stage.read(COMMAND) & 2, 0);
}

#[test]
fn a_device_reported_gone_while_it_is_mapped_leaves_nothing_mapped() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let writer = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let gone = scope.spawn(|| stage.machine.report_gone(card()));
        while stage.read(0) != u32::MAX {
            thread::yield_now();
        }
        go_on.send(()).unwrap();
        writer.join().unwrap();
        gone.join().unwrap().unwrap();
    });
    assert_eq!(stage.story(), [MAPPED, UNMAPPED]);
    assert!(stage.machine.get(card()).is_none());
}
