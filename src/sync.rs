//! The one place that names loom, shuttle, `parking_lot` and core's atomics.
//!
//! Everything above imports its atomics, cells and locks from here, so that one `--cfg loom` turns the shipped
//! protocol into the checked one. What loom does not model is named where it matters: it has no mixed-size
//! accesses, its `SeqCst` is weaker than the language's, and it keeps seven stores of history per atomic.
//! `--cfg shuttle` does the same for whole lives, which are too long to explore: shuttle runs schedules at random,
//! takes every ordering for `SeqCst`, and does not look into cells.
//!
//! Locks are the embedder's: [`RawLock`] is ours and small, because features unify across a build and a `cfg`
//! could never choose between `parking_lot` and a hypervisor's own lock. Under `std` a [`DefaultLock`] exists.
#![allow(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "pcidevs keeps generation, count and state of a device in one 64-bit word: the target needs 64-bit atomics"
);

#[cfg(not(loom))]
mod cell;
#[cfg(any(feature = "std", loom, shuttle))]
mod default_lock;
mod lock;
pub(crate) mod site;
mod wait;

pub use lock::{Lock, RawLock};
pub use wait::{WAIT_BUCKETS, WaitBucket, WaitTable, Waiter};

#[cfg(any(feature = "std", loom, shuttle))]
pub use default_lock::DefaultLock;

/// A public type over the embedder's lock `L`, which has a default where a default lock exists.
macro_rules! with_default_lock {
    ($(#[$meta:meta])* pub struct $name:ident<$($parameter:tt),+; L> $($fields:tt)*) => {
        #[cfg(any(feature = "std", loom, shuttle))]
        $(#[$meta])*
        pub struct $name<$($parameter),+, L: $crate::RawLock = $crate::DefaultLock> $($fields)*

        #[cfg(not(any(feature = "std", loom, shuttle)))]
        $(#[$meta])*
        pub struct $name<$($parameter),+, L: $crate::RawLock> $($fields)*
    };
}
pub(crate) use with_default_lock;

pub(crate) use lock::Guard;
pub(crate) use site::{Site, ordering, weakened};
pub(crate) use wait::Number;

pub(crate) use core::sync::atomic::Ordering;

/// What an atomic holds, for somebody about to write it.
///
/// Under loom this is a read-modify-write. loom remembers only the last access to an atomic, so a load that goes
/// before a thread's own write would hide the other threads' loads before it, and the interleavings with them.
#[inline]
pub(crate) fn load_to_write_u64(atomic: &AtomicU64, load: Ordering) -> u64 {
    if cfg!(loom) { atomic.fetch_or(0, load) } else { atomic.load(load) }
}

/// The same for a pointer.
#[inline]
pub(crate) fn load_to_write_ptr<T>(atomic: &AtomicPtr<T>, load: Ordering) -> *mut T {
    if cfg!(loom) {
        let null = core::ptr::null_mut();
        atomic.compare_exchange(null, null, load, load).unwrap_or_else(|held| held)
    } else {
        atomic.load(load)
    }
}

/// Whether something happened that others must heed at once.
///
/// On every machine there is a relaxed load finds what another thread has written, since caches are coherent. The
/// language promises that only for some time, and loom makes use of it: a loop of relaxed loads may miss a write for
/// ever. So under loom a flag beside the value, read by read-modify-writes, stands for the load.
#[derive(Debug)]
pub(crate) struct AtOnce(#[cfg(loom)] AtomicBool);

#[cfg(loom)]
impl AtOnce {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn set(&self, happened: bool) {
        self.0.swap(happened, Ordering::Relaxed);
    }

    pub(crate) fn look(&self, _load: impl FnOnce() -> bool) -> bool {
        self.0.fetch_or(false, Ordering::Relaxed)
    }
}

#[cfg(not(loom))]
#[expect(clippy::unused_self, reason = "it has a self under loom")]
impl AtOnce {
    pub(crate) const fn new() -> Self {
        Self()
    }

    #[inline(always)]
    pub(crate) fn set(&self, _happened: bool) {}

    #[inline(always)]
    pub(crate) fn look(&self, load: impl FnOnce() -> bool) -> bool {
        load()
    }
}

/// Atomics that no interleaving is decided by: a thread's own mark, or a value some lock protects. loom would
/// explore every access to them for nothing. shuttle explores nothing, so it may as well switch threads there.
pub(crate) mod unexplored {
    pub(crate) use core::sync::atomic::AtomicPtr;
    #[cfg(not(shuttle))]
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
}

#[cfg(not(loom))]
pub(crate) use cell::{MutPtr, UnsafeCell};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence,
};

#[cfg(loom)]
pub(crate) use loom::{
    cell::{MutPtr, UnsafeCell},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence,
};
