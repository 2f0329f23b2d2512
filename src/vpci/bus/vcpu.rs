//! From an exit to a device: one vCPU's way to its guest's buses.

use super::remembered::{Known, Part, Place, Remembered};
use super::wiring::Wiring;
use super::{Bus, Modelled, Written, bar_read, config_read};
use crate::address::Sbdf;
use crate::platform::Width;
use crate::registry::Visitor;
use crate::sync::{Ordering, RawLock, with_default_lock};
use crate::vpci::bar_map::BarSpace;
use crate::vpci::bytes::{fill_with_ones, put_value, value_of};
use crate::vpci::decode::{ADDRESS_PORT, AddressPort, DATA_PORT, parts};

/// How many pages of memory a vCPU remembers: 4 KiB, as one function's configuration space.
const PAGES: usize = 128;
type Memory = Remembered<PAGES, 12>;

with_default_lock! {
    /// One vCPU's way to the buses of its guest: it takes exits, and remembers where the last ones went.
    ///
    /// Any access of any size at any address is possible. One that is no access to PCI is answered with `false` or
    /// [`Written::Elsewhere`] and has done nothing; one to PCI that cannot be reads ones and writes nothing.
    pub struct Vcpu<D, W; L> {
        bus: Bus<D, W, L>,
        memory: Memory,
        /// The devices of what `memory` has, each in the same place.
        devices: Visitor<D, L, PAGES>,
        ports: Remembered<16, 4>,
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> Vcpu<D, W, L> {
    pub(super) fn new(bus: Bus<D, W, L>) -> Self {
        let devices = bus.shared.domain.visitor();
        Self { bus, memory: Remembered::nothing(), devices, ports: Remembered::nothing() }
    }

    /// The bus it is a way to.
    pub fn bus(&self) -> &Bus<D, W, L> {
        &self.bus
    }

    /// A read of guest memory that nothing is mapped at. `false` if it is none of PCI's.
    #[inline(always)]
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) -> bool {
        let Some(Place { seen_at, part, offset }) = self.at(address) else { return false };
        let index = Memory::index(address);
        // A dword is what is accessed most. With its width known all else is known to be aligned, whole and simple.
        match (part, <&mut [u8; 4]>::try_from(&mut *data)) {
            (Part::Config, Ok(dword)) => {
                let device = self.devices.lock(seen_at, index);
                *dword = config_read(device, config_offset(offset), Width::Dword).to_le_bytes();
            }
            (Part::Bar(bar), Ok(dword)) => bar_read(self.devices.lock(seen_at, index), bar, offset, dword),
            (Part::Config, Err(_)) => self.ecam_read(seen_at, index, config_offset(offset), data),
            (Part::Bar(bar), Err(_)) => self.bar_read(seen_at, index, bar, offset, data),
            (Part::NoBus, _) => fill_with_ones(data),
        }
        true
    }

    /// A write to guest memory that nothing is mapped at.
    #[inline(always)]
    pub fn mmio_write(&mut self, address: u64, data: &[u8]) -> Written<D, W, L> {
        let Some(Place { seen_at, part, offset }) = self.at(address) else { return Written::Elsewhere };
        let index = Memory::index(address);
        match (part, <&[u8; 4]>::try_from(data)) {
            (Part::Config, Ok(dword)) => {
                let (offset, value) = (config_offset(offset), u32::from_le_bytes(*dword));
                self.config_write(seen_at, index, offset, Width::Dword, value)
            }
            (Part::Config, Err(_)) => self.ecam_write(seen_at, index, config_offset(offset), data),
            (Part::Bar(bar), Ok(dword)) => {
                let device = self.devices.lock(seen_at, index);
                self.bus.access(device, seen_at, |function| function.bar_write(bar, offset, dword))
            }
            (Part::Bar(bar), Err(_)) => self.bar_write(seen_at, index, bar, offset, data),
            (Part::NoBus, _) => Written::Done,
        }
    }

    /// A read of ports. `false` if they are none of PCI's.
    #[inline]
    pub fn io_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        match port {
            DATA_PORT..=0xcff => {
                match self.cycle(port - DATA_PORT, data.len()) {
                    // As wide as `cycle` has found it.
                    Some((at, offset, Width::Dword)) => {
                        put_value(data, self.bus.config_read(at, offset, Width::Dword));
                    }
                    Some((at, offset, width)) => put_value(data, self.bus.config_read(at, offset, width)),
                    None => fill_with_ones(data),
                }
            }
            ADDRESS_PORT if data.len() == 4 => {
                put_value(data, self.bus.shared.address.load(Ordering::Relaxed));
            }
            _ => return self.port_bar_read(port, data),
        }
        true
    }

    /// A write to ports.
    #[inline]
    pub fn io_write(&mut self, port: u16, data: &[u8]) -> Written<D, W, L> {
        match port {
            DATA_PORT..=0xcff => match self.cycle(port - DATA_PORT, data.len()) {
                Some((at, offset, width)) => self.bus.config_write(at, offset, width, value_of(data)),
                None => Written::Done,
            },
            ADDRESS_PORT if data.len() == 4 => {
                // Relaxed: like the register itself it orders nothing; the guest keeps its vCPUs apart.
                self.bus.shared.address.store(value_of(data), Ordering::Relaxed);
                Written::Done
            }
            _ => match self.bar_at_port(port) {
                Some((seen_at, bar, offset)) => self.bus.bar_write(seen_at, bar, offset, data),
                None => Written::Elsewhere,
            },
        }
    }

    /// The configuration cycle that an access to the data port is, if it is one and finds a bus.
    #[inline]
    fn cycle(&self, offset: u16, length: usize) -> Option<(Sbdf, u16, Width)> {
        let address = self.bus.shared.address.load(Ordering::Relaxed);
        let port = AddressPort::holding(address, self.bus.shared.extended);
        let (named, offset, width) = port.locate(offset, length)?;
        Some((self.bus.shared.mapper.buses.home(named)?, offset, width))
    }

    // Functions of their own: what these save on the stack an access to a dword would, too, and a lock waits for what was
    // stored before it.
    #[inline(never)]
    fn bar_read(&self, at: Sbdf, index: usize, bar: u8, offset: u64, data: &mut [u8]) {
        bar_read(self.devices.lock(at, index), bar, offset, data);
    }

    #[inline(never)]
    fn bar_write(&self, at: Sbdf, index: usize, bar: u8, offset: u64, data: &[u8]) -> Written<D, W, L> {
        self.bus.access(self.devices.lock(at, index), at, |function| function.bar_write(bar, offset, data))
    }

    fn port_bar_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        let Some((seen_at, bar, offset)) = self.bar_at_port(port) else { return false };
        self.bus.bar_read(seen_at, bar, offset, data);
        true
    }

    #[inline(never)]
    fn ecam_read(&self, at: Sbdf, index: usize, offset: u16, data: &mut [u8]) {
        let Some((width, second)) = parts(offset, data.len()) else { return fill_with_ones(data) };
        put_value(data, config_read(self.devices.lock(at, index), offset, width));
        if let (Some(second), Some(upper)) = (second, data.get_mut(4..)) {
            put_value(upper, config_read(self.devices.lock(at, index), second, width));
        }
    }

    #[inline(never)]
    fn ecam_write(&self, at: Sbdf, index: usize, offset: u16, data: &[u8]) -> Written<D, W, L> {
        let Some((width, second)) = parts(offset, data.len()) else { return Written::Done };
        let written = self.config_write(at, index, offset, width, value_of(data));
        match (second, data.get(4..)) {
            (Some(second), Some(upper)) => {
                // In the order of the two: the upper half when the lower one has taken effect.
                written.wait();
                self.config_write(at, index, second, width, value_of(upper))
            }
            _ => written,
        }
    }

    #[inline]
    fn config_write(
        &self,
        at: Sbdf,
        index: usize,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Written<D, W, L> {
        let device = self.devices.lock(at, index);
        self.bus.access(device, at, |function| function.config_write(offset, width, value))
    }

    /// Where an address of memory goes.
    #[inline(always)]
    fn at(&mut self, address: u64) -> Option<Place> {
        match self.memory.find(&self.bus.shared.mapper.memory, address) {
            Some(place) => Some(place),
            None => self.look_up(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, address: u64) -> Option<Place> {
        self.devices.forget(Memory::index(address));
        let mapper = &self.bus.shared.mapper;
        // Before the bus numbers are looked at: given others, they make a version that this is not.
        let version = mapper.memory.version();
        if let Some((named, offset)) = self.bus.shared.ecam.iter().find_map(|window| window.locate(address)) {
            let known = Known::config(address - u64::from(offset), mapper.buses.home(named));
            return Some(match version {
                Ok(version) => self.memory.remember(version, address, known),
                Err(_) => known.place(address),
            });
        }
        match self.memory.look_up(&mapper.memory, address) {
            Ok(place) => place,
            Err(_) => mapper.find(BarSpace::Memory, address),
        }
    }

    /// The device, the BAR and the offset in it that a port is.
    fn bar_at_port(&mut self, port: u16) -> Option<(Sbdf, u8, u64)> {
        let (mapper, port) = (&self.bus.shared.mapper, port.into());
        let place = self.ports.find(&mapper.ports, port).or_else(|| {
            let found = self.ports.look_up(&mapper.ports, port);
            found.unwrap_or_else(|_| mapper.find(BarSpace::Io, port))
        })?;
        match place.part {
            Part::Bar(bar) => Some((place.seen_at, bar, place.offset)),
            Part::Config | Part::NoBus => None,
        }
    }
}

/// An offset in a function's 4 KiB.
#[inline]
fn config_offset(offset: u64) -> u16 {
    (offset & 0xfff) as u16
}

impl<D, W, L: RawLock> core::fmt::Debug for Vcpu<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Vcpu").field(&self.bus).finish()
    }
}
