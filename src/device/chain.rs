//! What both capability lists have in common: the ways a linked list read from hardware can be wrong.
//!
//! A list is followed as far as it makes sense and no further. What was found stands; what stopped the walk, or
//! had to be corrected on the way, is a [`ChainWarning`].

use alloc::vec::Vec;

/// Something wrong with a capability list. Offsets are bytes into the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ChainWarning {
    /// The list came back to a capability it had been at. The walk stopped there.
    #[error("the capability list loops back to {at:#x}")]
    Loop {
        /// The capability met a second time.
        at: u16,
    },
    /// A pointer leads into the header (below 40) or, for extended capabilities, below 100. The walk stopped.
    #[error("a capability pointer leads to {pointer:#x}, below the first possible place")]
    PointerTooLow {
        /// Where it leads.
        pointer: u16,
    },
    /// The two low bits of a pointer are set. They are reserved: masked, and the walk went on
    /// (PCIe 6.0 §7.5.1.1.11).
    #[error("capability pointer {pointer:#x} is not a multiple of 4")]
    Unaligned {
        /// The pointer as read.
        pointer: u16,
    },
    /// The list continues where nothing was recorded. The walk stopped.
    #[error("the capability list continues at {at:#x}, past the end of what was read")]
    Truncated {
        /// The first capability that could not be read.
        at: u16,
    },
    /// A capability reads all ones, as absent hardware does. The walk stopped.
    #[error("the capability at {at:#x} reads all ones")]
    ReadsOnes {
        /// The capability.
        at: u16,
    },
    /// The Status register announces a list, its pointer is 0.
    #[error("a capability list is announced, but its pointer is 0")]
    EmptyList,
    /// There is a pointer, but the Status register announces no list. It was not followed.
    #[error("capability pointer {pointer:#x}, but no capability list is announced")]
    PointerWithoutList {
        /// The pointer as read.
        pointer: u16,
    },
    /// An extended capability's header reads zero in the middle of the list, where it ends the list.
    #[error("the extended capability at {at:#x} reads zero")]
    ReadsZero {
        /// The capability.
        at: u16,
    },
}

/// Walks a list to its end: what was found, and what was wrong, each in the order met.
pub(super) fn collect<C>(walk: impl Iterator<Item = Result<C, ChainWarning>>) -> (Vec<C>, Vec<ChainWarning>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for step in walk {
        match step {
            Ok(capability) => found.push(capability),
            Err(warning) => warnings.push(warning),
        }
    }
    (found, warnings)
}

/// Which of the 1024 aligned places of a configuration space have been visited.
#[derive(Clone, Debug, Default)]
pub(super) struct Visited([u64; 16]);

impl Visited {
    /// Marks the place at `offset`; false if it was marked before.
    pub(super) fn insert(&mut self, offset: u16) -> bool {
        let place = usize::from(offset >> 2);
        let Some(word) = self.0.get_mut(place / 64) else { return false };
        let bit = 1 << (place % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
