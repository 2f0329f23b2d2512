//! The three handles: a use, a named use, and a weak one.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::Holder;
use super::arena::Arena;
use super::locked::Locked;
use super::names::{OnGone, Token};
use super::slot::{Slot, WouldDeadlock};
use crate::memory::{NoMemory, Shared};
use crate::sync::RawLock;

/// A use of a device: while it exists the device cannot be removed.
///
/// # Invariants
///
/// Owns one counted reference of `slot`. The device's own share of the arena keeps the slot while any
/// reference exists.
pub(crate) struct Ref<T, L: RawLock> {
    slot: NonNull<Slot<T, L>>,
    drops: PhantomData<T>,
}

// SAFETY: lends `&Slot` and may run the destructor of `T` on the dropping thread; `T: Send` allows both, as no
// `&T` is lent without the device lock.
unsafe impl<T: Send, L: RawLock> Send for Ref<T, L> {}
// SAFETY: as above.
unsafe impl<T: Send, L: RawLock> Sync for Ref<T, L> {}

impl<T, L: RawLock> Ref<T, L> {
    /// # Safety
    ///
    /// The caller owns one counted reference of `slot` and hands it over.
    #[inline]
    pub(crate) unsafe fn from_counted(slot: NonNull<Slot<T, L>>) -> Self {
        // INVARIANT: the caller's reference is this one's.
        Self { slot, drops: PhantomData }
    }

    /// The counted reference as a bare pointer; leaks it unless it comes back through `from_counted`.
    pub(crate) fn into_counted(self) -> NonNull<Slot<T, L>> {
        ManuallyDrop::new(self).slot
    }

    #[inline]
    pub(crate) fn slot(&self) -> &Slot<T, L> {
        // SAFETY: by the invariant.
        unsafe { self.slot.as_ref() }
    }

    /// Locked access for settling, also to a device that is gone.
    pub(crate) fn settle(&self) -> Result<Locked<'_, T, L>, WouldDeadlock> {
        Locked::with_reference(self)
    }

    /// Gives the use a name. Without memory for it the use is put.
    #[inline]
    pub(crate) fn named(self, holder: Holder) -> Result<NamedRef<T, L>, NoMemory> {
        let token = self.slot().add_name(holder)?;
        // SAFETY: this reference is handed over.
        Ok(unsafe { NamedRef::from_counted(self.into_counted(), token) })
    }

    pub(crate) fn downgrade(&self) -> WeakRef<T, L> {
        let slot = self.slot();
        WeakRef { arena: slot.arena(), slot: self.slot, generation: slot.glance().generation() }
    }
}

impl<T, L: RawLock> Clone for Ref<T, L> {
    fn clone(&self) -> Self {
        self.slot().word.get_more();
        // INVARIANT: counted on the line above.
        Self { slot: self.slot, drops: PhantomData }
    }
}

impl<T, L: RawLock> Drop for Ref<T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the invariant; the reference is not used again.
        unsafe { Slot::put(self.slot) }
    }
}

impl<T, L: RawLock> fmt::Debug for Ref<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(&self.slot().address()).finish()
    }
}

/// A use with a name, for long-lived users: `Busy` says who they are.
pub(crate) struct NamedRef<T, L: RawLock> {
    /// `None` only while it is being dropped or taken apart.
    reference: ManuallyDrop<Ref<T, L>>,
    token: Token,
}

impl<T, L: RawLock> NamedRef<T, L> {
    /// # Safety
    ///
    /// The caller owns one counted reference of `slot` and the name `token` that stands for it, and hands
    /// both over.
    #[inline]
    pub(super) unsafe fn from_counted(slot: NonNull<Slot<T, L>>, token: Token) -> Self {
        // SAFETY: the caller's promise.
        Self { reference: ManuallyDrop::new(unsafe { Ref::from_counted(slot) }), token }
    }

    pub(crate) fn slot(&self) -> &Slot<T, L> {
        self.reference.slot()
    }

    pub(crate) fn reference(&self) -> &Ref<T, L> {
        &self.reference
    }

    /// Has `call` called once if the device is reported gone while this reference exists.
    pub(crate) fn on_gone(&self, call: OnGone) {
        self.slot().set_on_gone(self.token, call);
    }

    /// Leaves the reference with its slot, under its name, until [`Slot::unpark`] takes it back.
    pub(crate) fn park(self) {
        let this = ManuallyDrop::new(self);
        this.slot().park_name(this.token);
    }

    /// Lets the name go and leaves the reference counted. For a closer that owns it: the count goes with the device.
    pub(crate) fn forfeit(self) {
        let this = ManuallyDrop::new(self);
        this.slot().remove_name(this.token);
    }
}

impl<T, L: RawLock> Drop for NamedRef<T, L> {
    #[inline]
    fn drop(&mut self) {
        use crate::sync::{Site, weakened};
        if weakened(Site::NameBeforePut) {
            let slot = self.reference.slot;
            // SAFETY: dropped once; the mutant then touches what it may not.
            unsafe {
                ManuallyDrop::drop(&mut self.reference);
                slot.as_ref().remove_name(self.token);
            }
            return;
        }
        // The name goes before its reference, so names never outnumber references.
        self.slot().remove_name(self.token);
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.reference) };
    }
}

impl<T, L: RawLock> fmt::Debug for NamedRef<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedRef").field(&self.slot().address()).finish()
    }
}

/// A device's name without a use of it: keeps the memory of slots and tables, nothing else (R7).
pub(crate) struct WeakRef<T, L: RawLock> {
    arena: Shared<Arena<T, L>>,
    slot: NonNull<Slot<T, L>>,
    generation: u32,
}

// SAFETY: lends `&Slot`, which is `Sync` for `T: Send`, and shares of the arena likewise.
unsafe impl<T: Send, L: RawLock> Send for WeakRef<T, L> {}
// SAFETY: as above.
unsafe impl<T: Send, L: RawLock> Sync for WeakRef<T, L> {}

impl<T, L: RawLock> WeakRef<T, L> {
    pub(super) fn new(arena: Shared<Arena<T, L>>, slot: &Slot<T, L>, generation: u32) -> Self {
        assert!(slot.belongs_to(&arena), "a slot and the arena that keeps it");
        Self { arena, slot: NonNull::from(slot), generation }
    }

    pub(crate) fn slot(&self) -> &Slot<T, L> {
        // SAFETY: the slot is the arena's (checked by `new`), and `self.arena` keeps the arena.
        unsafe { self.slot.as_ref() }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// A use, if the device is still the same one and live.
    pub(crate) fn upgrade(&self) -> Option<Ref<T, L>> {
        // SAFETY: counted by the upgrade.
        self.slot().word.upgrade(self.generation).then(|| unsafe { Ref::from_counted(self.slot) })
    }
}

impl<T, L: RawLock> Clone for WeakRef<T, L> {
    fn clone(&self) -> Self {
        Self { arena: self.arena.clone(), slot: self.slot, generation: self.generation }
    }
}
