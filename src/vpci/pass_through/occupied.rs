//! Which bytes of a configuration space belong to something already.

use core::ops::Range;

use crate::device::{FULL_SIZE, HEADER_SIZE};

/// A bit for each byte.
pub(super) struct Occupied([u64; FULL_SIZE / 64]);

impl Occupied {
    /// The header's are.
    pub(super) fn header() -> Self {
        let mut occupied = Self([0; FULL_SIZE / 64]);
        occupied.mark(0..HEADER_SIZE);
        occupied
    }

    /// Takes these bytes if all of them are free and there.
    pub(super) fn take(&mut self, bytes: Range<u16>) -> bool {
        let bytes = usize::from(bytes.start)..usize::from(bytes.end);
        let is_free = bytes.end <= FULL_SIZE && bytes.clone().all(|byte| !self.has(byte));
        if is_free {
            self.mark(bytes);
        }
        is_free
    }

    fn has(&self, byte: usize) -> bool {
        self.0.get(byte / 64).is_some_and(|word| word >> (byte % 64) & 1 != 0)
    }

    /// Takes these bytes, free or not.
    pub(super) fn mark(&mut self, bytes: Range<usize>) {
        for byte in bytes {
            if let Some(word) = self.0.get_mut(byte / 64) {
                *word |= 1 << (byte % 64);
            }
        }
    }
}
