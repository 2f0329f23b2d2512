//! The lock an embedder brings, and the data-carrying lock built on it.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroUsize;
use core::ops::{Deref, DerefMut};

use super::{MutPtr, UnsafeCell, WaitTable};

/// A mutual-exclusion lock: what a hypervisor or VMM passes as `Registry<D, L>`.
///
/// One type serves every lock of this crate, so an embedder writes it once:
///
/// 1. wrap the lock you have (a ticket lock, a spin lock that disables preemption, a futex) in a newtype and
///    implement the five methods;
/// 2. return from [`current`](Self::current) something that tells the running thread or vCPU from every other
///    one, such as the address of a per-CPU variable;
/// 3. declare one `static` [`WaitTable`] for the type and return it from [`waiters`](Self::waiters).
///
/// The lock need not be recursive or fair. It is held for short, bounded sections only, except for
/// configuration-space accesses, which run under the lock of their own device and of no other.
///
/// # Safety
///
/// Between the return of [`lock`](Self::lock), or of [`try_lock`](Self::try_lock) with `true`, and the next
/// call of [`unlock`](Self::unlock) no other call of `lock` or `try_lock` on the same value may succeed, and
/// what was written before `unlock` is visible after the next successful `lock` or `try_lock`.
/// [`current`](Self::current) never returns one value to two threads that run at the same time.
pub unsafe trait RawLock: Sized + Send + Sync + 'static {
    /// A new, unlocked lock. (Not a constant: the model checker's locks cannot be one.)
    fn new() -> Self;

    /// Takes the lock, waiting for as long as it takes. Must not unwind.
    fn lock(&self);

    /// Takes the lock if that needs no waiting; `true` if it was taken. May fail spuriously. Must not unwind.
    fn try_lock(&self) -> bool;

    /// Gives the lock back. Must not unwind.
    ///
    /// # Safety
    ///
    /// The caller holds the lock, and took it on this thread.
    unsafe fn unlock(&self);

    /// Names the calling thread or vCPU.
    fn current() -> NonZeroUsize;

    /// The table in which those who wait for a removal under this lock type register.
    fn waiters() -> &'static WaitTable<Self>;
}

/// A value that is reached only under its lock.
///
/// Public because a [`WaitTable`] is made of them; a panic under the lock does not poison it, since nothing of
/// an embedder's runs under the locks of this type.
pub struct Lock<T, L> {
    raw: L,
    value: UnsafeCell<T>,
}

// SAFETY: the raw lock admits one thread at a time to the value, so sharing needs only that it may be sent.
unsafe impl<T: Send, L: RawLock> Sync for Lock<T, L> {}

impl<T, L> Lock<T, L> {
    /// Joins an unlocked raw lock and a value; constant, for an embedder's `static`.
    #[cfg(not(loom))]
    pub const fn from_raw(raw: L, value: T) -> Self {
        Self { raw, value: UnsafeCell::new(value) }
    }

    /// Joins an unlocked raw lock and a value.
    #[cfg(loom)]
    pub fn from_raw(raw: L, value: T) -> Self {
        Self { raw, value: UnsafeCell::new(value) }
    }
}

impl<T, L: RawLock> Lock<T, L> {
    pub(crate) fn new(value: T) -> Self {
        Self::from_raw(L::new(), value)
    }

    pub(crate) fn lock(&self) -> Guard<'_, T, L> {
        self.raw.lock();
        Guard { lock: self, value: ManuallyDrop::new(self.value.get_mut()), not_send: PhantomData }
    }
}

impl<T, L> fmt::Debug for Lock<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

/// Access to the value of a [`Lock`]. Not `Send`: the thread that took a lock gives it back.
pub(crate) struct Guard<'a, T, L: RawLock> {
    lock: &'a Lock<T, L>,
    value: ManuallyDrop<MutPtr<T>>,
    not_send: PhantomData<*const ()>,
}

impl<T, L: RawLock> Deref for Guard<'_, T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so nobody else reaches the value, and `&self` lends it shared.
        unsafe { (*self.value).deref() }
    }
}

impl<T, L: RawLock> DerefMut for Guard<'_, T, L> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock, and `&mut self` lends the value once.
        unsafe { (*self.value).deref() }
    }
}

impl<T, L: RawLock> Drop for Guard<'_, T, L> {
    fn drop(&mut self) {
        // SAFETY: the pointer is dropped here and never used again.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        // SAFETY: the guard was made by `lock` on this thread (it is not `Send`) and is dropped once.
        unsafe { self.lock.raw.unlock() }
    }
}
