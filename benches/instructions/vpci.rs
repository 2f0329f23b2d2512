//! A guest with devices behind a bus, for the paths of its accesses.

use std::cell::RefCell;
use std::hint::black_box;

use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::platform::{HookError, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Ecam, Endpoint, ExtendedRegisters, Function, Layout, Signals,
    Target, Vcpu, VectorWork, Wiring,
};
use pcidevs::{Member, Owner, Registry, Sbdf};

use crate::paths::{GUEST, addresses};

pub(crate) const BAR0: u16 = 0x10;
const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const ECAM: u64 = 0xb000_0000;
const WINDOW: std::ops::RangeInclusive<u64> = 0xc000_0000..=0xdfff_ffff;

/// Nothing has to be done for its devices.
pub(crate) struct Nothing;

impl Wiring for Nothing {
    fn vector(&self, _: Target, _: u16, _: VectorWork) -> Result<(), HookError> {
        Ok(())
    }
}

/// Reads as the offset.
struct Offsets;

impl Backing for Offsets {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        if let (Ok(dword), [b0, b1, b2, b3, ..]) = (<&mut [u8; 4]>::try_from(data), offset.to_le_bytes()) {
            *dword = [b0, b1, b2, b3];
        }
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

/// Devices of a guest, each with a BAR that is mapped.
pub(crate) struct Vpci {
    _registry: Registry<Option<Function>>,
    pub(crate) bus: Bus<Option<Function>, Nothing>,
}

impl Vpci {
    pub(crate) fn new() -> Self {
        let registry: Registry<Option<Function>> = Registry::new().expect("memory");
        let domain = registry.create_domain(GUEST).expect("the first domain");
        let ecam =
            Ecam::new(Segment::new(0), BusNumber::new(0)..=BusNumber::new(255), ECAM).expect("aligned");
        let bars = BarMap::new(&[AddressRange::memory(WINDOW)], &[]).expect("memory");
        let layout = Layout { ecam: &[ecam], extended: ExtendedRegisters::Absent, bars };
        let bus = Bus::new(domain, Nothing, layout).expect("memory");
        for at in addresses() {
            let endpoint = Endpoint::new(0x1af4, 0x1041).bar(0, Bar::memory32(0x1000));
            registry.add(at, Some(endpoint.build(Offsets).expect("correct"))).expect("each address once");
            registry.move_devices(&[Member::at(at, at)], Owner::Guest(GUEST)).expect("nobody is in the way");
            let base = u32::try_from(bar(at)).expect("below 4 GiB");
            assert!(bus.config_write(at, BAR0, Width::Dword, base).wait());
            assert!(bus.config_write(at, COMMAND, Width::Word, MEMORY).wait());
        }
        Self { _registry: registry, bus }
    }
}

/// The address of a register in configuration space.
pub(crate) fn ecam(at: Sbdf, offset: u16) -> u64 {
    ECAM + (u64::from(at.bdf()) << 12) + u64::from(offset)
}

/// The address of a device's BAR.
pub(crate) fn bar(at: Sbdf) -> u64 {
    WINDOW.start() + (u64::from(at.bdf()) << 12)
}

/// Reads a dword as at an exit, where how many bytes it is the compiler does not know.
pub(crate) fn load(vcpu: &RefCell<Vcpu<Option<Function>, Nothing>>, address: u64) -> u32 {
    let mut data = [0; 4];
    let found = vcpu.borrow_mut().mmio_read(address, &mut data[..black_box(4)]);
    u32::from_le_bytes(data) + u32::from(found)
}
