//! What the BAR map is asked, and what it answers with.

use core::ops::{Range, RangeInclusive};

use crate::address::Sbdf;

/// Which of the two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BarSpace {
    /// Guest-physical memory.
    Memory,
    /// I/O ports.
    Io,
}

/// One BAR of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarId {
    /// The device's own address, not the guest's for it.
    pub device: Sbdf,
    /// The BAR slot, 0 to 5, or [`ROM`](Self::ROM). A 64-bit BAR is named by its first slot.
    pub bar: u8,
}

impl BarId {
    /// The number of the expansion ROM's BAR.
    pub const ROM: u8 = 6;
}

/// A range of guest addresses: a host bridge's window, RAM, an ECAM window. Up to the last address there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// Of which space.
    pub space: BarSpace,
    /// The first and the last address. Nothing if the first is after the last.
    pub addresses: RangeInclusive<u64>,
}

impl AddressRange {
    /// A range of memory.
    pub const fn memory(addresses: RangeInclusive<u64>) -> Self {
        Self { space: BarSpace::Memory, addresses }
    }

    /// A range of ports.
    pub const fn io(addresses: RangeInclusive<u64>) -> Self {
        Self { space: BarSpace::Io, addresses }
    }
}

/// Where a BAR is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region<'a> {
    /// The BAR slot, 0 to 5, or [`BarId::ROM`].
    pub bar: u8,
    /// Which space it is in.
    pub space: BarSpace,
    /// The guest address of its first byte.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Ranges in it, in bytes, that are always trapped: the pages of an MSI-X table and its PBA. What of them is
    /// beyond the BAR does not count.
    pub holes: &'a [Range<u64>],
}

/// A part of a BAR at the guest addresses where it answers. It never is longer than its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which BAR.
    pub id: BarId,
    /// Where the piece begins in the BAR, in bytes.
    pub offset: u64,
    /// Which space it is in.
    pub space: BarSpace,
    /// The guest address of its first byte.
    pub base: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// One step of the embedder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it counts as done"]
pub enum Change {
    /// Nothing is mapped at these guest addresses; this part of this BAR is to be.
    Map(Piece),
    /// This part of this BAR is mapped there, and is to be no more. It may be a part of what was mapped, or several
    /// mapped pieces that lie side by side.
    Unmap(Piece),
}

/// Which BARs of a device stop to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// All: the device leaves.
    All,
    /// Those of one space: that bit of the command register is cleared.
    Of(BarSpace),
    /// This slot: the ROM's enable bit is cleared.
    One(u8),
}

impl Bars {
    /// Whether this BAR is one of them.
    pub(super) fn contain(self, bar: u8, space: BarSpace) -> bool {
        match self {
            Self::All => true,
            Self::Of(one) => one == space,
            Self::One(one) => one == bar,
        }
    }
}
