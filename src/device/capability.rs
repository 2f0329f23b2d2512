//! The list of capabilities in the first 256 bytes (PCIe 6.0 §7.5.1.1.11).
//!
//! The walk visits each of the at most 48 aligned places above the header once, so it ends on any bytes.

use alloc::vec::Vec;

use super::chain::{ChainWarning, Visited, collect};
use super::config::{ConfigSpace, HEADER_SIZE};
use super::header::{HeaderLayout, announces_capabilities};

const POINTER: usize = 0x34;
const CARDBUS_POINTER: usize = 0x14;

/// One capability of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    /// Where it stands, in bytes; a multiple of 4 from 40 on.
    pub offset: u8,
    /// Its capability ID, as the PCI Code and ID Assignment Specification numbers them.
    pub id: u8,
}

/// The capabilities in chain order, repeats included, and what was wrong with the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In chain order. The same ID may come several times (vendor-specific ones do).
    pub found: Vec<Capability>,
    /// In the order met.
    pub warnings: Vec<ChainWarning>,
}

impl Capabilities {
    /// Walks the list. A [dead](ConfigSpace::is_dead) function or a record without a header has none.
    pub fn read(config: ConfigSpace<'_>) -> Self {
        let (found, warnings) = collect(Walk::new(config));
        Self { found, warnings }
    }
}

/// The list as [`Capabilities::read`] finds it, without allocating.
pub(crate) fn walk(config: ConfigSpace<'_>) -> impl Iterator<Item = Result<Capability, ChainWarning>> {
    Walk::new(config)
}

/// The offset of the first capability with this ID, in bytes. Does not allocate.
pub fn find(config: ConfigSpace<'_>, id: u8) -> Option<u8> {
    Walk::new(config).flatten().find(|capability| capability.id == id).map(|capability| capability.offset)
}

/// A walk along the list; each step is a capability or a warning.
struct Walk<'a> {
    config: ConfigSpace<'a>,
    visited: Visited,
    next: Next,
}

/// What the walk looks at next.
enum Next {
    Start,
    /// A pointer as read, its low bits not yet masked.
    Pointer(u8),
    /// A pointer whose low bits are clear.
    Place(u8),
    End,
}

impl<'a> Walk<'a> {
    fn new(config: ConfigSpace<'a>) -> Self {
        let next = if config.is_dead() { Next::End } else { Next::Start };
        Self { config, visited: Visited::default(), next }
    }

    /// The pointer in the header, or why it is not followed.
    fn start(&self) -> Option<Result<u8, ChainWarning>> {
        if self.config.len() < HEADER_SIZE {
            return None;
        }
        let at = match HeaderLayout::read(self.config)? {
            HeaderLayout::CardBus => CARDBUS_POINTER,
            _ => POINTER,
        };
        match (announces_capabilities(self.config)?, self.config.u8(at)?) {
            (true, 0) => Some(Err(ChainWarning::EmptyList)),
            (true, pointer) => Some(Ok(pointer)),
            (false, 0 | 0xff) => None,
            (false, pointer) => Some(Err(ChainWarning::PointerWithoutList { pointer: pointer.into() })),
        }
    }

    /// The capability at an aligned place, or why there is none.
    fn capability(&mut self, offset: u8) -> Result<Capability, ChainWarning> {
        let at = u16::from(offset);
        if usize::from(offset) < HEADER_SIZE {
            return Err(ChainWarning::PointerTooLow { pointer: at });
        }
        if !self.visited.insert(at) {
            return Err(ChainWarning::Loop { at });
        }
        let [id, next] = self.config.u16(offset.into()).ok_or(ChainWarning::Truncated { at })?.to_le_bytes();
        if id == 0xff {
            return Err(ChainWarning::ReadsOnes { at });
        }
        self.next = if next == 0 { Next::End } else { Next::Pointer(next) };
        Ok(Capability { offset, id })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Capability, ChainWarning>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match core::mem::replace(&mut self.next, Next::End) {
                Next::End => return None,
                Next::Start => match self.start()? {
                    Ok(pointer) => self.next = Next::Pointer(pointer),
                    Err(warning) => return Some(Err(warning)),
                },
                Next::Pointer(pointer) => {
                    let place = pointer & !3;
                    // A pointer of 1 to 3 is the end of the list with reserved bits set.
                    self.next = if place == 0 { Next::End } else { Next::Place(place) };
                    if place != pointer {
                        return Some(Err(ChainWarning::Unaligned { pointer: pointer.into() }));
                    }
                }
                Next::Place(place) => return Some(self.capability(place)),
            }
        }
    }
}
