//! The locks that are measured: the default one, a simple spin lock as a hypervisor has it, and the standard
//! library's.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::RawLock;
use pcidevs::sync::{WAIT_BUCKETS, WaitBucket, WaitTable};

use crate::measuring::pair::Pair;

/// A test-and-test-and-set lock.
pub(crate) struct Spin(AtomicBool);

// SAFETY: at most one thread changes `false` to `true`, with Acquire, and only the holder changes it back, with
// Release; a thread-local variable's address names its thread while it runs.
unsafe impl RawLock for Spin {
    #[inline]
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    #[inline]
    fn lock(&self) {
        while !self.try_lock() {
            while self.0.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }

    #[inline]
    fn current() -> NonZeroUsize {
        thread_local!(static HERE: u8 = const { 0 });
        HERE.with(|here| NonZeroUsize::from(std::ptr::NonNull::from(here).addr()))
    }

    fn waiters() -> &'static WaitTable<Self> {
        static WAITERS: WaitTable<Spin> = WaitTable::new(
            [const { WaitBucket::from_raw(Spin(AtomicBool::new(false)), Vec::new()) }; WAIT_BUCKETS],
        );
        &WAITERS
    }
}

impl Pair for std::sync::Mutex<()> {
    fn new() -> Self {
        Self::new(())
    }

    #[inline]
    fn with<R>(&self, step: impl FnOnce() -> R) -> R {
        let _guard = self.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        step()
    }
}
