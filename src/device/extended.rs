//! The list of extended capabilities, from offset 100 on (PCIe 6.0 §7.6.3).
//!
//! It has no head pointer: the first header stands at 100, and a header of zeroes there means an empty list. The
//! walk visits each of the 960 aligned places at most once.

use alloc::vec::Vec;

use super::chain::{ChainWarning, Visited, collect};
use super::config::{ConfigSpace, EXTENDED_START};

/// One extended capability of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExtendedCapability {
    /// Where it stands, in bytes; a multiple of 4 from 100 on.
    pub offset: u16,
    /// Its extended capability ID.
    pub id: u16,
    /// Its version, 4 bits.
    pub version: u8,
}

/// The extended capabilities in chain order, repeats included, and what was wrong with the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedCapabilities {
    /// In chain order.
    pub found: Vec<ExtendedCapability>,
    /// In the order met.
    pub warnings: Vec<ChainWarning>,
}

impl ExtendedCapabilities {
    /// Walks the list; empty where there is [no extended space](ConfigSpace::has_extended).
    pub fn read(config: ConfigSpace<'_>) -> Self {
        let (found, warnings) = collect(Walk::new(config));
        Self { found, warnings }
    }
}

/// The list as [`ExtendedCapabilities::read`] finds it, without allocating.
pub(crate) fn walk(
    config: ConfigSpace<'_>,
) -> impl Iterator<Item = Result<ExtendedCapability, ChainWarning>> {
    Walk::new(config)
}

/// The offset of the first extended capability with this ID, in bytes. Does not allocate.
pub fn find(config: ConfigSpace<'_>, id: u16) -> Option<u16> {
    Walk::new(config).flatten().find(|capability| capability.id == id).map(|capability| capability.offset)
}

/// A walk along the list; each step is a capability or a warning.
struct Walk<'a> {
    config: ConfigSpace<'a>,
    visited: Visited,
    /// The pointer to follow next, its low bits as read; 0 at the end.
    pointer: u16,
    /// Whether the low bits of `pointer` were reported.
    reported: bool,
}

impl<'a> Walk<'a> {
    fn new(config: ConfigSpace<'a>) -> Self {
        let pointer = if config.has_extended() { 0x100 } else { 0 };
        Self { config, visited: Visited::default(), pointer, reported: false }
    }

    /// The capability at an aligned place; `Ok(None)` for an empty list.
    fn capability(&mut self, offset: u16) -> Result<Option<ExtendedCapability>, ChainWarning> {
        if usize::from(offset) < EXTENDED_START {
            return Err(ChainWarning::PointerTooLow { pointer: offset });
        }
        if !self.visited.insert(offset) {
            return Err(ChainWarning::Loop { at: offset });
        }
        let header = self.config.u32(offset.into()).ok_or(ChainWarning::Truncated { at: offset })?;
        match header {
            u32::MAX => return Err(ChainWarning::ReadsOnes { at: offset }),
            0 if usize::from(offset) == EXTENDED_START => return Ok(None),
            0 => return Err(ChainWarning::ReadsZero { at: offset }),
            _ => {}
        }
        let [id_low, id_high, mixed, next_high] = header.to_le_bytes();
        self.pointer = u16::from(next_high) << 4 | u16::from(mixed >> 4);
        let id = u16::from_le_bytes([id_low, id_high]);
        Ok(Some(ExtendedCapability { offset, id, version: mixed & 0xf }))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<ExtendedCapability, ChainWarning>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.pointer & !3;
        if place != self.pointer && !core::mem::replace(&mut self.reported, true) {
            return Some(Err(ChainWarning::Unaligned { pointer: self.pointer }));
        }
        self.reported = false;
        self.pointer = 0;
        if place == 0 { None } else { self.capability(place).transpose() }
    }
}
