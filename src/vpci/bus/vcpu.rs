//! From an exit to a device: one vCPU's way to its guest's buses.

use super::routes::{Found, Remembered, Routes};
use super::wiring::Wiring;
use super::{Bus, Modelled, Written};
use crate::address::Sbdf;
use crate::platform::Width;
use crate::sync::{Ordering, RawLock, with_default_lock};
use crate::vpci::bar_map::BarSpace;
use crate::vpci::decode::{ADDRESS_PORT, AddressPort, DATA_PORT, parts};

with_default_lock! {
    /// One vCPU's way to the buses of its guest: it takes exits, and remembers where the last ones went.
    ///
    /// Any access of any size at any address is possible. One that is no access to PCI is answered with `false` or
    /// [`Written::Elsewhere`] and has done nothing; one to PCI that cannot be reads ones and writes nothing.
    pub struct Vcpu<D, W; L> {
        bus: Bus<D, W, L>,
        memory: Option<Remembered>,
        ports: Option<Remembered>,
    }
}

/// Where an access to memory or ports goes.
enum Way {
    Config {
        at: Sbdf,
        offset: u16,
    },
    Bar {
        at: Sbdf,
        bar: u8,
        offset: u64,
    },
    /// Configuration space of a bus that is not there.
    NoBus,
    Nowhere,
}

impl<D: Modelled, W: Wiring, L: RawLock> Vcpu<D, W, L> {
    pub(super) fn new(bus: Bus<D, W, L>) -> Self {
        Self { bus, memory: None, ports: None }
    }

    /// The bus it is a way to.
    pub fn bus(&self) -> &Bus<D, W, L> {
        &self.bus
    }

    /// A read of guest memory that nothing is mapped at. `false` if it is none of PCI's.
    #[inline]
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) -> bool {
        match self.way_of_memory(address) {
            Way::Config { at, offset } => self.ecam_read(at, offset, data),
            Way::Bar { at, bar, offset } => self.bus.bar_read(at, bar, offset, data),
            Way::NoBus => data.fill(0xff),
            Way::Nowhere => return false,
        }
        true
    }

    /// A write to guest memory that nothing is mapped at.
    #[inline]
    pub fn mmio_write(&mut self, address: u64, data: &[u8]) -> Written<D, W, L> {
        match self.way_of_memory(address) {
            Way::Config { at, offset } => self.ecam_write(at, offset, data),
            Way::Bar { at, bar, offset } => self.bus.bar_write(at, bar, offset, data),
            Way::NoBus => Written::Done,
            Way::Nowhere => Written::Elsewhere,
        }
    }

    /// A read of ports. `false` if they are none of PCI's.
    #[inline]
    pub fn io_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        match port {
            DATA_PORT..=0xcff => {
                data.fill(0xff);
                if let Some((at, offset, width)) = self.cycle(port - DATA_PORT, data.len()) {
                    let value = self.bus.config_read(at, offset, width).to_le_bytes();
                    // As wide as `locate` has found it.
                    data.iter_mut().zip(value).for_each(|(place, byte)| *place = byte);
                }
            }
            ADDRESS_PORT if data.len() == 4 => {
                data.copy_from_slice(&self.bus.shared.address.load(Ordering::Relaxed).to_le_bytes());
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
            _ => match self.way_of_ports(port) {
                Way::Bar { at, bar, offset } => self.bus.bar_write(at, bar, offset, data),
                Way::Config { .. } | Way::NoBus | Way::Nowhere => Written::Elsewhere,
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

    fn port_bar_read(&mut self, port: u16, data: &mut [u8]) -> bool {
        let Way::Bar { at, bar, offset } = self.way_of_ports(port) else { return false };
        self.bus.bar_read(at, bar, offset, data);
        true
    }

    #[inline]
    fn ecam_read(&self, at: Sbdf, offset: u16, data: &mut [u8]) {
        let Some((width, second)) = parts(offset, data.len()) else { return data.fill(0xff) };
        let first = self.bus.config_read(at, offset, width).to_le_bytes();
        data.iter_mut().zip(first).for_each(|(place, byte)| *place = byte);
        if let (Some(second), Some(upper)) = (second, data.get_mut(4..)) {
            upper.copy_from_slice(&self.bus.config_read(at, second, width).to_le_bytes());
        }
    }

    #[inline]
    fn ecam_write(&self, at: Sbdf, offset: u16, data: &[u8]) -> Written<D, W, L> {
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

    #[inline]
    fn way_of_memory(&mut self, address: u64) -> Way {
        for window in &self.bus.shared.ecam {
            if let Some((named, offset)) = window.locate(address) {
                return match self.bus.shared.mapper.buses.home(named) {
                    Some(at) => Way::Config { at, offset },
                    None => Way::NoBus,
                };
            }
        }
        let mapper = &self.bus.shared.mapper;
        if let Some(route) = mapper.memory.is_still(self.memory.as_ref(), address) {
            let offset = route.offset + (address - route.addresses.start());
            return Way::Bar { at: route.seen_at, bar: route.bar, offset };
        }
        look_up(&mapper.memory, &mut self.memory, address, || mapper.find(BarSpace::Memory, address))
    }

    fn way_of_ports(&mut self, port: u16) -> Way {
        let mapper = &self.bus.shared.mapper;
        look_up(&mapper.ports, &mut self.ports, port.into(), || mapper.find(BarSpace::Io, port.into()))
    }
}

/// Looks an address up, and remembers where it leads.
fn look_up(
    routes: &Routes,
    remembered: &mut Option<Remembered>,
    address: u64,
    by_the_map: impl FnOnce() -> Option<(Sbdf, u8, u64)>,
) -> Way {
    match routes.find(address) {
        Found::Route(found) => {
            let route = found.route();
            let offset = route.offset + (address - route.addresses.start());
            let way = Way::Bar { at: route.seen_at, bar: route.bar, offset };
            *remembered = Some(found);
            way
        }
        Found::Nothing => Way::Nowhere,
        Found::Unknown => match by_the_map() {
            Some((at, bar, offset)) => Way::Bar { at, bar, offset },
            None => Way::Nowhere,
        },
    }
}

/// Up to four bytes, the low one first.
fn value_of(data: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(data).for_each(|(place, byte)| *place = *byte);
    u32::from_le_bytes(bytes)
}

impl<D, W, L: RawLock> core::fmt::Debug for Vcpu<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Vcpu").field(&self.bus).finish()
    }
}
