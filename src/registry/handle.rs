//! The handles an embedder holds: a use, a named use, a weak handle, and the device lock.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::binding::{Place, Record};
use super::claim::is_claimed;
use super::status::Status;
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::refcount::{self, Holder, NamedRef, OnGone, Ref, State, WeakRef, WouldDeadlock};
use crate::sync::{RawLock, with_default_lock};

/// Why a device could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No device is there for this caller: never added, removed, reported gone, or somebody else's. A guest
    /// reads ones and its writes vanish (ENODEV).
    #[error("no device at this address: a read is all ones, a write is dropped")]
    NotFound,
    /// The calling thread is inside this device already and would wait for itself (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
}

with_default_lock! {
    /// A use of a device. While it exists the device cannot be removed, only reported gone.
    ///
    /// Cheap: one atomic operation to make, one to drop, 8 bytes. For long-lived users a [`Hold`] says by name who
    /// keeps the device. `clone` is a get and cannot fail, `drop` is a put (R5); both also go by the field's names.
    ///
    /// ```
    /// use pcidevs::{RemoveError, Registry, Sbdf};
    /// let registry: Registry<&str> = Registry::new()?;
    /// let address: Sbdf = "00:1f.0".parse()?;
    /// registry.add(address, "isa bridge")?;
    /// let device = registry.get(address).ok_or("just added")?;
    /// assert!(matches!(registry.remove_device(address), Err(RemoveError::Busy(busy)) if busy.uses == 1));
    /// device.put();
    /// registry.remove_device(address)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Handle<D; L>(pub(super) Ref<Record<D>, L>);
}

impl<D, L: RawLock> Handle<D, L> {
    /// The device's address.
    pub fn address(&self) -> Sbdf {
        self.0.slot().address()
    }

    /// One more use, counted. The same as `clone`.
    #[must_use]
    pub fn get(&self) -> Self {
        self.clone()
    }

    /// Gives the use back. The same as `drop`.
    pub fn put(self) {}

    /// Takes the device lock. [`AccessError::NotFound`] once the device was reported gone: then this handle
    /// keeps the object's memory and nothing else.
    pub fn lock(&self) -> Result<Locked<'_, D, L>, AccessError> {
        self.0.slot().lock()?.map(Locked::new).ok_or(AccessError::NotFound)
    }

    /// Runs `step` under the device lock, also when the device is gone: for settling what it had.
    pub(crate) fn settle(&self, step: &mut dyn FnMut(&mut D)) -> Result<(), WouldDeadlock> {
        step(&mut self.0.settle()?.data);
        Ok(())
    }

    /// A handle that remembers the device without keeping it.
    pub fn downgrade(&self) -> Weak<D, L> {
        Weak(self.0.downgrade())
    }

    /// A second, named use of the device, also while its removal is pending.
    pub fn hold(&self, holder: Holder) -> Result<Hold<D, L>, NoMemory> {
        self.0.clone().named(holder).map(Hold)
    }

    /// Count, holders and owner of the device, for a list or a dump (R10).
    pub fn status(&self) -> Status {
        Status::of(self.0.slot())
    }

    /// The use as a bare pointer, for C code; the count is unchanged.
    pub fn into_raw(self) -> NonNull<()> {
        self.0.into_counted().cast()
    }

    /// Takes a use back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    ///
    /// `raw` came from `into_raw` of a handle with the same `D` and `L`, and is taken back once.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller's promise: the pointer stands for one counted reference.
        Self(unsafe { Ref::from_counted(raw.cast()) })
    }
}

impl<D, L: RawLock> Clone for Handle<D, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D, L: RawLock> fmt::Debug for Handle<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&format_args!("{}", self.address())).finish()
    }
}

with_default_lock! {
    /// A named use of a device: what a `Busy` lists (R2). For a VF on its PF, an open VFIO device, a pending
    /// effect: whatever may hold a device for longer than a call.
    pub struct Hold<D; L>(pub(super) NamedRef<Record<D>, L>);
}

impl<D, L: RawLock> Hold<D, L> {
    /// The device's address.
    pub fn address(&self) -> Sbdf {
        self.0.slot().address()
    }

    /// An unnamed use beside this one.
    pub fn handle(&self) -> Handle<D, L> {
        Handle(self.0.reference().clone())
    }

    /// The device was reported gone, as seen after whoever reported it began to look for its dependants.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.slot().is_gone_by_names()
    }

    /// As [`Handle::settle`].
    pub(crate) fn settle(&self, step: &mut dyn FnMut(&mut D)) -> Result<(), WouldDeadlock> {
        step(&mut self.0.reference().settle()?.data);
        Ok(())
    }

    /// Ends a use that a closer of the device owns: the count goes with the device.
    pub(crate) fn forfeit(self) {
        self.0.forfeit();
    }

    /// As [`Handle::lock`].
    pub fn lock(&self) -> Result<Locked<'_, D, L>, AccessError> {
        self.0.slot().lock()?.map(Locked::new).ok_or(AccessError::NotFound)
    }

    /// Has `call` called once, with the address and this holder, when the device is reported gone while this
    /// hold exists: on the reporter's thread, no lock held. A later call of this method replaces it.
    pub fn on_gone(&self, call: OnGone) {
        self.0.on_gone(call);
    }

    /// Gives the use back. The same as `drop`.
    pub fn put(self) {}
}

impl<D, L: RawLock> fmt::Debug for Hold<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&format_args!("{}", self.address())).finish()
    }
}

with_default_lock! {
    /// Names a device without keeping it (R7). What lists, dumps, metrics and snapshots hold.
    ///
    /// It keeps the memory of the registry's slots and tables, so it may outlive device and registry.
    pub struct Weak<D; L>(pub(super) WeakRef<Record<D>, L>);
}

impl<D, L: RawLock> Weak<D, L> {
    /// The address the device has, or had.
    pub fn address(&self) -> Sbdf {
        self.0.slot().address()
    }

    /// A use of the device, if it is still here and no removal has begun. Fails also when another device has
    /// come to the same address since.
    pub fn upgrade(&self) -> Option<Handle<D, L>> {
        self.0.upgrade().map(Handle)
    }
}

impl<D, L: RawLock> Clone for Weak<D, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D, L: RawLock> fmt::Debug for Weak<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Weak").field(&format_args!("{}", self.address())).finish()
    }
}

with_default_lock! {
    /// The lock of one device, held, and the embedder's data behind it. Not `Send` (R8).
    ///
    /// A thread holds the lock of one device at a time. Do not call the registry from inside, but for
    /// [`keep`](Self::keep), `get` and `put`: what needs this device's lock answers `WouldDeadlock`, and what
    /// needs another device's may wait for a thread that waits for this one.
    pub struct Locked<'a, D; L>(refcount::Locked<'a, Record<D>, L>);
}

impl<'a, D, L: RawLock> Locked<'a, D, L> {
    #[inline]
    pub(super) fn new(locked: refcount::Locked<'a, Record<D>, L>) -> Self {
        Self(locked)
    }

    /// The device's address.
    pub fn address(&self) -> Sbdf {
        self.0.slot().address()
    }

    /// Who owns the device, at this instant and for as long as the lock is held, unless a move of it commits
    /// meanwhile.
    pub fn owner(&self) -> Owner {
        self.0.binding.place().owner()
    }

    /// Where the owner sees the device, if it is a guest.
    pub fn guest_address(&self) -> Option<Sbdf> {
        self.0.binding.place().guest_address()
    }

    /// A removal of the device has been asked for and waits for its last use.
    pub fn is_removing(&self) -> bool {
        self.0.state() == State::Removing
    }

    /// A transition has claimed the device.
    pub fn is_claimed(&self) -> bool {
        is_claimed(&self.0)
    }

    /// Takes the device out of the sight of the guest that has it: its DMA may still reach that guest, so it stays on
    /// the guest's list. The guest's slot stays taken, reading ones, until it is acknowledged. Nothing if no guest has
    /// the device, or a transition, which then finds out for itself.
    pub(crate) fn strand(&mut self) {
        if let (false, Place::Guest(guest, _)) = (self.is_claimed(), self.0.binding.place()) {
            Record::settle(&mut self.0, Place::DmaOf(guest));
            self.0.slot().rename_parked(Holder::Domain(guest.id), Holder::DmaOf(guest.id));
        }
    }

    /// Publishes registers: from now on [`Domain::read_published`](super::Domain::read_published) and
    /// [`Registry::read_published`](super::Registry::read_published) read these copies without the lock, as many
    /// threads at once as like. Register `n` is the `n`th of the slice; those published before are replaced.
    ///
    /// For registers whose reads have no side effect. They stay published, whoever the device goes to, until
    /// [`unpublish`](Self::unpublish); keep them true with [`set_published`](Self::set_published). While the device is
    /// on its way to another owner nobody reads them. [`NoMemory`]: what was published before still is.
    pub fn publish(&mut self, registers: &[u32]) -> Result<(), NoMemory> {
        self.0.publish(registers)?;
        if !self.0.binding.is_moving() {
            let place = self.0.binding.place();
            self.0.show(place.audience());
        }
        Ok(())
    }

    /// A published register has another value from now on. `false` if it is not published.
    ///
    /// A reader that sees it sees what was set before it.
    pub fn set_published(&mut self, register: usize, value: u32) -> bool {
        self.0.set_published(register, value)
    }

    /// Nothing is published any more: who reads asks under the lock.
    pub fn unpublish(&mut self) {
        self.0.unpublish();
    }

    /// Takes a use that outlasts the lock, also while a removal is pending: for an effect of this access that
    /// is still to be carried out.
    pub fn keep(&self, holder: Holder) -> Result<Hold<D, L>, NoMemory> {
        self.0.keep(holder).map(Hold)
    }

    /// The same for as long as a call, without a name.
    pub(crate) fn keep_unnamed(&self) -> Handle<D, L> {
        Handle(self.0.keep_unnamed())
    }
}

impl<D, L: RawLock> Deref for Locked<'_, D, L> {
    type Target = D;

    #[inline]
    fn deref(&self) -> &D {
        &self.0.data
    }
}

impl<D, L: RawLock> DerefMut for Locked<'_, D, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut D {
        &mut self.0.data
    }
}

impl<D: fmt::Debug, L: RawLock> fmt::Debug for Locked<'_, D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locked").field(&format_args!("{}", self.address())).field(&**self).finish()
    }
}

impl AccessError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENODEV,
            Self::WouldDeadlock(_) => Errno::EDEADLK,
        }
    }
}
