//! Both address spaces on one line: 2^64 bytes of memory, then 2^64 ports.
//!
//! On it every range is half open, the one that ends at the last address of a space too, and nothing overflows. A
//! BAR never crosses from one space into the other.

use core::ops::Range;

use super::piece::{AddressRange, BarId, BarSpace, Piece, Region};

/// A place on the line.
pub(super) type Place = u128;

/// How many addresses a space has.
const SPACE: Place = 1 << 64;

/// The place of an address.
pub(super) fn place(space: BarSpace, address: u64) -> Place {
    match space {
        BarSpace::Memory => Place::from(address),
        BarSpace::Io => SPACE + Place::from(address),
    }
}

/// The space and the address of a place.
fn address(place: Place) -> (BarSpace, u64) {
    let space = if place < SPACE { BarSpace::Memory } else { BarSpace::Io };
    (space, bytes(place % SPACE))
}

/// A number of bytes that is known to be below 2^64.
fn bytes(count: Place) -> u64 {
    debug_assert!(count < SPACE, "{count:#x} bytes in one space");
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Places from `start` on, before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: Place,
    pub(super) end: Place,
}

impl Extent {
    /// `None` for a range of nothing.
    pub(super) fn of_range(range: &AddressRange) -> Option<Self> {
        let AddressRange { space, addresses } = range;
        let (start, last) = (place(*space, *addresses.start()), place(*space, *addresses.end()));
        (start <= last).then_some(Self { start, end: last + 1 })
    }

    /// `None` if it is of no bytes, or ends beyond its space.
    pub(super) fn of_region(region: &Region<'_>) -> Option<Self> {
        let last = region.base.checked_add(region.size.checked_sub(1)?)?;
        Self::of_range(&AddressRange { space: region.space, addresses: region.base..=last })
    }

    /// Which space it is in.
    pub(super) fn space(self) -> BarSpace {
        address(self.start).0
    }

    /// The places so many bytes from its start on, of which it has some.
    pub(super) fn part(self, bytes: &Range<u64>) -> Option<Self> {
        let from_start = |offset| self.start + Place::from(offset);
        self.within(Self { start: from_start(bytes.start), end: from_start(bytes.end) })
    }

    /// What is in both.
    pub(super) fn within(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }
}

/// A BAR, and the place of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: BarId,
    pub(super) start: Place,
}

impl Placed {
    /// The part of the BAR that is there.
    pub(super) fn piece(self, there: Extent) -> Piece {
        let (space, base) = address(there.start);
        let length = bytes(there.end - there.start);
        Piece { id: self.id, offset: self.offset(there.start), space, base, length }
    }

    /// How far into the BAR a place is.
    pub(super) fn offset(self, place: Place) -> u64 {
        bytes(place - self.start)
    }
}
