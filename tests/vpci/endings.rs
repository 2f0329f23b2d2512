//! The end of a binding, and resets, while something else is under way.

use std::thread;

use pcidevs::Errno;
use pcidevs::device::PortType;
use pcidevs::platform::Width::{Dword, Word};
use pcidevs::platform::{Fault, Hook, HookError};
use pcidevs::vpci::{Endpoint, PassThrough, Viewer};

use crate::guest::{Memory, nic};
use crate::hardware::Hardware;
use crate::recordings::Config;
use crate::stage::{BAR0, COMMAND, FLR, MAPPED, ROUTED, Stage, UNMAPPED, card, seen};

fn fail_the_next_reset(stage: &Stage) {
    let error = HookError::new(Errno::EIO, "no reset");
    stage.machine.platform().fail_next(Hook::Reset, Fault::Error(error));
}

/// The wiring's reset is nothing; the bus does the rest.
fn resets_by_itself(stage: &Stage) {
    *stage.cable.resets.lock().unwrap() = Some(Box::new(|_| Ok(())));
}

#[test]
fn what_waited_when_a_binding_ended_is_carried_out_when_it_comes_back() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let first = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let second = stage.ask(COMMAND, 2 | 4);
        fail_the_next_reset(&stage);
        let deassign = scope.spawn(|| stage.deassign());
        while stage.read(0) != u32::MAX {
            thread::yield_now();
        }
        go_on.send(()).unwrap();
        first.join().unwrap();
        deassign.join().unwrap().unwrap_err();
        assert!(second.wait());
    });
    let story = stage.story();
    assert_eq!(story, [MAPPED, UNMAPPED, MAPPED, "bus master On"], "bus mastering was not told before");
}

#[test]
fn a_poisoned_function_comes_back_poisoned() {
    let stage = Stage::new();
    assert!(stage.bus.bar_write(seen(), 0, 3, &[1]).wait());
    assert_eq!(stage.read(0), u32::MAX);
    fail_the_next_reset(&stage);
    stage.deassign().unwrap_err();
    assert_eq!(stage.read(0), u32::MAX, "what a handler left half done does not answer");
}

#[test]
fn the_end_of_a_binding_names_the_guests_address_though_no_bar_was_ever_mapped() {
    let stage = Stage::new();
    stage.program_a_vector();
    stage.deassign().unwrap();
    assert_eq!(stage.story(), [ROUTED, "unroute 0"]);
    let targets = stage.cable.targets.lock().unwrap();
    assert!(targets.iter().all(|target| (target.device, target.seen_at) == (card(), seen())), "{targets:?}");
}

#[test]
fn a_function_made_anew_by_a_reset_has_one_executor() {
    let stage = Stage::new();
    stage.set_up();
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let (reset_done, reset_is_done) = std::sync::mpsc::channel();
        let (goes_on, go) = std::sync::mpsc::channel();
        *stage.cable.resets.lock().unwrap() = Some(Box::new(move |machine| {
            let done = machine.reset(card(), pcidevs::platform::ResetKind::Flr);
            reset_done.send(()).unwrap();
            go.recv().unwrap();
            done.map_err(|_| HookError::new(Errno::EBUSY, "not now"))
        }));
        let reset = scope.spawn(|| stage.write(FLR, 1));
        reset_is_done.recv().unwrap();
        stage.write(BAR0, 0xc000_0000);
        // An effect of the new function, while the reset of the old one is about to end.
        let first = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        goes_on.send(()).unwrap();
        reset.join().unwrap();
        let second = stage.ask(COMMAND, 0);
        assert_eq!(format!("{second:?}"), "Pending", "the first is still at it");
        go_on.send(()).unwrap();
        first.join().unwrap();
        assert!(second.wait());
    });
    assert_eq!(stage.story(), ["reset", UNMAPPED, "unroute 0", MAPPED, UNMAPPED]);
    assert_eq!(stage.read(COMMAND) & 2, 0);
}

#[test]
fn a_reset_does_not_bring_back_a_function_whose_binding_is_ending() {
    let stage = Stage::new();
    stage.set_up();
    resets_by_itself(&stage);
    let (in_reset, end_reset) = stage.stop("reset");
    let (in_unroute, end_unroute) = stage.stop("unroute");
    thread::scope(|scope| {
        let reset = scope.spawn(|| stage.write(FLR, 1));
        in_reset.recv().unwrap();
        let deassign = scope.spawn(|| stage.deassign());
        in_unroute.recv().unwrap();
        end_reset.send(()).unwrap();
        reset.join().unwrap();
        assert_eq!(stage.read(0), u32::MAX);
        let own = stage.machine.lock(card()).unwrap().as_mut().unwrap().config_read(0, Dword);
        assert_eq!(own, u32::MAX, "whoever asks");
        stage.write(BAR0, 0xc000_0000);
        stage.write(COMMAND, 2);
        end_unroute.send(()).unwrap();
        deassign.join().unwrap().unwrap();
    });
    assert_eq!(stage.story(), ["reset", UNMAPPED, "unroute 0"], "and nothing is mapped again");
}

#[test]
fn while_a_reset_is_under_way_accesses_read_ones_and_write_nothing() {
    for by_itself in [false, true] {
        let stage = Stage::new();
        stage.set_up();
        if by_itself {
            resets_by_itself(&stage);
        }
        let (in_reset, end_reset) = stage.stop("reset");
        thread::scope(|scope| {
            let reset = scope.spawn(|| stage.write(FLR, 1));
            in_reset.recv().unwrap();
            assert_eq!(stage.read(0), u32::MAX);
            let mut data = [0; 4];
            stage.bus.bar_read(seen(), 0, 0, &mut data);
            assert_eq!(data, [0xff; 4]);
            stage.write(0x3c, 5);
            end_reset.send(()).unwrap();
            reset.join().unwrap();
        });
        assert_eq!([BAR0, COMMAND, 0x3c].map(|at| stage.read(at)), [4, 0x0010_0000, 0x100]);
    }
}

#[test]
fn a_hot_reset_by_the_host_brings_registers_back_and_waiting_accesses_read_ones() {
    let stage = Stage::new();
    stage.set_up();
    let platform = stage.machine.platform();
    platform.fail_next(Hook::Reset, Fault::Hang);
    thread::scope(|scope| {
        let reset = scope.spawn(|| stage.machine.reset(card(), pcidevs::platform::ResetKind::Hot));
        platform.wait_for_hangs(1);
        assert_eq!(stage.read(0), u32::MAX);
        stage.write(BAR0, 0xc100_0000);
        platform.release_hangs();
        reset.join().unwrap().unwrap();
    });
    assert_eq!(stage.story(), [UNMAPPED, "unroute 0"]);
    assert_eq!([BAR0, COMMAND].map(|at| stage.read(at)), [4, 0x0010_0000]);
}

#[test]
fn the_end_of_a_binding_waits_for_what_a_reset_takes_back() {
    let stage = Stage::new();
    stage.set_up();
    resets_by_itself(&stage);
    let (in_unroute, end_unroute) = stage.stop("unroute");
    thread::scope(|scope| {
        let reset = scope.spawn(|| stage.write(FLR, 1));
        in_unroute.recv().unwrap();
        let deassign = scope.spawn(|| stage.deassign());
        for _ in 0..10_000 {
            thread::yield_now();
        }
        assert!(!deassign.is_finished(), "a vector is routed still");
        end_unroute.send(()).unwrap();
        reset.join().unwrap();
        deassign.join().unwrap().unwrap();
    });
    assert_eq!(stage.story(), ["reset", UNMAPPED, "unroute 0"]);
}

#[test]
fn a_function_that_was_away_when_its_reset_ended_is_reset_when_it_comes_back() {
    let stage = Stage::new();
    stage.set_up();
    resets_by_itself(&stage);
    let (in_reset, end_reset) = stage.stop("reset");
    let platform = stage.machine.platform();
    platform.fail_next(Hook::Reset, Fault::Hang);
    thread::scope(|scope| {
        let reset = scope.spawn(|| stage.write(FLR, 1));
        in_reset.recv().unwrap();
        let deassign = scope.spawn(|| stage.deassign());
        platform.wait_for_hangs(1);
        end_reset.send(()).unwrap();
        reset.join().unwrap();
        platform.fail_next(Hook::IommuAttach, Fault::Error(HookError::new(Errno::EIO, "not there")));
        platform.release_hangs();
        deassign.join().unwrap().unwrap_err();
    });
    platform.clear_faults();
    assert_eq!(stage.story(), ["reset", UNMAPPED, "unroute 0", "reset"]);
    assert_eq!(stage.read(BAR0), 4, "as after a reset");
    stage.write(BAR0, 0xc000_0000);
    stage.write(COMMAND, 2);
    assert_eq!(stage.story(), [MAPPED], "and it works");
}

#[test]
fn what_the_end_of_a_binding_could_not_take_back_it_takes_back_when_it_is_tried_again() {
    let stage = Stage::new();
    stage.set_up();
    stage.cable.notes.fail("unroute");
    let _failed = stage.machine.report_gone(card());
    assert_eq!(stage.story(), [UNMAPPED, "unroute 0"]);
    stage.machine.run_deferred();
    assert_eq!(stage.story(), ["unroute 0"], "tried again");
    stage.cable.notes.fail(None);
    stage.machine.run_deferred();
    assert_eq!(stage.story(), ["unroute 0"]);
    stage.machine.run_deferred();
    assert!(stage.story().is_empty());
}

#[test]
fn hardware_that_is_gone_is_not_touched() {
    let config = Config::endpoint(256).with32(BAR0.into(), 0xfe00_0000);
    let hardware = Hardware::new(&config).bar(BAR0, 0x2000);
    let card_is = hardware.clone();
    let stage = Stage::with(move || PassThrough::new(Viewer::Guest).build(card_is.clone()).ok());
    stage.write(BAR0, 0xc000_0000);
    stage.write(COMMAND, 2);
    assert_eq!(stage.story(), [MAPPED]);
    hardware.story();
    stage.machine.report_gone(card()).unwrap();
    assert_eq!(stage.story(), [UNMAPPED]);
    assert!(hardware.story().is_empty());
}

#[test]
fn behind_a_port_that_was_taken_away_nothing_is_found() {
    let stage = Stage::with(|| Endpoint::port(1, 2, PortType::RootPort).build(Memory::new(0)).ok());
    stage.bus.add_port(seen(), pcidevs::address::Bus::new(0x7f)).unwrap();
    let behind = "04:00.0".parse().unwrap();
    let platform = stage.machine.platform();
    platform.plug(behind, pcidevs::platform::ConfigBytes::endpoint(1, 3));
    stage.machine.add(behind, pcidevs::lifecycle::DeviceInfo::default(), None).unwrap();
    let at = pcidevs::Member::at(behind, "7f:00.0".parse().unwrap());
    stage.machine.assign(&[at], crate::stage::GUEST).unwrap();
    stage.write(0x18, 0x0005_0300);
    let mut vcpu = stage.bus.vcpu();
    assert!(vcpu.io_write(0xcf8, &0x8003_0000_u32.to_le_bytes()).wait());
    let mut id = || {
        let mut data = [0; 4];
        assert!(vcpu.io_read(0xcfc, &mut data));
        u32::from_le_bytes(data)
    };
    assert_eq!(id(), 0x0002_0001);
    fail_the_next_reset(&stage);
    stage.deassign().unwrap_err();
    assert_eq!(id(), 0x0002_0001, "it has come back, and what is behind it");
    stage.deassign().unwrap();
    assert_eq!(id(), u32::MAX);
}

#[test]
fn a_second_vcpu_that_writes_the_same_waits_for_it_as_well() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    thread::scope(|scope| {
        let first = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let second = stage.bus.config_write(seen(), COMMAND, Word, 2);
        assert_eq!(format!("{second:?}"), "Pending", "nothing is decoded yet");
        go_on.send(()).unwrap();
        first.join().unwrap();
        assert!(second.wait());
    });
    assert_eq!(stage.story(), [MAPPED]);
}

#[test]
fn a_reset_that_waits_is_saved() {
    let stage = Stage::new();
    stage.write(BAR0, 0xc000_0000);
    let (is_there, go_on) = stage.stop("map");
    let state = thread::scope(|scope| {
        let first = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let _reset = stage.ask(FLR, 1);
        let state = stage.machine.lock(card()).unwrap().as_ref().unwrap().save().unwrap();
        go_on.send(()).unwrap();
        first.join().unwrap();
        state
    });
    let other = crate::guest::Guest::new();
    let at = other.plug("00:03.0", nic().function_level_reset().build(Memory::new(0x4000)).unwrap());
    assert!(other.bus.restore(at, &state).unwrap().wait());
    assert!(other.wiring.story().contains(&"reset".into()));
    assert_eq!(other.read(at, BAR0, Dword), 4);
}
