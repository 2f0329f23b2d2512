//! A guest's bus as one device of an `IoManager`.

use std::sync::Arc;

use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::device_manager::IoManager;
use vm_device::{DeviceMmio, DevicePio};

use super::ranges::{Registered, merged};
use crate::adapters::lanes::Lanes;
use crate::memory::NoMemory;
use crate::sync::{RawLock, with_default_lock};
use crate::vpci::{ADDRESS_PORT, AddressRange, Bus, DATA_PORT, Ecam, Modelled, Wiring};

with_default_lock! {
    /// The [`Bus`] of a guest as a `vm-device` device, for its configuration ports, its ECAM windows and the windows of
    /// its host bridge.
    ///
    /// A write returns when it has taken effect. An access in one of the ranges that is not PCI's (the reset port at
    /// CF9, a hole in a window) goes to what [`ports_elsewhere`](Self::ports_elsewhere) and
    /// [`memory_elsewhere`](Self::memory_elsewhere) name; without them it reads ones and writes nothing.
    pub struct BusDevice<D, W; L> {
        lanes: Lanes<D, W, L>,
        other_ports: Option<Arc<dyn DevicePio + Send + Sync>>,
        other_memory: Option<Arc<dyn DeviceMmio + Send + Sync>>,
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> BusDevice<D, W, L> {
    /// A device that is this bus.
    pub fn new(bus: Bus<D, W, L>) -> Result<Self, NoMemory> {
        Ok(Self { lanes: Lanes::new(bus)?, other_ports: None, other_memory: None })
    }

    /// Who has the ports of its ranges that are not PCI's. It is called with the base and the offset of the access.
    #[must_use]
    pub fn ports_elsewhere(mut self, device: Arc<dyn DevicePio + Send + Sync>) -> Self {
        self.other_ports = Some(device);
        self
    }

    /// Who has the memory of its ranges that is not PCI's.
    #[must_use]
    pub fn memory_elsewhere(mut self, device: Arc<dyn DeviceMmio + Send + Sync>) -> Self {
        self.other_memory = Some(device);
        self
    }

    /// The bus.
    pub fn bus(&self) -> &Bus<D, W, L> {
        self.lanes.bus()
    }

    /// Puts it on a manager: for ports CF8 to CFF, and for the same ECAM windows and host bridge windows that the bus was
    /// made with. Ranges that touch become one.
    ///
    /// # Errors
    /// Something else has one of the ranges. Nothing is registered then.
    pub fn register(
        self: &Arc<Self>,
        manager: &mut IoManager,
        ecam: &[Ecam],
        windows: &[AddressRange],
    ) -> Result<Registered, vm_device::bus::Error>
    where
        D: Send + 'static,
        W: 'static,
        L: 'static,
    {
        let ports = AddressRange::io(ADDRESS_PORT.into()..=u64::from(DATA_PORT) + 3);
        let ecam = ecam.iter().map(|it| AddressRange::memory(it.base()..=it.base() + (it.size() - 1)));
        let ranges = merged(ecam.chain(windows.iter().cloned()).chain([ports]));
        Registered::register(manager, &ranges, self)
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> DevicePio for BusDevice<D, W, L> {
    fn pio_read(&self, base: PioAddress, offset: u16, data: &mut [u8]) {
        let port = base.0.checked_add(offset);
        let is_ours = port.is_some_and(|port| self.lanes.with(|vcpu| vcpu.io_read(port, data)));
        match &self.other_ports {
            _ if is_ours => {}
            Some(other) => other.pio_read(base, offset, data),
            None => data.fill(0xff),
        }
    }

    fn pio_write(&self, base: PioAddress, offset: u16, data: &[u8]) {
        let port = base.0.checked_add(offset);
        // The lane is free again before anybody is waited for.
        let written = port.map(|port| self.lanes.with(|vcpu| vcpu.io_write(port, data)));
        let is_ours = written.is_some_and(crate::vpci::Written::wait);
        if let (false, Some(other)) = (is_ours, &self.other_ports) {
            other.pio_write(base, offset, data);
        }
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> DeviceMmio for BusDevice<D, W, L> {
    fn mmio_read(&self, base: MmioAddress, offset: u64, data: &mut [u8]) {
        let address = base.0.checked_add(offset);
        let is_ours = address.is_some_and(|address| self.lanes.with(|vcpu| vcpu.mmio_read(address, data)));
        match &self.other_memory {
            _ if is_ours => {}
            Some(other) => other.mmio_read(base, offset, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&self, base: MmioAddress, offset: u64, data: &[u8]) {
        let address = base.0.checked_add(offset);
        let written = address.map(|address| self.lanes.with(|vcpu| vcpu.mmio_write(address, data)));
        let is_ours = written.is_some_and(crate::vpci::Written::wait);
        if let (false, Some(other)) = (is_ours, &self.other_memory) {
            other.mmio_write(base, offset, data);
        }
    }
}

impl<D, W, L: RawLock> core::fmt::Debug for BusDevice<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BusDevice").finish_non_exhaustive()
    }
}
