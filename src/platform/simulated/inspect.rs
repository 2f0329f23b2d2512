//! Looking at the machine: who reaches what, and what was done to it.

use std::sync::atomic::Ordering;

use super::function::Function;
use super::iommu::{Dma, Entry};
use super::registers::Registers;
use super::{Simulated, locked};
use crate::address::Sbdf;
use crate::owner::DomainId;
use crate::platform::{HookError, Switch};

/// A guest that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The guest.
    pub guest: DomainId,
    /// The device that could still reach its memory.
    pub device: Sbdf,
    /// The error after which it could not be controlled.
    pub because: HookError,
}

impl<D, L> Simulated<D, L> {
    /// Where a request of this function lands now: nowhere if it is not there or its bus mastering is off.
    pub fn dma(&self, requester: Sbdf) -> Dma {
        self.dma_as(requester, requester)
    }

    /// Where a request that `device` sends under another of its requester IDs lands now.
    pub fn dma_as(&self, device: Sbdf, requester: Sbdf) -> Dma {
        let masters = self.places.find(device).is_some_and(Function::masters);
        if masters { self.dma_raw(requester) } else { Dma::Silent }
    }

    /// Where a request with this requester ID lands now, whoever sends it.
    pub fn dma_raw(&self, requester: Sbdf) -> Dma {
        self.places.find(requester).map_or(Dma::NoEntry, |place| place.translation.resolve())
    }

    /// What the IOMMU's tables hold for a requester ID.
    pub fn entry(&self, requester: Sbdf) -> Entry {
        self.places.find(requester).map_or(Entry::Absent, |place| place.translation.entry())
    }

    /// The entry of before that is still in use, because it was not flushed.
    pub fn cached_entry(&self, requester: Sbdf) -> Option<Entry> {
        self.places.find(requester)?.translation.cached()
    }

    /// All entries that are not absent, in address order.
    pub fn entries(&self) -> Vec<(Sbdf, Entry)> {
        let all = self.places.all().map(|(address, place)| (address, place.translation.entry()));
        let mut entries: Vec<_> = all.filter(|(_, entry)| *entry != Entry::Absent).collect();
        entries.sort_unstable_by_key(|(address, _)| *address);
        entries
    }

    /// The requester IDs of which an earlier entry is still cached, in address order.
    pub fn unflushed(&self) -> Vec<Sbdf> {
        self.addresses(|place| place.translation.cached().is_some())
    }

    /// The functions that are there, in address order.
    pub fn functions(&self) -> Vec<Sbdf> {
        self.addresses(Function::is_present)
    }

    /// The function's configuration space as it is now; `None` if it is not there.
    pub fn config(&self, address: Sbdf) -> Option<Vec<u8>> {
        Some(self.places.find(address)?.registers()?.bytes())
    }

    /// Whether the function's address translation services are on.
    pub fn ats(&self, address: Sbdf) -> Switch {
        let registers = self.places.find(address).and_then(Function::registers);
        registers.map_or(Switch::Off, Registers::ats)
    }

    /// Whether the device's MSI-X table is mapped for the host.
    pub fn msix_prepared(&self, device: Sbdf) -> bool {
        self.places.find(device).is_some_and(|place| place.msix_prepared.load(Ordering::Relaxed))
    }

    /// How often the function was reset, also by resets of others that reached it.
    pub fn resets(&self, function: Sbdf) -> u32 {
        self.places.find(function).map_or(0, Function::resets)
    }

    /// The guests that were stopped, in the order of the calls: the last 64.
    pub fn stopped(&self) -> Vec<Stopped> {
        locked(&self.stopped).iter().copied().collect()
    }

    /// The same; the record begins again.
    pub fn take_stopped(&self) -> Vec<Stopped> {
        locked(&self.stopped).drain(..).collect()
    }

    /// Which device which guest was asked to let go, in the order of the calls: the last 64.
    pub fn asked_unplug(&self) -> Vec<(Sbdf, DomainId)> {
        locked(&self.asked).iter().copied().collect()
    }

    /// The same; the record begins again.
    pub fn take_asked_unplug(&self) -> Vec<(Sbdf, DomainId)> {
        locked(&self.asked).drain(..).collect()
    }

    fn addresses(&self, which: impl Fn(&Function) -> bool) -> Vec<Sbdf> {
        let chosen = self.places.all().filter(|(_, place)| which(place));
        let mut addresses: Vec<_> = chosen.map(|(address, _)| address).collect();
        addresses.sort_unstable();
        addresses
    }
}
