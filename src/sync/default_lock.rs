//! The lock a registry uses when the embedder names none: `parking_lot` under `std`, the model checker's in a model.

use core::fmt;
use core::num::NonZeroUsize;

use super::{RawLock, WaitTable};
#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

/// `parking_lot`'s mutex: one byte, no allocation, waiters parked by the system.
#[cfg(not(any(loom, shuttle)))]
pub struct DefaultLock(parking_lot::RawMutex);

// SAFETY: `parking_lot::RawMutex` is a mutual-exclusion lock with acquire and release semantics; the address of
// a thread-local variable belongs to one running thread at a time.
#[cfg(not(any(loom, shuttle)))]
unsafe impl RawLock for DefaultLock {
    #[inline]
    fn new() -> Self {
        Self(parking_lot::lock_api::RawMutex::INIT)
    }

    #[inline]
    fn lock(&self) {
        parking_lot::lock_api::RawMutex::lock(&self.0);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        parking_lot::lock_api::RawMutex::try_lock(&self.0)
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { parking_lot::lock_api::RawMutex::unlock(&self.0) }
    }

    #[inline]
    fn current() -> NonZeroUsize {
        std::thread_local! {
            static HERE: u8 = const { 0 };
        }
        HERE.with(|here| NonZeroUsize::from(core::ptr::NonNull::from(here).addr()))
    }

    fn waiters() -> &'static WaitTable<Self> {
        use super::{WAIT_BUCKETS, WaitBucket};
        static WAITERS: WaitTable<DefaultLock> = WaitTable::new(
            [const {
                let raw = DefaultLock(<parking_lot::RawMutex as parking_lot::lock_api::RawMutex>::INIT);
                WaitBucket::from_raw(raw, alloc::vec::Vec::new())
            }; WAIT_BUCKETS],
        );
        &WAITERS
    }
}

/// The model checker's mutex. Its guard stays in the lock between `lock` and `unlock`.
#[cfg(any(loom, shuttle))]
pub struct DefaultLock {
    mutex: checker::sync::Mutex<()>,
    guard: core::cell::UnsafeCell<Option<checker::sync::MutexGuard<'static, ()>>>,
}

// SAFETY: the guard is reached only by the thread that holds the mutex.
#[cfg(any(loom, shuttle))]
unsafe impl Send for DefaultLock {}
// SAFETY: as above.
#[cfg(any(loom, shuttle))]
unsafe impl Sync for DefaultLock {}

#[cfg(any(loom, shuttle))]
impl DefaultLock {
    fn keep(&self, guard: checker::sync::MutexGuard<'_, ()>) {
        // SAFETY: the guard borrows `self.mutex`, lives beside it and is taken out before `self` moves or goes;
        // holding the mutex, this thread alone reaches the cell.
        unsafe {
            *self.guard.get() = Some(core::mem::transmute::<
                checker::sync::MutexGuard<'_, ()>,
                checker::sync::MutexGuard<'static, ()>,
            >(guard));
        }
    }
}

// SAFETY: the checker's mutex excludes; its thread-local variables are one per modelled thread.
#[cfg(any(loom, shuttle))]
unsafe impl RawLock for DefaultLock {
    fn new() -> Self {
        Self { mutex: checker::sync::Mutex::new(()), guard: core::cell::UnsafeCell::new(None) }
    }

    fn lock(&self) {
        let guard = self.mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.keep(guard);
    }

    fn try_lock(&self) -> bool {
        self.mutex.try_lock().map(|guard| self.keep(guard)).is_ok()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the mutex, so this thread alone reaches the cell.
        drop(unsafe { (*self.guard.get()).take() });
    }

    fn current() -> NonZeroUsize {
        // Numbers, not addresses: loom does not see that freeing and reusing memory synchronizes threads.
        static NEXT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(1);
        checker::thread_local! {
            static HERE: usize = NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
        HERE.with(|here| NonZeroUsize::new(*here).unwrap_or(NonZeroUsize::MAX))
    }

    fn waiters() -> &'static WaitTable<Self> {
        use super::{WAIT_BUCKETS, WaitBucket};
        checker::lazy_static! {
            static ref WAITERS: WaitTable<DefaultLock> = WaitTable::new(core::array::from_fn::<_, WAIT_BUCKETS, _>(
                |_| WaitBucket::from_raw(DefaultLock::new(), alloc::vec::Vec::new())
            ));
        }
        // SAFETY: the checker drops its statics at the end of an execution, when no modelled thread runs any more.
        unsafe { core::mem::transmute::<&WaitTable<Self>, &'static WaitTable<Self>>(&*WAITERS) }
    }
}

impl fmt::Debug for DefaultLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultLock")
    }
}
