//! Memory that a guest reaches: RAM, and BARs that are mapped directly.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// What page tables can tell apart.
pub(crate) const PAGE: u32 = 4096;
const DWORDS: usize = PAGE as usize / 4;

/// A page. Atomic, since the guest writes it whenever it likes.
#[repr(C, align(4096))]
struct Page([AtomicU32; DWORDS]);

/// Zeroed pages with one address for as long as a clone exists.
#[derive(Clone)]
pub(crate) struct Memory(Arc<[Page]>);

impl Memory {
    pub(crate) fn new(size: u32) -> Self {
        let page = || Page([const { AtomicU32::new(0) }; DWORDS]);
        Self((0..size.div_ceil(PAGE)).map(|_| page()).collect())
    }

    /// Where it is in this process.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.0.len() as u64 * u64::from(PAGE)
    }

    /// The 4 bytes at this offset; ones beyond the end.
    pub(crate) fn load(&self, offset: u64) -> u32 {
        // The guest orders its accesses itself.
        self.dword(offset).map_or(u32::MAX, |dword| dword.load(Ordering::Relaxed))
    }

    /// Stores 4 bytes; nothing beyond the end.
    pub(crate) fn store(&self, offset: u64, value: u32) {
        if let Some(dword) = self.dword(offset) {
            dword.store(value, Ordering::Relaxed);
        }
    }

    /// Fills in bytes before the guest runs.
    pub(crate) fn write(&self, offset: u32, bytes: &[u8]) {
        for (at, byte) in (u64::from(offset)..).zip(bytes) {
            let shift = at % 4 * 8;
            let before = self.load(at) & !(0xff << shift);
            self.store(at, before | u32::from(*byte) << shift);
        }
    }

    fn dword(&self, offset: u64) -> Option<&AtomicU32> {
        let dword = usize::try_from(offset / 4).ok()?;
        self.0.get(dword / DWORDS)?.0.get(dword % DWORDS)
    }
}
