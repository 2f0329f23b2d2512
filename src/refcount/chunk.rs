//! Where one segment's slots stand: close together, and for good.
//!
//! A slot may never move, so slots are kept in chunks that are filled and never grown. Standing side by side,
//! at the distance of their size, they miss the cache less than allocations of their own would, and a lookup
//! has just come through one dependent miss already. Chunks double from one slot on: a segment with one device
//! pays for one.

use alloc::vec::Vec;
use core::ptr::NonNull;

use crate::memory::NoMemory;

/// A chunk has at most this many slots.
const MOST: usize = 64;

/// The slots of one segment, under its writer lock.
///
/// # Invariants
///
/// No chunk is ever filled beyond the capacity it was made with, so its slots stay where they are until the
/// whole is dropped. Every pointer in `former` is to a slot in `chunks`.
pub(super) struct Chunks<S> {
    chunks: Vec<Vec<S>>,
    /// Slots that stood at a leaf and were replaced, for the next device of their address.
    former: Vec<NonNull<S>>,
}

// SAFETY: owns its slots, and lends `&S` to those who hold the lock around it.
unsafe impl<S: Send + Sync> Send for Chunks<S> {}

impl<S> Chunks<S> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), former: Vec::new() }
    }

    /// A new slot, which lives as long as these chunks.
    pub(super) fn make(&mut self, make: impl FnOnce() -> S) -> Result<NonNull<S>, NoMemory> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == chunk.capacity()) {
            let size = self.chunks.last().map_or(1, |last| (2 * last.capacity()).min(MOST));
            let mut chunk = Vec::new();
            chunk.try_reserve_exact(size)?;
            self.chunks.try_reserve(1)?;
            self.chunks.push(chunk);
        }
        let chunk = self.chunks.last_mut().ok_or(NoMemory)?;
        // INVARIANT: there is room, so nothing moves.
        chunk.push(make());
        // Through the chunk's own pointer, so that later pushes do not disturb it.
        let slot = chunk.as_mut_ptr().wrapping_add(chunk.len() - 1);
        NonNull::new(slot).ok_or(NoMemory)
    }

    /// Makes room for one more former slot.
    pub(super) fn reserve_former(&mut self) -> Result<(), NoMemory> {
        Ok(self.former.try_reserve(1)?)
    }

    /// Keeps a slot that stood at a leaf. Room must have been reserved.
    ///
    /// # Safety
    ///
    /// `slot` was made by these chunks.
    pub(super) unsafe fn keep_former(&mut self, slot: NonNull<S>) {
        // INVARIANT: the caller's promise.
        self.former.push(slot);
    }

    /// Takes out a former slot that fits.
    pub(super) fn take_former(&mut self, fits: impl Fn(&S) -> bool) -> Option<NonNull<S>> {
        // SAFETY: by the invariant.
        let place = self.former.iter().position(|slot| fits(unsafe { slot.as_ref() }))?;
        Some(self.former.swap_remove(place))
    }
}
