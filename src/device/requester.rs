//! Requester IDs: every name under which a device's requests may reach the IOMMU.
//!
//! Every IOMMU step is done for all of them, and devices that share one cannot be kept apart: they are assigned
//! together or not at all. Aliases that only an embedder knows of (quirks) are added by the embedder.

use super::phantom::{Stride, phantom_functions};
use super::upstream::{BridgeMap, UpstreamError};
use crate::address::Sbdf;

/// One requester ID of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequesterId {
    /// The ID, as the address of the function that would send it.
    pub id: Sbdf,
    /// Why requests carry it.
    pub source: RequesterSource,
}

/// Why a device's requests carry a requester ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequesterSource {
    /// It is the device's address.
    Own,
    /// It is a phantom function of the device.
    Phantom,
    /// The bridge at this address puts it in place of the device's.
    Bridge(Sbdf),
}

/// All requester IDs of the device at `address`: its own, its phantom functions', then the aliases of the
/// bridges above it, innermost first. At most 1 + 7 + 256, none twice unless bridges share one; nothing is
/// allocated.
///
/// Fails if the segment is unknown or the bridges above the device form a loop.
pub fn requester_ids(
    address: Sbdf,
    stride: Option<Stride>,
    bridges: &BridgeMap,
) -> Result<impl Iterator<Item = RequesterId>, UpstreamError> {
    bridges.upstream_bridge(address)?;
    let own = RequesterId { id: address, source: RequesterSource::Own };
    let phantoms = stride.into_iter().flat_map(move |stride| phantom_functions(address, stride));
    let phantoms = phantoms.map(|id| RequesterId { id, source: RequesterSource::Phantom });
    let aliases = bridges
        .above(address)
        .map(|bridge| RequesterId { id: bridge.alias(), source: RequesterSource::Bridge(bridge.address) })
        // A device at (secondary bus, 00.0) has its bridge's alias for its own address.
        .filter(move |alias| alias.id != address);
    Ok(core::iter::once(own).chain(phantoms).chain(aliases))
}
