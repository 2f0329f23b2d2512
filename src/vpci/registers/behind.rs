//! What is where no register is.

use super::register::all_bits;
use crate::platform::Width;

/// What an access meets in the gaps between registers; the model that the handlers work on says so.
///
/// Unless a model says otherwise a gap reads as ones and writes vanish: what a guest finds between the registers that
/// are modelled for it. Called under the device's lock, so it is bounded and does not call back. `offset` is below 4096
/// and a multiple of the width: a gap of three bytes is asked for as a byte and a word, or a word and a byte, whichever
/// is aligned.
pub trait Behind {
    /// Reads a gap.
    #[inline]
    fn read_gap(&mut self, offset: u16, width: Width) -> u32 {
        let _ = offset;
        all_bits(width)
    }

    /// Writes a gap.
    #[inline]
    fn write_gap(&mut self, offset: u16, width: Width, value: u32) {
        let _ = (offset, width, value);
    }
}

/// No model: what is between registers reads as ones.
impl Behind for () {}
