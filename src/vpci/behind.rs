//! What is where no register is.

use crate::platform::Width;

/// What an access meets in the gaps between registers.
///
/// Called under the device's lock, so it is bounded and does not call back. `offset` is below 4096 and a multiple of
/// the width: a gap of three bytes is asked for as a byte and a word, or a word and a byte, whichever is aligned.
pub trait Behind {
    /// Reads a gap.
    fn read(&mut self, offset: u16, width: Width) -> u32;

    /// Writes a gap.
    fn write(&mut self, offset: u16, width: Width, value: u32);
}

/// Nothing: reads as ones, writes vanish. What a guest finds between the registers that are modelled for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ones;

impl Behind for Ones {
    #[inline]
    fn read(&mut self, _: u16, width: Width) -> u32 {
        super::register::all_bits(width)
    }

    #[inline]
    fn write(&mut self, _: u16, _: Width, _: u32) {}
}
