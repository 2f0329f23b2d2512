//! One register of a device that has few or many: the lookup by the guest's address, the device's lock, the handler.

use pcidevs::address::Segment;
use pcidevs::platform::Width;
use pcidevs::vpci::{At, Behind, Outcomes, Read, Register, Space, Write};
use pcidevs::{Domain, DomainId, Member, Owner, Registry, Sbdf};

use crate::measuring::order::random_order;
use crate::measuring::pair::{Floor, LOCK_PAIR, ParkingLot};
use crate::measuring::rounds::{Candidate, Effort, Results};

/// How many registers a device has; the last is as many as fit.
pub(crate) const COUNTS: [u16; 4] = [1, 16, 256, 1024];

pub(crate) const GROUP: &str = "one register, lookup, lock and handler, 1 thread";

pub(crate) fn read_of(count: u16) -> String {
    format!("read, {count} registers")
}

pub(crate) fn write_of(count: u16) -> String {
    format!("write, {count} registers")
}

/// What the handlers work on: a value for each dword.
pub(crate) struct Values(pub(crate) Box<[u32; 1024]>);

impl Values {
    pub(crate) fn new() -> Self {
        Self(Box::new([7; 1024]))
    }

    pub(crate) fn at(&mut self, offset: u16) -> &mut u32 {
        &mut self.0[usize::from(offset >> 2) % 1024]
    }
}

impl Behind for Values {}

/// A device's data: its registers and what is behind them.
struct Device {
    space: Space<Values, u16>,
    values: Values,
}

impl Device {
    fn with(count: u16) -> Self {
        let mut space = Space::new().expect("memory");
        for offset in offsets(count) {
            let read = Read::Handler(|values: &mut Values, at: At| *values.at(at.offset));
            let write = Write::Handler(|values: &mut Values, at, value| {
                *values.at(at.offset) = value;
                None
            });
            space.add(Register::new(offset, Width::Dword, read, write)).expect("each dword once");
        }
        Self { space, values: Values::new() }
    }
}

/// The dwords that are registers, spread over the whole space.
pub(crate) fn offsets(count: u16) -> impl Iterator<Item = u16> {
    (0..count).map(move |register| register * (4096 / count))
}

/// A guest with devices of so many registers.
pub(crate) struct Guest {
    /// Keeps the devices.
    _registry: Registry<Device>,
    domain: Domain<Device>,
}

impl Guest {
    pub(crate) fn with(devices: u16, registers: u16) -> Self {
        let registry = Registry::new().expect("memory");
        let domain = registry.create_domain(DomainId::new(1)).expect("the first domain");
        let members: Vec<Member> = addresses(devices).map(|address| Member::at(address, address)).collect();
        for address in addresses(devices) {
            registry.add(address, Device::with(registers)).expect("each address once");
        }
        registry.move_devices(&members, Owner::Guest(domain.id())).expect("nobody is in the way");
        Self { _registry: registry, domain }
    }

    #[inline]
    pub(crate) fn read(&self, at: Sbdf, offset: u16) -> u32 {
        let Ok(mut device) = self.domain.lock(at) else { return u32::MAX };
        let Device { space, values } = &mut *device;
        space.read(values, offset, Width::Dword)
    }

    #[inline]
    pub(crate) fn write(&self, at: Sbdf, offset: u16, value: u32) -> bool {
        let Ok(mut device) = self.domain.lock(at) else { return false };
        let Device { space, values } = &mut *device;
        Outcomes::is_empty(&space.write(values, offset, Width::Dword, value))
    }
}

/// Where a guest sees its devices: function 0 of slots of bus 0.
pub(crate) fn addresses(devices: u16) -> impl Iterator<Item = Sbdf> {
    (0..devices).map(|slot| Sbdf::from_bdf(Segment::new(0), slot << 3))
}

/// A device with so many registers, and the order in which they are visited.
pub(crate) struct Registers {
    count: u16,
    guest: Guest,
    at: Sbdf,
    order: [Vec<u16>; 1],
}

impl Registers {
    pub(crate) fn of(count: u16) -> Self {
        let order = [random_order(&offsets(count).collect::<Vec<_>>())];
        Self { count, guest: Guest::with(1, count), at: addresses(1).next().expect("one"), order }
    }

    pub(crate) fn candidates(&self) -> [Candidate<'_>; 2] {
        let Self { count, guest, at, order } = self;
        [
            Candidate::visiting(&read_of(*count), order, |offset| guest.read(*at, *offset)),
            Candidate::visiting(&write_of(*count), order, |offset| guest.write(*at, *offset, 5)),
        ]
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let floor = Floor::<ParkingLot>::new();
    let sizes = COUNTS.map(Registers::of);
    let mut candidates = vec![floor.candidate(LOCK_PAIR)];
    candidates.extend(sizes.iter().flat_map(Registers::candidates));
    results.measure(GROUP, &candidates, effort);
}
