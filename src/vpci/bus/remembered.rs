//! What one vCPU remembers of where its accesses went.
//!
//! An address is found by searching windows and tables. A vCPU remembers what it found, by the page, and the version of
//! the guest's routes at which it did. As long as the version is the same so is the answer, and then one load of a line
//! that hardly ever changes, and one line of its own, is all that dispatch costs. Whatever changes what an address is,
//! a BAR that is mapped or a port that is given other bus numbers, makes a new version.

use super::routes::{BeingWritten, Route, Routes};
use crate::address::{Bus, DevFn, Sbdf, Segment};

/// What of a device an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Config,
    /// Configuration space of a bus that is not there.
    NoBus,
    Bar(u8),
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The device, where it is at home.
    pub(super) seen_at: Sbdf,
    pub(super) part: Part,
    /// In the part.
    pub(super) offset: u64,
}

/// What is remembered of a range of addresses: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Known {
    first: u64,
    last: u64,
    /// Where offset 0 of the part would be; around the end of the address space if a piece before it is cut away.
    base: u64,
    segment: Segment,
    bus: Bus,
    devfn: DevFn,
    part: Part,
}

impl Known {
    /// No address is of it.
    const NOTHING: Self = Self {
        first: 1,
        last: 0,
        base: 0,
        segment: Segment::new(0),
        bus: Bus::new(0),
        devfn: DevFn::from_bits(0),
        part: Part::NoBus,
    };

    fn new(first: u64, last: u64, base: u64, seen_at: Sbdf, part: Part) -> Self {
        let (segment, bus, devfn) = (seen_at.segment(), seen_at.bus(), seen_at.devfn());
        Self { first, last, base, segment, bus, devfn, part }
    }

    /// The configuration space of a function: 4 KiB that begin at `base`.
    pub(super) fn config(base: u64, seen_at: Option<Sbdf>) -> Self {
        let part = if seen_at.is_some() { Part::Config } else { Part::NoBus };
        Self::new(base, base + 0xfff, base, seen_at.unwrap_or_default(), part)
    }

    #[inline]
    fn has(&self, address: u64) -> bool {
        self.first <= address && address <= self.last
    }

    #[inline]
    pub(super) fn place(&self, address: u64) -> Place {
        let seen_at = Sbdf::new(self.segment, self.bus, self.devfn);
        Place { seen_at, part: self.part, offset: address.wrapping_sub(self.base) }
    }
}

impl From<Route> for Known {
    fn from(route: Route) -> Self {
        let (first, last) = route.addresses.into_inner();
        Self::new(first, last, first.wrapping_sub(route.offset), route.seen_at, Part::Bar(route.bar))
    }
}

/// What a vCPU remembers of one address space: `PLACES` (a power of two) ranges, each found by the page of `1 << PAGE`
/// bytes that was accessed last. A guest has more BARs than it uses at a time, so this holds what a search would find
/// again.
#[derive(Debug)]
pub(super) struct Remembered<const PLACES: usize, const PAGE: u32> {
    /// Of the routes when all of them were found.
    version: u64,
    known: [Known; PLACES],
}

impl<const PLACES: usize, const PAGE: u32> Remembered<PLACES, PAGE> {
    pub(super) const fn nothing() -> Self {
        Self { version: 0, known: [Known::NOTHING; PLACES] }
    }

    /// Where what is known of an address is kept.
    #[inline]
    pub(super) fn index(address: u64) -> usize {
        // Multiplied by the golden ratio, pages at any regular distance are spread, in the upper bits best.
        let spread = (address >> PAGE).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Fewer than `PLACES`, which is a power of two.
        (spread >> 32) as usize >> (32 - PLACES.ilog2()) & (PLACES - 1)
    }

    /// What an address is, if that is remembered and still so.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "as a call it returns a structure through memory, which costs more than it"
    )]
    pub(super) fn find(&self, routes: &Routes, address: u64) -> Option<Place> {
        let known = &self.known[Self::index(address)];
        (routes.is_still(self.version) && known.has(address)).then(|| known.place(address))
    }

    /// Looks up which BAR an address is of, and remembers it.
    pub(super) fn look_up(&mut self, routes: &Routes, address: u64) -> Result<Option<Place>, BeingWritten> {
        let (version, route) = routes.find(address)?;
        Ok(route.map(|route| self.remember(version, address, route.into())))
    }

    /// Remembers what was found at this version.
    pub(super) fn remember(&mut self, version: u64, address: u64, known: Known) -> Place {
        if self.version != version {
            *self = Self { version, ..Self::nothing() };
        }
        self.known[Self::index(address)] = known;
        known.place(address)
    }
}
