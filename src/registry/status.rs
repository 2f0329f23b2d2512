//! What a list or a dump shows of a device.

use alloc::vec::Vec;

use super::binding::Record;
use crate::Sbdf;
use crate::owner::Owner;
use crate::refcount::{Holder, Slot, State};
use crate::sync::RawLock;

/// One device at one instant (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its address.
    pub address: Sbdf,
    /// Its owner; `None` if it was leaving at that instant, or its lock is held by the calling thread.
    pub owner: Option<Owner>,
    /// Where it is in its life.
    pub phase: Phase,
    /// References besides the creation reference.
    pub uses: u32,
    /// Those of them without a name.
    pub unnamed: u32,
    /// The names.
    pub holders: Vec<Holder>,
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// In use or ready to be.
    Live,
    /// Its removal waits for the last use.
    Removing,
    /// Reported gone; its holders keep the object.
    Gone,
    /// Closed: being torn down.
    Closed,
}

impl Status {
    pub(super) fn of<D, L: RawLock>(slot: &Slot<Record<D>, L>) -> Self {
        let owner = slot.lock().ok().flatten().map(|device| device.binding.place().owner());
        let phase = match slot.glance().state() {
            State::Live => Phase::Live,
            State::Removing => Phase::Removing,
            State::Gone => Phase::Gone,
            State::Closed => Phase::Closed,
        };
        let (uses, unnamed, holders) =
            slot.busy().map_or((0, 0, Vec::new()), |busy| (busy.uses, busy.unnamed, busy.holders));
        Self { address: slot.address(), owner, phase, uses, unnamed, holders }
    }
}
