//! A machine with one card that a guest has, as the life cycle binds it; what its bus does outside can be stopped.

use std::sync::{Arc, Mutex, OnceLock, mpsc};

use pcidevs::lifecycle::{Device, DeviceInfo, Lifecycle, TransitionError};
use pcidevs::platform::Width::Dword;
use pcidevs::platform::{ConfigBytes, HookError, ResetKind, Simulated, Switch};
use pcidevs::vpci::{
    AddressRange, BarMap, Bus, ExtendedRegisters, Function, Layout, Level, Piece, Target, VectorWork, Wiring,
    Written,
};
use pcidevs::{DomainId, Errno, Member, Owner, Sbdf};

use crate::guest::{Memory, Recorder, WINDOW, nic};

type Machine = Simulated<Option<Function>>;
type Cards = Lifecycle<Machine>;
pub(crate) type CardBus = Bus<Device<Machine>, Cable>;

pub(crate) const COMMAND: u16 = 4;
pub(crate) const BAR0: u16 = 0x10;
pub(crate) const MSIX: u16 = 0x40;
/// Asks for a function-level reset: Advanced Features, behind MSI-X.
pub(crate) const FLR: u16 = 0x50;
pub(crate) const GUEST: DomainId = DomainId::new(1);

/// A wiring that stops at what a test names.
#[derive(Clone, Default)]
pub(crate) struct Cable {
    pub(crate) notes: Recorder,
    machine: Arc<OnceLock<Cards>>,
    gates: Arc<Mutex<Vec<Gate>>>,
    /// Who was meant by the hooks for vectors.
    pub(crate) targets: Arc<Mutex<Vec<Target>>>,
    /// What a reset does besides; without it it is the life cycle's.
    pub(crate) resets: Arc<Mutex<Option<Resets>>>,
}

type Resets = Box<dyn FnMut(&Cards) -> Result<(), HookError> + Send>;

/// Who stops at it says so, and waits until it is told to go on.
struct Gate {
    hook: &'static str,
    arrived: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl Cable {
    fn stop(&self, hook: &str) {
        let gate = {
            let mut gates = self.gates.lock().unwrap();
            gates.iter().position(|gate| gate.hook == hook).map(|place| gates.remove(place))
        };
        if let Some(gate) = gate {
            gate.arrived.send(()).unwrap();
            gate.go.recv().unwrap();
        }
    }
}

impl Wiring for Cable {
    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.stop("map");
        self.notes.map(device, piece)
    }

    fn unmap(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.stop("unmap");
        self.notes.unmap(device, piece)
    }

    fn vector(&self, target: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        self.stop(if work == VectorWork::Unroute { "unroute" } else { "route" });
        self.targets.lock().unwrap().push(target);
        self.notes.vector(target, vector, work)
    }

    fn intx(&self, target: Target, level: Level) -> Result<(), HookError> {
        self.notes.intx(target, level)
    }

    fn bus_master(&self, target: Target, to: Switch) -> Result<(), HookError> {
        self.notes.bus_master(target, to)
    }

    fn reset(&self, target: Target) -> Result<(), HookError> {
        self.notes.reset(target)?;
        self.stop("reset");
        let machine = self.machine.get().unwrap();
        if let Some(resets) = &mut *self.resets.lock().unwrap() {
            return resets(machine);
        }
        machine.reset(target.device, ResetKind::Flr).map_err(|_| HookError::new(Errno::EBUSY, "not now"))
    }

    fn failed(&self, target: Target, error: HookError) {
        self.notes.failed(target, error);
    }
}

/// A machine with one card, which its guest sees at 00:03.0.
pub(crate) struct Stage {
    pub(crate) machine: Cards,
    pub(crate) bus: CardBus,
    pub(crate) cable: Cable,
}

pub(crate) fn card() -> Sbdf {
    "03:00.0".parse().unwrap()
}

pub(crate) fn seen() -> Sbdf {
    "00:03.0".parse().unwrap()
}

impl Stage {
    /// The card is a network card that can be reset.
    pub(crate) fn new() -> Self {
        Self::with(|| nic().function_level_reset().build(Memory::new(0x4000)).ok())
    }

    /// The card is this.
    pub(crate) fn with(build: impl Fn() -> Option<Function> + Send + Sync + 'static) -> Self {
        let platform = Machine::new();
        platform.plug(card(), ConfigBytes::endpoint(0x8086, 0x10d3).express().flr());
        let bus: Arc<OnceLock<CardBus>> = Arc::default();
        let in_bind = bus.clone();
        platform.on_bind(move |device, owner| {
            if owner != Owner::Guest(GUEST) {
                return Ok(None);
            }
            let function = build().ok_or(NO_FUNCTION)?;
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
    pub(crate) fn set_up(&self) {
        self.write(BAR0, 0xc000_0000);
        self.write(COMMAND, 0x2);
        self.program_a_vector();
        assert_eq!(self.story(), [MAPPED, ROUTED]);
    }

    pub(crate) fn program_a_vector(&self) {
        for (offset, value) in [(0, 0xfee0_0000_u32), (8, 7), (12, 0)] {
            assert!(self.bus.bar_write(seen(), 0, 0x2000 + offset, &value.to_le_bytes()).wait());
        }
        self.write(MSIX, 1 << 31);
    }

    pub(crate) fn ask(
        &self,
        offset: u16,
        value: u32,
    ) -> Written<Device<Machine>, Cable, pcidevs::DefaultLock> {
        self.bus.config_write(seen(), offset, Dword, value)
    }

    pub(crate) fn write(&self, offset: u16, value: u32) {
        assert!(self.ask(offset, value).wait());
    }

    pub(crate) fn read(&self, offset: u16) -> u32 {
        self.bus.config_read(seen(), offset, Dword)
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.cable.notes.story()
    }

    pub(crate) fn deassign(&self) -> Result<(), TransitionError> {
        self.machine.deassign(&[Member::new(card())], Owner::Guest(GUEST))
    }

    /// The next of these hooks waits: returns what tells that it is there, and what lets it go on.
    pub(crate) fn stop(&self, hook: &'static str) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (arrived, is_there) = mpsc::channel();
        let (go_on, go) = mpsc::channel();
        self.cable.gates.lock().unwrap().push(Gate { hook, arrived, go });
        (is_there, go_on)
    }
}

const NO_FUNCTION: HookError = HookError::new(Errno::ENOMEM, "no memory for the function");
pub(crate) const MAPPED: &str = "map 0000:03:00.0.0 +0x0 at 0xc0000000 for 0x2000";
pub(crate) const UNMAPPED: &str = "unmap 0000:03:00.0.0 +0x0 at 0xc0000000 for 0x2000";
pub(crate) const ROUTED: &str = "route 0 to 0xfee00000 0x7";
