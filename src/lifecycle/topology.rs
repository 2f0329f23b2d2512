//! Bridges, as they were when they were added: what is above a device, and its requester IDs.
//!
//! Kept here and not re-read: when a bridge is removed its hardware may be unplugged already.

use alloc::vec::Vec;

use super::error::TransitionError;
use crate::Sbdf;
use crate::address::Bus;
use crate::device::{AddBridgeError, BridgeKind, BridgeMap, BusRange, MappingBridge, Stride, requester_ids};
use crate::memory::NoMemory;

/// All bridges of a machine, under the lock around it.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// Those that stand for the devices behind them.
    mapping: BridgeMap,
    /// All of them, for what is behind what.
    bridges: Vec<Bridge>,
    /// Devices that are being added and took what is above them from here.
    coming: Vec<Sbdf>,
}

/// A bridge and the buses behind it.
#[derive(Clone, Copy, Debug)]
struct Bridge {
    address: Sbdf,
    secondary: Bus,
    subordinate: Bus,
}

impl Topology {
    /// Enters a bridge, if the function is one and is set up.
    pub(super) fn add(
        &mut self,
        at: Sbdf,
        behind: Option<(BridgeKind, BusRange)>,
    ) -> Result<(), TransitionError> {
        self.mapping.add_segment(at.segment()).map_err(NoMemory::from)?;
        let Some((kind, range)) = behind else { return Ok(()) };
        if range.secondary.number() == 0 || range.secondary > range.subordinate {
            return Ok(());
        }
        self.bridges.try_reserve(1).map_err(NoMemory::from)?;
        self.mapping.add(at, kind, range).map_err(|error| match error {
            AddBridgeError::NoMemory(_) => NoMemory.into(),
            _ => TransitionError::Topology(at),
        })?;
        self.bridges.retain(|bridge| bridge.address != at);
        let BusRange { secondary, subordinate, .. } = range;
        self.bridges.push(Bridge { address: at, secondary, subordinate });
        Ok(())
    }

    /// Takes a function out; what was behind it is its parent's again.
    pub(super) fn remove(&mut self, at: Sbdf) {
        self.mapping.remove(at);
        self.bridges.retain(|bridge| bridge.address != at);
    }

    /// A device is being added: the bridge right above it. Until it is [here](Self::arrived), no bridge comes above it.
    pub(super) fn come(&mut self, at: Sbdf) -> Result<Option<Sbdf>, NoMemory> {
        self.coming.try_reserve(1)?;
        self.coming.push(at);
        Ok(self.parent(at))
    }

    /// The device is found by its address now, or was not added.
    pub(super) fn arrived(&mut self, at: Sbdf) {
        self.coming.retain(|other| *other != at);
    }

    /// A device that is being added at one of these addresses.
    pub(super) fn comes_within(&self, (first, last): (Sbdf, Sbdf)) -> Option<Sbdf> {
        self.coming.iter().copied().find(|at| (first..=last).contains(at))
    }

    /// The bridge right above a device.
    pub(super) fn parent(&self, at: Sbdf) -> Option<Sbdf> {
        let above = |bridge: &&Bridge| {
            bridge.address.segment() == at.segment()
                && bridge.address != at
                && (bridge.secondary..=bridge.subordinate).contains(&at.bus())
        };
        // Ranges nest, so the innermost begins last.
        self.bridges.iter().filter(above).max_by_key(|bridge| bridge.secondary).map(|bridge| bridge.address)
    }

    /// The outermost bridge that stands for a device.
    pub(super) fn upstream(&self, at: Sbdf) -> Result<Option<MappingBridge>, TransitionError> {
        self.mapping.upstream_bridge(at).map_err(|_| TransitionError::Topology(at))
    }

    /// All requester IDs of a device, none twice, its own first.
    pub(super) fn requesters(
        &self,
        at: Sbdf,
        stride: Option<Stride>,
        quirks: &[Sbdf],
    ) -> Result<Vec<Sbdf>, TransitionError> {
        let mut requesters = Vec::new();
        let ids = requester_ids(at, stride, &self.mapping).map_err(|_| TransitionError::Topology(at))?;
        for id in ids.map(|requester| requester.id).chain(quirks.iter().copied()) {
            if !requesters.contains(&id) {
                requesters.try_reserve(1).map_err(NoMemory::from)?;
                requesters.push(id);
            }
        }
        Ok(requesters)
    }
}
