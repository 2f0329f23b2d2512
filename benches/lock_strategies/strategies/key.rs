//! What maps are keyed by: an address in 32 bits, as Xen's interfaces pack it, and a hash for it.

use std::hash::{BuildHasherDefault, Hasher};

use pcidevs::Sbdf;

/// Segments here are small.
#[inline]
pub(crate) fn key(address: Sbdf) -> u32 {
    address.segment().number() << 16 | u32::from(address.bdf())
}

/// One multiplication. The standard library's hash would cost more than the lookup.
#[derive(Clone, Default)]
pub(crate) struct OneMultiplication(u64);

impl Hasher for OneMultiplication {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        // hashbrown takes its tag from the highest bits and the place from the lowest, so both must be mixed.
        let product = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

pub(super) type FastHash = BuildHasherDefault<OneMultiplication>;
