//! The answer to a removal that cannot be: who is still there.

use alloc::vec::Vec;
use core::fmt;

use super::Holder;

/// The device is in use and exactly as it was before the call. Ask the holders to let go, or wait with a
/// removal ticket (EBUSY).
///
/// The figures are of one instant: `uses` is what the word counted besides the creation reference while the
/// names could not change. A holder that is no reference (a removal already under way, a DMA teardown) stands
/// in the way with `uses` 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Busy {
    /// References besides the creation reference.
    pub uses: u32,
    /// Those of them that carry no name, such as a handle from `get` on some thread's stack.
    pub unnamed: u32,
    /// The names, in no particular order.
    pub holders: Vec<Holder>,
    /// There was no memory for the names, so some are missing in `holders`; `uses` and `unnamed` are exact all the same.
    pub truncated: bool,
}

impl Busy {
    /// Somebody stands in the way without being a reference.
    pub(crate) fn because(holder: Holder) -> Self {
        Self { uses: 0, unnamed: 0, holders: Vec::new(), truncated: false }.and(holder)
    }

    /// The same, and somebody who is no reference.
    pub(crate) fn and(mut self, holder: Holder) -> Self {
        match self.holders.try_reserve_exact(1) {
            Ok(()) => self.holders.push(holder),
            Err(_) => self.truncated = true,
        }
        self
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in use: {} {}", self.uses, if self.uses == 1 { "reference" } else { "references" })?;
        if !self.holders.is_empty() {
            f.write_str(", held by ")?;
            for (place, holder) in self.holders.iter().enumerate() {
                if place > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{holder}")?;
            }
        }
        if self.unnamed > 0 {
            write!(f, ", {} unnamed", self.unnamed)?;
        }
        if self.truncated {
            f.write_str(" (no memory for the names)")?;
        }
        Ok(())
    }
}

impl core::error::Error for Busy {}
