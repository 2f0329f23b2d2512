//! A function as what a transition binds: what it set up goes with it, and comes back if the transition fails.

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;

use pcidevs::lifecycle::{Device, DeviceInfo, Lifecycle, TransitionError};
use pcidevs::platform::Width::{Dword, Word};
use pcidevs::platform::{AttachmentKind, ConfigBytes, Fault, Hook, HookError, ResetKind, Simulated};
use pcidevs::vpci::{
    AddressRange, BarMap, Bus, ExtendedRegisters, Function, Layout, Level, Piece, Target, VectorWork, Wiring,
};
use pcidevs::{DomainId, Errno, Holder, Member, Owner, Sbdf};

use crate::guest::{Memory, Recorder, WINDOW, nic};

type Machine = Simulated<Option<Function>>;
type Cards = Lifecycle<Machine>;
type CardBus = Bus<Device<Machine>, Cable>;

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MSIX: u16 = 0x40;
const GUEST: DomainId = DomainId::new(1);

/// A wiring that resets through the life cycle, and stops in `map` where a test says so.
#[derive(Clone, Default)]
struct Cable {
    notes: Recorder,
    machine: Arc<OnceLock<Cards>>,
    gate: Arc<Mutex<Option<Gate>>>,
}

/// Who stops at it says so, and waits until it is told to go on.
struct Gate {
    arrived: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl Wiring for Cable {
    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.arrived.send(()).unwrap();
            gate.go.recv().unwrap();
        }
        self.notes.map(device, piece)
    }

    fn unmap(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.notes.unmap(device, piece)
    }

    fn vector(&self, target: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        self.notes.vector(target, vector, work)
    }

    fn intx(&self, target: Target, level: Level) -> Result<(), HookError> {
        self.notes.intx(target, level)
    }

    fn reset(&self, target: Target) -> Result<(), HookError> {
        self.notes.reset(target)?;
        let machine = self.machine.get().unwrap();
        machine.reset(target.device, ResetKind::Flr).map_err(|_| HookError::new(Errno::EBUSY, "not now"))
    }
}

/// A machine with one card, which its guest sees at 00:03.0.
struct Stage {
    machine: Cards,
    bus: CardBus,
    cable: Cable,
}

fn card() -> Sbdf {
    "03:00.0".parse().unwrap()
}

fn seen() -> Sbdf {
    "00:03.0".parse().unwrap()
}

impl Stage {
    fn new() -> Self {
        let platform = Machine::new();
        platform.plug(card(), ConfigBytes::endpoint(0x8086, 0x10d3).express().flr());
        let bus: Arc<OnceLock<CardBus>> = Arc::default();
        let in_bind = bus.clone();
        platform.on_bind(move |device, owner| {
            if owner != Owner::Guest(GUEST) {
                return Ok(None);
            }
            let function =
                nic().function_level_reset().build(Memory::new(0x4000)).map_err(|_| NO_FUNCTION)?;
            in_bind.get().unwrap().bind(device, function).map(Some).map_err(|_| NO_FUNCTION)
        });
        let machine = Lifecycle::new(platform).unwrap();
        let domain = machine.create_domain(GUEST).unwrap();
        let cable = Cable::default();
        let layout = Layout {
            ecam: &[],
            extended: ExtendedRegisters::Absent,
            bars: BarMap::new(&[AddressRange::memory(WINDOW)], &[]).unwrap(),
        };
        bus.set(Bus::new(domain, cable.clone(), layout).unwrap()).unwrap();
        cable.machine.set(machine.clone()).ok().unwrap();
        machine.add(card(), DeviceInfo::default(), None).unwrap();
        machine.assign(&[Member::at(card(), seen())], GUEST).unwrap();
        let bus = bus.get().unwrap().clone();
        Self { machine, bus, cable }
    }

    /// The guest maps the BAR, and programs and enables a vector.
    fn set_up(&self) {
        self.write(BAR0, 0xc000_0000);
        self.write(COMMAND, 0x6);
        for (offset, value) in [(0, 0xfee0_0000_u32), (8, 7), (12, 0)] {
            assert!(self.bus.bar_write(seen(), 0, 0x2000 + offset, &value.to_le_bytes()).wait());
        }
        self.write(MSIX, 1 << 31);
        assert_eq!(self.story(), [MAPPED, ROUTED]);
    }

    fn write(&self, offset: u16, value: u32) {
        assert!(self.bus.config_write(seen(), offset, Dword, value).wait());
    }

    fn read(&self, offset: u16) -> u32 {
        self.bus.config_read(seen(), offset, Dword)
    }

    fn story(&self) -> Vec<String> {
        self.cable.notes.story()
    }

    /// The next map waits: returns what tells that it is there, and what lets it go on.
    fn stop_maps(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (arrived, is_there) = mpsc::channel();
        let (go_on, go) = mpsc::channel();
        *self.cable.gate.lock().unwrap() = Some(Gate { arrived, go });
        (is_there, go_on)
    }
}

const NO_FUNCTION: HookError = HookError::new(Errno::ENOMEM, "no memory for the function");
const MAPPED: &str = "map 0000:03:00.0.0 +0x0 at 0xc0000000 for 0x2000";
const UNMAPPED: &str = "unmap 0000:03:00.0.0 +0x0 at 0xc0000000 for 0x2000";
const ROUTED: &str = "route 0 to 0xfee00000 0x7";

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
    stage.machine.deassign(&[Member::new(card())], Owner::Guest(GUEST)).unwrap();
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
    stage.machine.deassign(&[Member::new(card())], Owner::Guest(GUEST)).unwrap_err();
    assert_eq!(stage.story(), [UNMAPPED, "unroute 0", MAPPED, ROUTED]);
    let after: Vec<u32> = (0..64).map(|dword| stage.read(dword * 4)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_guests_reset_makes_the_function_anew_under_the_claim() {
    let stage = Stage::new();
    stage.set_up();
    // Advanced Features, behind MSI-X.
    stage.write(0x50, 1);
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
    let (is_there, go_on) = stage.stop_maps();
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
    let (is_there, go_on) = stage.stop_maps();
    thread::scope(|scope| {
        let writer = scope.spawn(|| stage.write(COMMAND, 2));
        is_there.recv().unwrap();
        let deassign = scope.spawn(|| stage.machine.deassign(&[Member::new(card())], Owner::Guest(GUEST)));
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
    let (is_there, go_on) = stage.stop_maps();
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
    let (is_there, go_on) = stage.stop_maps();
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
