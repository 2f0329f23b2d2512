//! Memory that may be refused.
//!
//! A transition that has begun must be able to end, so everything it needs is allocated before its first step
//! and every allocation can fail with [`NoMemory`]. Stable Rust offers that for vectors (`try_reserve`) only;
//! this module adds the shapes the core needs beside them: a box, a shared pointer, and a short list ([`Few`]).
#![allow(unsafe_code)]
#![cfg_attr(not(any(loom, shuttle)), expect(unreachable_pub, reason = "public for the models"))]

mod few;

use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

pub(crate) use few::Few;

use crate::sync::{AtomicUsize, Ordering, Site, fence, ordering, weakened};

/// Memory ran out. Nothing has changed; free some and ask again (ENOMEM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: nothing was changed, ask again once there is some")]
pub struct NoMemory;

impl From<alloc::collections::TryReserveError> for NoMemory {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        Self
    }
}

/// A box, or [`NoMemory`] and the value is dropped.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, NoMemory> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the layout has a size.
    let memory = NonNull::new(unsafe { alloc(layout) }.cast::<T>()).ok_or(NoMemory)?;
    // SAFETY: the memory is new, large and aligned enough for a `T`, and came from the global allocator with
    // the layout with which `Box` will free it.
    unsafe {
        memory.write(value);
        Ok(Box::from_raw(memory.as_ptr()))
    }
}

/// Shared ownership of one value, counted; `Arc` with an allocation that can fail.
///
/// # Invariants
///
/// `block` points to a live block for as long as this share exists; `shares` counts the shares.
pub struct Shared<T> {
    block: NonNull<Block<T>>,
    owns: PhantomData<Block<T>>,
}

struct Block<T> {
    shares: AtomicUsize,
    value: T,
}

// SAFETY: shares lend `&T` to every thread and the last one drops the `T` on its thread, as `Arc` does.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The first share of a new allocation.
    pub fn try_new(value: T) -> Result<Self, NoMemory> {
        let block = Box::leak(try_box(Block { shares: AtomicUsize::new(1), value })?);
        // INVARIANT: one share, counted as one.
        Ok(Self { block: NonNull::from(block), owns: PhantomData })
    }

    /// The address of the value, which names this allocation while a share exists.
    pub(crate) fn as_ptr(&self) -> NonNull<T> {
        // Through the block's own pointer, which may be followed back to the block.
        // SAFETY: the block lives while this share does, so the field's address is not null.
        unsafe { NonNull::new_unchecked(&raw mut (*self.block.as_ptr()).value) }
    }

    /// Gives a share away as a bare pointer to the value.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        let value = self.as_ptr();
        core::mem::forget(self);
        value
    }

    /// Takes a share back that [`into_raw`](Self::into_raw) gave away.
    ///
    /// # Safety
    ///
    /// `value` came from `into_raw`, and each pointer given away is taken back at most once.
    pub(crate) unsafe fn from_raw(value: NonNull<T>) -> Self {
        // SAFETY: the pointer is to the `value` field of a live block, so the block is that much before it.
        let block = unsafe { value.byte_sub(core::mem::offset_of!(Block<T>, value)) };
        // INVARIANT: the share counted for the given-away pointer is this one again.
        Self { block: block.cast(), owns: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block lives while this share does.
        unsafe { &self.block.as_ref().value }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // SAFETY: the block lives while this share does.
        let shares = unsafe { &self.block.as_ref().shares };
        // Relaxed: whoever clones holds a share already, so nothing can be freed meanwhile.
        if shares.fetch_add(1, Ordering::Relaxed) > usize::MAX / 2 {
            crate::refcount::abort("more than usize::MAX / 2 shares of one registry");
        }
        // INVARIANT: counted on the line above.
        Self { block: self.block, owns: PhantomData }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the block lives while this share does, which ends with this subtraction.
        let shares = unsafe { &self.block.as_ref().shares };
        // Release: pairs with the Acquire below, so that the last share frees after every other use.
        if shares.fetch_sub(1, ordering(Site::ShareRelease, Ordering::Release)) != 1 {
            return;
        }
        if !weakened(Site::ShareAcquire) {
            // Acquire: pairs with the Release above.
            fence(Ordering::Acquire);
        }
        // SAFETY: this was the last share; the block came from `try_box`.
        drop(unsafe { Box::from_raw(self.block.as_ptr()) });
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.block, f)
    }
}
