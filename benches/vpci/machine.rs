//! A guest with devices behind a bus, as a VMM puts it together.

use std::time::{Duration, Instant};

use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::platform::{HookError, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Ecam, Endpoint, ExtendedRegisters, Function, Layout, Signals,
    Target, Vcpu, VectorWork, Wiring,
};
use pcidevs::{Domain, DomainId, Member, Owner, Registry, Sbdf};

use crate::measuring::allocation::bytes_kept;
use crate::measuring::requirement::Bytes;

pub(crate) const ECAM: u64 = 0xb000_0000;
const WINDOW: std::ops::RangeInclusive<u64> = 0xc000_0000..=0xdfff_ffff;
const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BAR0: u16 = 0x10;

/// With four BARs each, 64 ranges of addresses.
const DEVICES: u16 = 16;
const BARS: u8 = 4;
/// So many of the devices are accessed: every other one, and not the last.
pub(crate) const ACCESSED: u16 = 8;
/// The device whose handler can be slow.
pub(crate) const SLOW: u16 = DEVICES - 1;
const SLOWNESS: Duration = Duration::from_micros(5);

pub(crate) type GuestBus = Bus<Option<Function>, Nothing>;
pub(crate) type GuestVcpu = Vcpu<Option<Function>, Nothing>;

/// A machine that has nothing to do for its devices.
pub(crate) struct Nothing;

impl Wiring for Nothing {
    fn vector(&self, _: Target, _: u16, _: VectorWork) -> Result<(), HookError> {
        Ok(())
    }
}

/// A device with registers in its BARs and in a capability of its own.
struct Registers {
    values: [u32; 64],
    is_slow: bool,
}

impl Registers {
    fn at(&mut self, offset: u64) -> &mut u32 {
        let [register, ..] = (offset >> 2).to_le_bytes();
        &mut self.values[usize::from(register) % 64]
    }
}

impl Backing for Registers {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        if self.is_slow {
            spin(SLOWNESS);
        }
        if let Ok(dword) = <&mut [u8; 4]>::try_from(data) {
            *dword = self.at(offset).to_le_bytes();
        }
    }

    fn bar_write(&mut self, _: u8, offset: u64, data: &[u8], _: &mut Signals<'_>) {
        if let Ok(dword) = <[u8; 4]>::try_from(data) {
            *self.at(offset) = u32::from_le_bytes(dword);
        }
    }

    fn config_read(&mut self, offset: u16, _: Width) -> u32 {
        *self.at(offset.into())
    }

    fn config_write(&mut self, offset: u16, _: Width, value: u32) {
        *self.at(offset.into()) = value;
    }
}

/// Keeps the processor busy.
#[cold]
#[inline(never)]
pub(crate) fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Where a thing is that a guest can read and write, a dword each.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    device: u16,
    offset: u16,
}

impl Place {
    /// Registers of a device's header and of its own capability: IDs, class, two BARs, and four of its own.
    pub(crate) fn in_config(device: u16) -> [Self; 9] {
        [0, 8, 0x10, 0x18, 0x2c, 0x44, 0x48, 0x4c, 0x50].map(|offset| Self { device, offset })
    }

    /// The device's own ones of them, which take what is written.
    pub(crate) fn own(device: u16) -> [Self; 4] {
        [0x44, 0x48, 0x4c, 0x50].map(|offset| Self { device, offset })
    }

    /// Registers in all BARs of a device.
    pub(crate) fn in_bars(device: u16) -> [Self; 8] {
        [0x0, 0x24, 0x1000, 0x1030, 0x2008, 0x20f8, 0x3000, 0x3f00].map(|offset| Self { device, offset })
    }

    pub(crate) fn by_ecam(self) -> u64 {
        ECAM + (u64::from(self.device) << 15) + u64::from(self.offset)
    }

    /// What is written to CF8.
    pub(crate) fn by_port(self) -> u32 {
        0x8000_0000 | u32::from(self.device) << 11 | u32::from(self.offset)
    }

    pub(crate) fn by_bar(self) -> u64 {
        WINDOW.start() + (u64::from(self.device) << 16) + u64::from(self.offset)
    }
}

/// The devices that are accessed.
pub(crate) fn accessed() -> impl Iterator<Item = u16> {
    (0..ACCESSED).map(|device| 2 * device)
}

/// A guest and the machine around it.
pub(crate) struct Machine {
    /// Keeps the devices.
    _registry: Registry<Option<Function>>,
    pub(crate) bus: GuestBus,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let registry: Registry<Option<Function>> = Registry::new().expect("memory");
        let domain = registry.create_domain(DomainId::new(1)).expect("the first domain");
        let bus = bus_of(&domain);
        for device in 0..DEVICES {
            let at = Sbdf::from_bdf(Segment::new(0), device << 3);
            registry.add(at, Some(function(device == SLOW))).expect("each address once");
            registry.move_devices(&[Member::at(at, at)], Owner::Guest(domain.id())).expect("unused");
            for bar in 0..u16::from(BARS) {
                let place = Place { device, offset: bar << 12 };
                let base = u32::try_from(place.by_bar()).expect("below 4 GiB");
                assert!(bus.config_write(at, BAR0 + 4 * bar, Width::Dword, base).wait());
            }
            assert!(bus.config_write(at, COMMAND, Width::Word, MEMORY).wait());
        }
        Self { _registry: registry, bus }
    }
}

fn bus_of(domain: &Domain<Option<Function>>) -> GuestBus {
    let ecam = Ecam::new(Segment::new(0), BusNumber::new(0)..=BusNumber::new(255), ECAM).expect("aligned");
    let reserved = [AddressRange::memory(ECAM..=ECAM + (ecam.size() - 1))];
    let bars = BarMap::new(&[AddressRange::memory(WINDOW)], &reserved).expect("memory");
    let layout = Layout { ecam: &[ecam], extended: ExtendedRegisters::Absent, bars };
    Bus::new(domain.clone(), Nothing, layout).expect("memory")
}

fn function(is_slow: bool) -> Function {
    let endpoint = Endpoint::new(0x1af4, 0x1041).class(0x02_0000).subsystem(0x1af4, 1).vendor_capability(64);
    let endpoint = (0..BARS).fold(endpoint, |endpoint, bar| endpoint.bar(bar, Bar::memory32(0x1000)));
    endpoint.build(Registers { values: [7; 64], is_slow }).expect("correct")
}

/// What a device's function takes beside the device's own state: without capabilities, and with as many registers as
/// this machine's devices have.
pub(crate) fn memory() -> [Bytes; 2] {
    let plain =
        bytes_kept(|| Endpoint::new(0x1af4, 0x1041).build(Registers { values: [7; 64], is_slow: false })).1;
    let full = bytes_kept(|| function(false)).1;
    let own = std::mem::size_of::<Registers>();
    [
        ("a function without BARs and capabilities", plain),
        ("one with 4 BARs and 16 registers of its own", full),
    ]
    .map(|(what, bytes)| Bytes::new(what, bytes.saturating_sub(own) as f64, None))
}
