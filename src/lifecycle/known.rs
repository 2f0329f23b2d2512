//! What is known of a device when it is added: read once, from configuration space and from the platform.

use alloc::vec::Vec;

use super::error::TransitionError;
use super::group::Group;
use super::topology::Topology;
use crate::Sbdf;
use crate::address::DevFn;
use crate::device::{
    BridgeKind, BusRange, ConfigSpace, Express, HeaderLayout, Stride, find_capability,
    find_extended_capability, phantom_functions,
};
use crate::memory::{NoMemory, Shared};
use crate::platform::{Facts, Platform, Width};
use crate::registry::with_room;

const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
const ATS: u16 = 0x0f;

/// How much is read of a function without an extended space, and with one.
const CONVENTIONAL: u16 = 0x100;
const EXTENDED: u16 = 0x1000;

/// What transitions need to know of a device. Never changes; "add again" replaces the whole.
pub(super) struct Known<L: crate::sync::RawLock> {
    /// What the IOMMU sees: the device's own ID first, then phantoms, bridge aliases and quirks.
    pub(super) requesters: Vec<Sbdf>,
    pub(super) stride: Option<Stride>,
    pub(super) msi: Option<u16>,
    pub(super) msix: Option<u16>,
    /// Where its ATS capability is.
    pub(super) ats: Option<u16>,
    /// Whether it may go to a guest at all.
    pub(super) is_endpoint: bool,
    /// The buses behind it, as they were when it was added.
    pub(super) behind: Option<(BridgeKind, BusRange)>,
    pub(super) group: Option<Shared<Group<L>>>,
}

impl<L: crate::sync::RawLock> Known<L> {
    /// Whether one of its requester IDs is one of `other`'s as well.
    pub(super) fn shares_requester(&self, other: &Self) -> bool {
        self.requesters.iter().any(|requester| other.requesters.contains(requester))
    }

    /// Its phantom functions.
    pub(super) fn phantoms(&self, at: Sbdf) -> impl Iterator<Item = Sbdf> + use<L> {
        self.stride.into_iter().flat_map(move |stride| phantom_functions(at, stride))
    }

    /// The first and the last address of the buses behind it, if it is a bridge that is set up.
    pub(super) fn buses_behind(&self, at: Sbdf) -> Option<(Sbdf, Sbdf)> {
        self.behind.and_then(|(_, range)| addresses_behind(at, range))
    }
}

/// A function's configuration space, as far as it is there.
pub(super) fn read_config<P: Platform>(platform: &P, at: Sbdf) -> Result<Vec<u8>, NoMemory> {
    let mut bytes = with_room(usize::from(EXTENDED))?;
    read_to(platform, at, CONVENTIONAL, &mut bytes);
    if Express::read(ConfigSpace::new(&bytes)).is_some() {
        read_to(platform, at, EXTENDED, &mut bytes);
    }
    Ok(bytes)
}

fn read_to<P: Platform>(platform: &P, at: Sbdf, end: u16, bytes: &mut Vec<u8>) {
    let begin = u16::try_from(bytes.len()).unwrap_or(end);
    for offset in (begin..end).step_by(4) {
        bytes.extend_from_slice(&platform.config_read(at, offset, Width::Dword).to_le_bytes());
    }
}

/// The first and the last address of a bridge's buses, if it is set up.
pub(super) fn addresses_behind(bridge: Sbdf, range: BusRange) -> Option<(Sbdf, Sbdf)> {
    let on = |bus, devfn| Sbdf::new(bridge.segment(), bus, DevFn::from_bits(devfn));
    (range.secondary.number() > 0).then(|| (on(range.secondary, 0), on(range.subordinate, 0xff)))
}

/// What configuration space says of a function, before its place among the others is known.
pub(super) struct Read {
    config: Vec<u8>,
    pub(super) behind: Option<(BridgeKind, BusRange)>,
    stride: Option<Stride>,
}

impl Read {
    pub(super) fn new<P: Platform>(platform: &P, at: Sbdf, facts: &Facts) -> Result<Self, NoMemory> {
        let bytes = read_config(platform, at)?;
        let config = ConfigSpace::new(&bytes);
        let behind = BridgeKind::read(config).zip(BusRange::read(config));
        let listed = || listed_stride(platform, at, facts);
        let stride = Stride::read(config, at.devfn()).or_else(listed);
        Ok(Self { behind, stride, config: bytes })
    }

    /// Everything, with the bridges above the device and its group.
    pub(super) fn complete<L: crate::sync::RawLock>(
        self,
        at: Sbdf,
        facts: &Facts,
        topology: &Topology,
        group: Option<Shared<Group<L>>>,
    ) -> Result<Known<L>, TransitionError> {
        let config = ConfigSpace::new(&self.config);
        let endpoint = HeaderLayout::read(config) == Some(HeaderLayout::Endpoint);
        Ok(Known {
            requesters: topology.requesters(at, self.stride, &facts.aliases)?,
            stride: self.stride,
            msi: find_capability(config, MSI).map(u16::from),
            msix: find_capability(config, MSIX).map(u16::from),
            ats: find_extended_capability(config, ATS),
            is_endpoint: endpoint && self.behind.is_none() && !is_host_bridge(config),
            behind: self.behind,
            group,
        })
    }
}

/// Base class 06, subclass 00.
fn is_host_bridge(config: ConfigSpace<'_>) -> bool {
    config.u16(0x0a) == Some(0x0600)
}

/// The stride that the embedder lists for a device, bumped while a real device answers at one of the phantoms.
fn listed_stride<P: Platform>(platform: &P, at: Sbdf, facts: &Facts) -> Option<Stride> {
    let mut functions = facts.phantom_stride?;
    loop {
        let stride = Stride::new(functions)?.for_function(at.devfn())?;
        let answers = |phantom| platform.config_read(phantom, 0, Width::Word) & 0xffff != 0xffff;
        if !phantom_functions(at, stride).any(answers) {
            return Some(stride);
        }
        functions *= 2;
    }
}
