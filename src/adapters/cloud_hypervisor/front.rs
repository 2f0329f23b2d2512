//! A guest's bus as devices of Cloud Hypervisor's buses.

use std::sync::{Arc, Barrier};

use super::release::Releasers;
use super::seat::Seat;
use super::shape::BusDeviceSync;
use crate::adapters::lanes::Lanes;
use crate::address::Sbdf;
use crate::memory::NoMemory;
use crate::sync::{RawLock, with_default_lock};
use crate::vpci::{Bus, Modelled, Wiring};

with_default_lock! {
    /// The [`Bus`] of a guest, in the shape of Cloud Hypervisor.
    ///
    /// Its [`ports`](Self::ports) stand where `PciConfigIo` and the I/O BARs stand; its [`memory`](Self::memory) where
    /// `PciConfigMmio` and the memory BARs do, for the whole of the host bridge's windows: nothing is inserted or moved
    /// when a device comes or a guest moves a BAR.
    pub struct GuestBus<D, W; L>(Arc<Inner<D, W, L>>);
}

struct Inner<D, W, L: RawLock> {
    lanes: Lanes<D, W, L>,
    releasers: Releasers,
}

impl<D: Modelled, W: Wiring, L: RawLock> GuestBus<D, W, L> {
    /// That shape of this bus.
    pub fn new(bus: Bus<D, W, L>) -> Result<Self, NoMemory> {
        let inner = Inner { lanes: Lanes::new(bus)?, releasers: Releasers::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// The bus.
    pub fn bus(&self) -> &Bus<D, W, L> {
        self.0.lanes.bus()
    }

    /// The device for ports: CF8 to CFF, and the windows of I/O BARs.
    pub fn ports(&self) -> Ports<D, W, L> {
        Ports(self.0.clone())
    }

    /// The device for memory: ECAM, and the windows of memory BARs.
    pub fn memory(&self) -> Memory<D, W, L> {
        Memory(self.0.clone())
    }

    /// The function that the guest sees at this address, now or later.
    pub fn seat(&self, at: Sbdf) -> Seat<D, W, L> {
        Seat::new(self.bus().clone(), self.0.releasers.clone(), at)
    }
}

with_default_lock! {
    /// The ports of a [`GuestBus`]. A port that is not PCI's reads ones.
    pub struct Ports<D, W; L>(Arc<Inner<D, W, L>>);
}

with_default_lock! {
    /// The memory of a [`GuestBus`]. What is not PCI's reads ones.
    pub struct Memory<D, W; L>(Arc<Inner<D, W, L>>);
}

impl<D, W, L> BusDeviceSync for Ports<D, W, L>
where
    D: Modelled + Send + 'static,
    W: Wiring + 'static,
    L: RawLock + 'static,
{
    fn read(&self, base: u64, offset: u64, data: &mut [u8]) {
        let is_ours =
            port(base, offset).is_some_and(|port| self.0.lanes.with(|vcpu| vcpu.io_read(port, data)));
        if !is_ours {
            data.fill(0xff);
        }
    }

    fn write(&self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        let port = port(base, offset)?;
        let written = self.0.lanes.with(|vcpu| vcpu.io_write(port, data));
        self.0.releasers.barrier(written)
    }
}

impl<D, W, L> BusDeviceSync for Memory<D, W, L>
where
    D: Modelled + Send + 'static,
    W: Wiring + 'static,
    L: RawLock + 'static,
{
    fn read(&self, base: u64, offset: u64, data: &mut [u8]) {
        let is_ours = base
            .checked_add(offset)
            .is_some_and(|address| self.0.lanes.with(|vcpu| vcpu.mmio_read(address, data)));
        if !is_ours {
            data.fill(0xff);
        }
    }

    fn write(&self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        let address = base.checked_add(offset)?;
        let written = self.0.lanes.with(|vcpu| vcpu.mmio_write(address, data));
        self.0.releasers.barrier(written)
    }
}

fn port(base: u64, offset: u64) -> Option<u16> {
    u16::try_from(base.checked_add(offset)?).ok()
}

impl<D, W, L: RawLock> Clone for GuestBus<D, W, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D, W, L: RawLock> core::fmt::Debug for GuestBus<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GuestBus").finish_non_exhaustive()
    }
}

impl<D, W, L: RawLock> core::fmt::Debug for Ports<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

impl<D, W, L: RawLock> core::fmt::Debug for Memory<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
