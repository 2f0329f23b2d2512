//! From an exit to a device: one vCPU's way to its guest's buses.

use super::routes::{Found, Place, Remembered};
use super::wiring::Wiring;
use super::{Bus, Modelled, Written};
use crate::address::Sbdf;
use crate::platform::Width;
use crate::sync::{Ordering, RawLock, with_default_lock};
use crate::vpci::bar_map::BarSpace;
use crate::vpci::bytes::{fill_with_ones, put_value, value_of};
use crate::vpci::decode::{ADDRESS_PORT, AddressPort, DATA_PORT, Ecam, parts};

with_default_lock! {
    /// One vCPU's way to the buses of its guest: it takes exits, and remembers where the last ones went.
    ///
    /// Any access of any size at any address is possible. One that is no access to PCI is answered with `false` or
    /// [`Written::Elsewhere`] and has done nothing; one to PCI that cannot be reads ones and writes nothing.
    pub struct Vcpu<D, W; L> {
        bus: Bus<D, W, L>,
        /// The first of the windows, which most guests have only: two loads less, one after the other, than from the bus.
        window: Option<Ecam>,
        memory: Remembered<128, 12>,
        ports: Remembered<16, 4>,
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> Vcpu<D, W, L> {
    pub(super) fn new(bus: Bus<D, W, L>) -> Self {
        let window = bus.shared.ecam.first().copied();
        Self { bus, window, memory: Remembered::nothing(), ports: Remembered::nothing() }
    }

    /// The bus it is a way to.
    pub fn bus(&self) -> &Bus<D, W, L> {
        &self.bus
    }

    /// A read of guest memory that nothing is mapped at. `false` if it is none of PCI's.
    #[inline(always)]
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) -> bool {
        if let Some((named, offset)) = self.config_at(address) {
            match self.bus.shared.mapper.buses.home(named) {
                Some(at) => self.ecam_read(at, offset, data),
                None => fill_with_ones(data),
            }
            return true;
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(dword) => self.memory_bar_read_dword(address, dword),
            Err(_) => self.memory_bar_read(address, data),
        }
    }

    /// A write to guest memory that nothing is mapped at.
    #[inline]
    pub fn mmio_write(&mut self, address: u64, data: &[u8]) -> Written<D, W, L> {
        if let Some((named, offset)) = self.config_at(address) {
            return match self.bus.shared.mapper.buses.home(named) {
                Some(at) => self.ecam_write(at, offset, data),
                None => Written::Done,
            };
        }
        self.memory_bar_write(address, data)
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
                Some(Place { seen_at, bar, offset }) => self.bus.bar_write(seen_at, bar, offset, data),
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

    // Functions of their own: what an access to a BAR saves on the stack an access to configuration space would, too, and
    // a lock waits for what was stored before it. And as there, a dword has its own.
    #[inline(always)]
    fn memory_bar_read_dword(&mut self, address: u64, dword: &mut [u8; 4]) -> bool {
        let Some(Place { seen_at, bar, offset }) = self.bar_at(address) else { return false };
        self.bus.bar_read(seen_at, bar, offset, dword);
        true
    }

    #[inline(never)]
    fn memory_bar_read(&mut self, address: u64, data: &mut [u8]) -> bool {
        let Some(Place { seen_at, bar, offset }) = self.bar_at(address) else { return false };
        self.bus.bar_read(seen_at, bar, offset, data);
        true
    }

    #[inline(never)]
    fn memory_bar_write(&mut self, address: u64, data: &[u8]) -> Written<D, W, L> {
        match self.bar_at(address) {
            Some(Place { seen_at, bar, offset }) => self.bus.bar_write(seen_at, bar, offset, data),
            None => Written::Elsewhere,
        }
    }

    fn port_bar_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        let Some(Place { seen_at, bar, offset }) = self.bar_at_port(port) else { return false };
        self.bus.bar_read(seen_at, bar, offset, data);
        true
    }

    // A dword is what is accessed most. With its width known all else is known to be aligned, whole and simple.
    #[inline(always)]
    fn ecam_read(&self, at: Sbdf, offset: u16, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(dword) => *dword = self.bus.config_read(at, offset, Width::Dword).to_le_bytes(),
            Err(_) => self.ecam_read_other(at, offset, data),
        }
    }

    #[inline(never)]
    fn ecam_read_other(&self, at: Sbdf, offset: u16, data: &mut [u8]) {
        let Some((width, second)) = parts(offset, data.len()) else { return fill_with_ones(data) };
        put_value(data, self.bus.config_read(at, offset, width));
        if let (Some(second), Some(upper)) = (second, data.get_mut(4..)) {
            put_value(upper, self.bus.config_read(at, second, width));
        }
    }

    #[inline]
    fn ecam_write(&self, at: Sbdf, offset: u16, data: &[u8]) -> Written<D, W, L> {
        match <[u8; 4]>::try_from(data) {
            Ok(dword) => self.bus.config_write(at, offset, Width::Dword, u32::from_le_bytes(dword)),
            Err(_) => self.ecam_write_other(at, offset, data),
        }
    }

    #[inline(never)]
    fn ecam_write_other(&self, at: Sbdf, offset: u16, data: &[u8]) -> Written<D, W, L> {
        let Some((width, second)) = parts(offset, data.len()) else { return Written::Done };
        let written = self.bus.config_write(at, offset, width, value_of(data));
        match (second, data.get(4..)) {
            (Some(second), Some(upper)) => {
                // In the order of the two: the upper half when the lower one has taken effect.
                written.wait();
                self.bus.config_write(at, second, width, value_of(upper))
            }
            _ => written,
        }
    }

    /// The function and register that an address of memory is.
    #[inline]
    fn config_at(&self, address: u64) -> Option<(Sbdf, u16)> {
        let found = self.window.as_ref()?.locate(address);
        found.or_else(|| self.bus.shared.ecam.iter().skip(1).find_map(|window| window.locate(address)))
    }

    /// The place in a BAR that an address of memory is.
    #[inline]
    fn bar_at(&mut self, address: u64) -> Option<Place> {
        match self.memory.find(&self.bus.shared.mapper.memory, address) {
            Some(place) => Some(place),
            None => self.look_up(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, address: u64) -> Option<Place> {
        let mapper = &self.bus.shared.mapper;
        match self.memory.look_up(&mapper.memory, address) {
            Found::Place(place) => Some(place),
            Found::Nothing => None,
            Found::Unknown => mapper.find(BarSpace::Memory, address),
        }
    }

    /// The place in a BAR that a port is.
    fn bar_at_port(&mut self, port: u16) -> Option<Place> {
        let (mapper, port) = (&self.bus.shared.mapper, port.into());
        self.ports.find(&mapper.ports, port).or_else(|| match self.ports.look_up(&mapper.ports, port) {
            Found::Place(place) => Some(place),
            Found::Nothing => None,
            Found::Unknown => mapper.find(BarSpace::Io, port),
        })
    }
}

impl<D, W, L: RawLock> core::fmt::Debug for Vcpu<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Vcpu").field(&self.bus).finish()
    }
}
