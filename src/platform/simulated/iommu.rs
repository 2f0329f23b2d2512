//! The IOMMU: what each requester ID reaches, and what it still reaches because nobody flushed.
//!
//! The model is of the worst hardware there is: every entry has been used just before it is changed, so the old
//! one stays cached until a flush. What a driver forgets to flush is therefore always visible, not only when a
//! cache happens to hold it. An absent entry is never cached, as on hardware without a caching mode.

use core::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::owner::{DomainId, Owner};

/// What the IOMMU's tables hold for a requester ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: a request is a fault.
    Absent,
    /// Tables that let nothing through.
    Blocked,
    /// The tables of this owner.
    Attached(Owner),
}

/// Where a request of a device lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dma {
    /// In this owner's memory.
    Reaches(Owner),
    /// Nowhere: the IOMMU blocks it.
    Blocked,
    /// Nowhere: the IOMMU has no entry, and reports a fault.
    NoEntry,
    /// There is no request: the function is not there, or its bus mastering is off.
    Silent,
}

impl Dma {
    /// The owner whose memory is reached.
    pub const fn reaches(self) -> Option<Owner> {
        match self {
            Self::Reaches(owner) => Some(owner),
            Self::Blocked | Self::NoEntry | Self::Silent => None,
        }
    }
}

impl fmt::Display for Dma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reaches(owner) => owner.fmt(f),
            Self::Blocked => f.pad("blocked"),
            Self::NoEntry => f.pad("no entry"),
            Self::Silent => f.pad("silent"),
        }
    }
}

/// The entry of one requester ID, and the copy of an earlier one that is still cached.
///
/// Each is one word: what it is in the upper half, a guest's number in the lower; 0 is absent, or not cached.
/// Changing an entry first leaves the old one in the cache and then replaces it, so a request that finds the
/// cache empty finds either the old entry or the new one, and never a third.
#[derive(Debug, Default)]
pub(super) struct Translation {
    entry: AtomicU64,
    cached: AtomicU64,
}

impl Translation {
    /// What the tables say.
    pub(super) fn entry(&self) -> Entry {
        unpack(self.entry.load(Ordering::Acquire))
    }

    /// What is cached of an earlier entry.
    pub(super) fn cached(&self) -> Option<Entry> {
        match self.cached.load(Ordering::Acquire) {
            0 => None,
            word => Some(unpack(word)),
        }
    }

    /// Changes the tables. One transition at a time does, since devices that share a requester ID move together.
    pub(super) fn change(&self, entry: Entry) {
        let (old, new) = (self.entry.load(Ordering::Relaxed), pack(entry));
        if old == new {
            return;
        }
        if self.cached.load(Ordering::Relaxed) == 0 {
            // Release: whoever takes the request from the cache sees what was done before this entry was in use.
            self.cached.store(old, Ordering::Release);
        }
        // Release: pairs with the Acquire of `resolve`; the new owner's memory was prepared before.
        self.entry.store(new, Ordering::Release);
    }

    /// Drops what is cached.
    pub(super) fn flush(&self) {
        if self.cached.load(Ordering::Relaxed) != 0 {
            // Release: who finds the cache empty from now on, by the Acquire of `resolve`, finds the new entry.
            self.cached.store(0, Ordering::Release);
        }
    }

    /// Whether no request can land anywhere, neither by what is cached nor, once that is flushed, by the tables.
    pub(super) fn is_blocked(&self) -> bool {
        let reaches = |entry| matches!(entry, Entry::Attached(_));
        !reaches(self.entry()) && !self.cached().is_some_and(reaches)
    }

    /// Where a request lands now.
    pub(super) fn resolve(&self) -> Dma {
        match self.cached().unwrap_or_else(|| self.entry()) {
            Entry::Attached(owner) => Dma::Reaches(owner),
            Entry::Blocked => Dma::Blocked,
            Entry::Absent => Dma::NoEntry,
        }
    }
}

const BLOCKED: u64 = 1;
const UNOWNED: u64 = 2;
const HOST: u64 = 3;
const QUARANTINE: u64 = 4;
const HIDDEN: u64 = 5;
const GUEST: u64 = 6;

fn pack(entry: Entry) -> u64 {
    let (tag, number) = match entry {
        Entry::Absent => (0, 0),
        Entry::Blocked => (BLOCKED, 0),
        Entry::Attached(Owner::Unowned) => (UNOWNED, 0),
        Entry::Attached(Owner::Host) => (HOST, 0),
        Entry::Attached(Owner::Quarantine) => (QUARANTINE, 0),
        Entry::Attached(Owner::Hidden) => (HIDDEN, 0),
        Entry::Attached(Owner::Guest(guest)) => (GUEST, guest.number()),
    };
    tag << 32 | u64::from(number)
}

fn unpack(word: u64) -> Entry {
    let [.., n3, n2, n1, n0] = word.to_be_bytes();
    match word >> 32 {
        BLOCKED => Entry::Blocked,
        UNOWNED => Entry::Attached(Owner::Unowned),
        HOST => Entry::Attached(Owner::Host),
        QUARANTINE => Entry::Attached(Owner::Quarantine),
        HIDDEN => Entry::Attached(Owner::Hidden),
        GUEST => Entry::Attached(Owner::Guest(DomainId::new(u32::from_be_bytes([n3, n2, n1, n0])))),
        _ => Entry::Absent,
    }
}
