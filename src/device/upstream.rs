//! Which buses map to a bridge, and the outermost bridge above a device.
//!
//! Bridges that [map their buses](super::BridgeKind::maps_its_buses) are entered here with the range they had when they
//! were added, and taken out by address: at removal the hardware may already be unplugged and unreadable (Xen
//! re-reads it and leaves stale entries). Ranges nest, so nothing is stored per bus: a lookup finds the innermost
//! range around a bus, and taking a nested bridge out gives its buses back to its parent by itself.

use alloc::vec::Vec;

use super::bridge::{BridgeKind, BusRange};
use crate::address::{Bus, DevFn, Sbdf, Segment};

/// The number of buses of a segment, and so the most bridges a walk upwards can meet.
const BUSES: usize = 256;

/// A bridge that maps the buses behind it to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingBridge {
    /// The bridge.
    pub address: Sbdf,
    /// What it is; always one that [maps its buses](BridgeKind::maps_its_buses).
    pub kind: BridgeKind,
    /// The first bus behind it.
    pub secondary: Bus,
    /// The last bus behind it.
    pub subordinate: Bus,
}

impl MappingBridge {
    /// The requester ID it puts in place of those behind it: (secondary bus, 00.0) for a PCIe-to-PCI bridge
    /// (PCI Express to PCI/PCI-X Bridge 1.0 §2.3), its own for the others.
    pub const fn alias(self) -> Sbdf {
        match self.kind {
            BridgeKind::PcieToPci => Sbdf::new(self.address.segment(), self.secondary, DevFn::from_bits(0)),
            _ => self.address,
        }
    }
}

/// The mapping bridges of a machine, by segment.
#[derive(Clone, Debug, Default)]
pub struct BridgeMap {
    segments: Vec<Segment>,
    /// Sorted by segment, then secondary bus: at most one bridge for each.
    bridges: Vec<MappingBridge>,
}

/// Why there is no answer to what lies above a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The segment was never added.
    #[error("segment {0} is not known")]
    UnknownSegment(Segment),
    /// The bridges above the device lead back to themselves.
    #[error("the bridges above {0} form a loop")]
    Loop(Sbdf),
}

/// Why a bridge cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddBridgeError {
    /// Its secondary bus is 0 or above its subordinate: it is not set up.
    #[error("bridge {0} has no buses behind it: its bus numbers are unset or out of order")]
    NoBuses(Sbdf),
    /// Another bridge has the same secondary bus.
    #[error("bridge {0} has the secondary bus of {1}, which was added before")]
    SameSecondary(Sbdf, Sbdf),
    /// No memory for another entry.
    #[error("no memory for bridge {0}")]
    NoMemory(Sbdf),
}

impl BridgeMap {
    /// A map that knows no segment.
    pub const fn new() -> Self {
        Self { segments: Vec::new(), bridges: Vec::new() }
    }

    /// Makes a segment known; a segment with no mapping bridge must be added as well.
    ///
    /// Fails only for want of memory, and then changes nothing.
    pub fn add_segment(&mut self, segment: Segment) -> Result<(), alloc::collections::TryReserveError> {
        if let Err(place) = self.segments.binary_search(&segment) {
            self.segments.try_reserve(1)?;
            self.segments.insert(place, segment);
        }
        Ok(())
    }

    /// Enters a bridge, and its segment. A kind that maps nothing is ignored; the same bridge again replaces its
    /// range. On an error nothing changes.
    pub fn add(&mut self, address: Sbdf, kind: BridgeKind, range: BusRange) -> Result<(), AddBridgeError> {
        if !kind.maps_its_buses() {
            return Ok(());
        }
        let BusRange { secondary, subordinate, .. } = range;
        if secondary.number() == 0 || secondary > subordinate {
            return Err(AddBridgeError::NoBuses(address));
        }
        let twin = self.bridges.iter().find(|bridge| bridge.key() == (address.segment(), secondary));
        if let Some(twin) = twin.filter(|twin| twin.address != address) {
            return Err(AddBridgeError::SameSecondary(address, twin.address));
        }
        let no_memory = |_| AddBridgeError::NoMemory(address);
        self.bridges.try_reserve(1).map_err(no_memory)?;
        self.add_segment(address.segment()).map_err(no_memory)?;
        self.remove(address);
        let bridge = MappingBridge { address, kind, secondary, subordinate };
        let place = self.bridges.partition_point(|other| other.key() < bridge.key());
        self.bridges.insert(place, bridge);
        Ok(())
    }

    /// Takes a bridge out; its buses are its parent's again. Returns it as it was entered.
    pub fn remove(&mut self, address: Sbdf) -> Option<MappingBridge> {
        let place = self.bridges.iter().position(|bridge| bridge.address == address)?;
        Some(self.bridges.remove(place))
    }

    /// The innermost mapping bridge around a bus; `None` if the bus maps to no bridge.
    pub fn bridge_of(&self, segment: Segment, bus: Bus) -> Option<MappingBridge> {
        let end = self.bridges.partition_point(|bridge| bridge.key() <= (segment, bus));
        let same_segment = |bridge: &&MappingBridge| bridge.address.segment() == segment;
        // Nested ranges start later than those around them, so the last that reaches the bus is the innermost.
        let mut before = self.bridges.get(..end)?.iter().rev().take_while(same_segment);
        before.find(|bridge| bridge.subordinate >= bus).copied()
    }

    /// The outermost mapping bridge above a device, `None` if there is none. Takes at most 256 steps upwards.
    pub fn upstream_bridge(&self, address: Sbdf) -> Result<Option<MappingBridge>, UpstreamError> {
        let segment = address.segment();
        if self.segments.binary_search(&segment).is_err() {
            return Err(UpstreamError::UnknownSegment(segment));
        }
        // Each bridge has its own secondary bus, so more than 256 of them are a loop.
        if self.above(address).nth(BUSES).is_some() {
            return Err(UpstreamError::Loop(address));
        }
        Ok(self.above(address).last())
    }

    /// The mapping bridges above a device, innermost first. Endless on a loop.
    pub(super) fn above(&self, address: Sbdf) -> impl Iterator<Item = MappingBridge> {
        core::iter::successors(self.bridge_of(address.segment(), address.bus()), |below| {
            self.bridge_of(below.address.segment(), below.address.bus())
        })
    }
}

impl MappingBridge {
    const fn key(&self) -> (Segment, Bus) {
        (self.address.segment(), self.secondary)
    }
}
