//! Waiting for what another thread carries out.

use crate::platform::HookError;
use crate::sync::RawLock;
use crate::vpci::bus::wiring::{Target, Wiring};

/// Something that threads wait for. A wake is a hint: who waits looks again.
pub(super) trait Waits {
    /// The lock type whose waiters these are among.
    type Lock: RawLock;

    /// What those who wait are found by.
    fn key(&self) -> usize {
        core::ptr::from_ref(self).cast::<()>().addr()
    }

    /// Whoever waits looks again.
    fn wake(&self) {
        Self::Lock::waiters().wake(self.key());
    }
}

/// Returns when it is so. What makes it so is followed by a wake.
pub(super) fn until<W: Waits>(waits: &W, wiring: &impl Wiring, mut is_so: impl FnMut() -> bool) {
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    if let Ok(place) = W::Lock::waiters().join(waits.key()) {
        use core::task::Poll;
        // Looked at again after the registration: a wake that came before it woke nobody.
        let blocked = crate::registry::block_on(None, |waker| {
            if is_so() {
                return Poll::Ready(());
            }
            W::Lock::waiters().register(waits.key(), place, waker);
            if is_so() { Poll::Ready(()) } else { Poll::Pending }
        });
        W::Lock::waiters().leave(waits.key(), place);
        if blocked.is_some() {
            return;
        }
    }
    while !is_so() {
        let _ = waits.key();
        wiring.relax();
    }
}

/// Calls a hook; a panic is a failure, where there is `std` to catch it.
pub(super) fn guarded<R>(hook: impl FnOnce() -> Result<R, HookError>) -> Result<R, HookError> {
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).unwrap_or(Err(HookError::PANICKED))
    }
    #[cfg(not(all(feature = "std", not(any(loom, shuttle)))))]
    hook()
}

/// Tells the embedder of what could not be done.
pub(super) fn report(wiring: &impl Wiring, target: Target, error: HookError) {
    // A panic in a report is nothing to undo for.
    let _reported = guarded(|| {
        wiring.failed(target, error);
        Ok(())
    });
}
