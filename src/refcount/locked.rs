//! Access to a device under its lock, without a count.
//!
//! This is the default way to a device's state, and the cheapest: one lock pair. Taking the lock first and
//! looking at the word second is what makes it exact. Closing happens under the same lock, so either this
//! access is over before the device is closed, or it finds it closed and touches nothing.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::reference::{NamedRef, Ref};
use super::slot::{Slot, WouldDeadlock};
use super::word::State;
use super::{Audience, Holder};
use crate::memory::NoMemory;
use crate::sync::{MutPtr, RawLock, Site, weakened};

/// The device lock, held, and the device's state behind it. Not `Send`.
pub(crate) struct Locked<'a, T, L: RawLock> {
    slot: &'a Slot<T, L>,
    value: ManuallyDrop<MutPtr<MaybeUninit<T>>>,
    state: State,
    not_send: PhantomData<*const ()>,
}

impl<'a, T, L: RawLock> Locked<'a, T, L> {
    #[inline]
    pub(super) fn new(slot: &'a Slot<T, L>) -> Result<Option<Self>, WouldDeadlock> {
        slot.lock_raw()?;
        let seen = slot.word.look(Site::LockedAcquire);
        // REMOVING is let through: a guest must be able to quiesce the device it is losing.
        if !seen.is_present() && !weakened(Site::LockedChecksState) {
            // SAFETY: taken above, on this thread.
            unsafe { slot.unlock_raw() };
            return Ok(None);
        }
        let value = ManuallyDrop::new(slot.value.get_mut());
        Ok(Some(Self { slot, value, state: seen.state(), not_send: PhantomData }))
    }

    /// The same for somebody who holds a reference, which keeps the state of a device that is gone: for
    /// settling what it had, never for an access.
    pub(super) fn with_reference(reference: &'a Ref<T, L>) -> Result<Self, WouldDeadlock> {
        let slot = reference.slot();
        slot.lock_raw()?;
        let state = slot.word.look(Site::LockedAcquire).state();
        Ok(Self { slot, value: ManuallyDrop::new(slot.value.get_mut()), state, not_send: PhantomData })
    }

    pub(crate) fn slot(&self) -> &'a Slot<T, L> {
        self.slot
    }

    /// The device's state when the lock was taken.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Publishes these registers, instead of any before. They are not shown until [`show`](Self::show).
    pub(crate) fn publish(&mut self, registers: &[u32]) -> Result<(), NoMemory> {
        self.slot.published_or_make()?.publish(registers)
    }

    /// One published register is another value from now on; `false` if it is not published.
    pub(crate) fn set_published(&mut self, register: usize, value: u32) -> bool {
        self.slot.published().is_some_and(|published| published.set(register, value))
    }

    /// Nothing is published any more.
    pub(crate) fn unpublish(&mut self) {
        self.slot.unpublish();
    }

    /// Shows what is published to this audience, unless the device is gone.
    pub(crate) fn show(&mut self, audience: Audience) {
        // Reported gone after this look, it is drained after this lock.
        if self.slot.glance().is_present()
            && let Some(published) = self.slot.published()
        {
            published.show(audience);
        }
    }

    /// Shows nothing until the next [`show`](Self::show).
    pub(crate) fn veil(&mut self) {
        if !weakened(Site::MarkVeils) {
            self.slot.veil();
        }
    }

    /// Takes a reference that outlasts the lock, also while a removal is pending: an effect of the access that
    /// is still to come keeps the device.
    pub(crate) fn keep(&self, holder: Holder) -> Result<NamedRef<T, L>, NoMemory> {
        self.keep_unnamed().named(holder)
    }

    /// The same without a name, which cannot fail.
    pub(crate) fn keep_unnamed(&self) -> Ref<T, L> {
        // The device was LIVE or REMOVING under the lock. Closing needs the lock, and whoever reports it gone
        // needs the lock before it puts the creation reference, so the count is at least 1 here.
        self.slot.word.get_more();
        // SAFETY: counted on the line above.
        unsafe { Ref::from_counted(NonNull::from(self.slot)) }
    }
}

impl<T, L: RawLock> Deref for Locked<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: under the device lock, with the word LIVE or REMOVING when it was taken: the value is there,
        // and it is destroyed only by a thread that has had the lock after us. `&self` lends it shared.
        unsafe { (*self.value).deref().assume_init_ref() }
    }
}

impl<T, L: RawLock> DerefMut for Locked<'_, T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut self` lends it once.
        unsafe { (*self.value).deref().assume_init_mut() }
    }
}

impl<T, L: RawLock> Drop for Locked<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here and never used again.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        // SAFETY: taken in `new`, on this thread, since this guard is not `Send`.
        unsafe { self.slot.unlock_raw() }
    }
}

impl<T, L: RawLock> fmt::Debug for Locked<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locked").field(&self.slot).finish()
    }
}
