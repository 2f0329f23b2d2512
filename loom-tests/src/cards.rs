//! A card whose configuration space is modelled, with a guest: for what its vCPUs do while its owner changes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use pcidevs::lifecycle::{Device, DeviceInfo, Lifecycle, TransitionError};
use pcidevs::platform::{ConfigBytes, HookError, ResetKind, Simulated, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Endpoint, ExtendedRegisters, Function, Layout, MsixPlace, Piece,
    Signals, Target, VectorWork, Wiring,
};
use pcidevs::{Errno, Member, Owner, Sbdf};

use crate::checker;
use crate::checker::sync::atomic::AtomicUsize;
use crate::{GUEST, ONE};

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MSIX_CONTROL: u16 = 0x42;
/// Writing 1 resets the card.
pub const RESET: u16 = 0x50;
const MEMORY: u32 = 2;
const TABLE: u64 = 0x1000;
/// Where the BAR may be.
pub const PLACES: [u32; 2] = [0xc000_0000, 0xc100_0000];

/// A machine without hooks of its own.
pub type Machine = Simulated<Option<Function>>;
/// Its devices.
pub type Cards = Lifecycle<Machine>;
/// The guest's bus.
pub type CardBus = Bus<Device<Machine>, Cable>;

/// What is mapped and routed, as the embedder knows it.
#[derive(Default)]
struct Outside {
    /// Where the BAR is mapped; 0 if it is not.
    mapped: AtomicU32,
    /// Whether the vector is routed.
    routed: AtomicU32,
    machine: OnceLock<Cards>,
    /// Touched wherever another thread may run in between.
    time: AtomicUsize,
}

impl Outside {
    fn takes_time(&self) {
        self.time.fetch_add(1, Ordering::Relaxed);
    }
}

/// The embedder's side: every hook takes time.
#[derive(Clone, Default)]
pub struct Cable(Arc<Outside>);

impl Wiring for Cable {
    fn map(&self, _: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.0.takes_time();
        let before = self.0.mapped.swap(u32::try_from(piece.base).expect("32 bits"), Ordering::Relaxed);
        assert_eq!(before, 0, "mapped twice");
        self.0.takes_time();
        Ok(())
    }

    fn unmap(&self, _: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.0.takes_time();
        let before = self.0.mapped.swap(0, Ordering::Relaxed);
        assert_eq!(u64::from(before), piece.base, "unmapped elsewhere than it was mapped");
        self.0.takes_time();
        Ok(())
    }

    fn vector(&self, _: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        self.0.takes_time();
        assert_eq!(vector, 0);
        let routed = matches!(work, VectorWork::Route(_));
        let before = self.0.routed.swap(routed.into(), Ordering::Relaxed);
        assert!(routed || before == 1, "unrouted, and was not routed");
        self.0.takes_time();
        Ok(())
    }

    fn reset(&self, target: Target) -> Result<(), HookError> {
        self.0.takes_time();
        let machine = self.0.machine.get().expect("set up");
        // Another transition may have it; then the guest was not served, and asks again.
        machine.reset(target.device, ResetKind::Flr).map_err(|_| HookError::new(Errno::EBUSY, "not now"))
    }

    fn failed(&self, target: Target, error: HookError) {
        assert_eq!(error.errno(), Errno::EBUSY, "{target:?}: {error}");
    }

    fn relax(&self) {
        checker::thread::yield_now();
    }
}

struct Card;

impl Backing for Card {
    fn bar_read(&mut self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

fn card() -> Function {
    Endpoint::new(1, 2)
        .bar(0, Bar::memory32(0x2000).direct())
        .msix(1, MsixPlace { table_bar: 0, table: 0x1000, pending_bar: 0, pending: 0x1800 })
        .function_level_reset()
        .build(Card)
        .expect("correct")
}

/// A machine with one card, and a guest that has it.
pub struct World {
    /// The life of the card.
    pub machine: Cards,
    /// The guest's bus.
    pub bus: CardBus,
    cable: Cable,
}

impl World {
    /// The guest has the card.
    pub fn begin() -> Arc<Self> {
        let platform = Machine::new();
        platform.plug(ONE, ConfigBytes::endpoint(1, 2).express().flr());
        let bus: Arc<OnceLock<CardBus>> = Arc::default();
        let in_bind = bus.clone();
        platform.on_bind(move |device, owner| match in_bind.get() {
            Some(bus) if owner == Owner::Guest(GUEST) => {
                let no_memory = |_| HookError::new(Errno::ENOMEM, "no memory for the function");
                bus.bind(device, card()).map(Some).map_err(no_memory)
            }
            _ => Ok(None),
        });
        let machine = Lifecycle::new(platform).expect("memory");
        let domain = machine.create_domain(GUEST).expect("created");
        let cable = Cable::default();
        let bars = BarMap::new(&[AddressRange::memory(0xc000_0000..=0xcfff_ffff)], &[]).expect("memory");
        let layout = Layout { ecam: &[], extended: ExtendedRegisters::Absent, bars };
        let made = Bus::new(domain, cable.clone(), layout).expect("memory");
        bus.set(made.clone()).expect("once");
        cable.0.machine.set(machine.clone()).ok().expect("once");
        machine.add(ONE, DeviceInfo::default(), None).expect("added");
        let world = Arc::new(Self { machine, bus: made, cable });
        world.assign().expect("assigned");
        world
    }

    /// The guest gets it.
    pub fn assign(&self) -> Result<(), TransitionError> {
        self.machine.assign(&[Member::at(ONE, ONE)], GUEST)
    }

    /// The host gets it back.
    pub fn deassign(&self) -> Result<(), TransitionError> {
        self.machine.deassign(&[Member::new(ONE)], Owner::Guest(GUEST))
    }

    /// Writes a register, and waits until that is in effect.
    pub fn write(&self, offset: u16, width: Width, value: u32) {
        assert!(self.bus.config_write(ONE, offset, width, value).wait());
    }

    /// A vCPU that puts the BAR somewhere and switches decoding.
    pub fn program(&self, base: u32) {
        self.write(BAR0, Width::Dword, base);
        self.write(COMMAND, Width::Byte, MEMORY);
        self.write(COMMAND, Width::Byte, 0);
        self.write(COMMAND, Width::Byte, MEMORY);
    }

    /// A vCPU that switches its vector on and off.
    pub fn interrupt(&self) {
        for (offset, value) in [(0, 0xfee0_0000_u32), (12, 0)] {
            assert!(self.bus.bar_write(ONE, 0, TABLE + offset, &value.to_le_bytes()).wait());
        }
        self.write(MSIX_CONTROL, Width::Word, 1 << 15);
        self.write(MSIX_CONTROL, Width::Word, 0);
        self.write(MSIX_CONTROL, Width::Word, 1 << 15);
    }

    /// When all is quiet the outside is what the guest reads.
    pub fn settled(&self) {
        let command = self.bus.config_read(ONE, COMMAND, Width::Byte);
        let mapped = self.cable.0.mapped.load(Ordering::Relaxed);
        let routed = self.cable.0.routed.load(Ordering::Relaxed);
        if command == 0xff {
            assert_eq!((mapped, routed), (0, 0), "nobody has it, and something of it is left");
            return;
        }
        // A card that came back has its BAR at 0 at first, where no window is.
        let place = self.bus.config_read(ONE, BAR0, Width::Dword);
        let wanted = if command & MEMORY == 0 || place == 0 { 0 } else { place };
        assert_eq!(mapped, wanted, "what shows is what is, and where the register says");
        let enabled = self.bus.config_read(ONE, MSIX_CONTROL, Width::Word) >> 15 == 1;
        let mut mask = [0; 4];
        self.bus.bar_read(ONE, 0, TABLE + 12, &mut mask);
        assert_eq!(enabled && mask == [0; 4], routed == 1);
    }
}
