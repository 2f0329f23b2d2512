//! The slot: the memory in which the devices of one address live, one after the other.
//!
//! A slot's memory is type-stable: it is a slot of this address, and of this type, until the whole arena goes.
//! So a thread may always lock it and look at its word, whatever has become of the device; only what the word
//! allows decides whether the device may be touched.
//!
//! | part | protected by |
//! |---|---|
//! | `word` | itself |
//! | `value` | the device lock, while the word says LIVE or REMOVING; else the one who closed it |
//! | `marks` | the device lock |
//! | what is published | written under the device lock, read by anybody |
//! | names, `told` | `names_lock`, a leaf lock |
//! | `position` | the lock of the list the slot is on |
//! | the rest | never changes |

use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::arena::Arena;
use super::names::{Names, OnGone, Token};
use super::published::{Audience, Published};
use super::reference::{NamedRef, Ref};
use super::word::{AfterPut, Seen, State, Word};
use super::{Busy, Holder, Locked};
use crate::Sbdf;
use crate::address::{Bus, DevFn, Segment};
use crate::memory::{NoMemory, OnceBox, Shared};
use crate::sync::unexplored::{AtomicBool, AtomicU32, AtomicUsize};
use crate::sync::{AtomicU8, Ordering, RawLock, Site, UnsafeCell, ordering, weakened};

/// The calling thread holds this device's lock and would wait for itself (EDEADLK). Drop the guard first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the calling thread holds this device's lock: drop its guard first")]
pub struct WouldDeadlock;

/// A mark: once this device is gone, no other may come to its address before the mark is taken away.
pub(crate) const KEEPS_ADDRESS: u8 = 1 << 1;
/// A mark: the device was reported gone while it was closed.
pub(super) const LOST: u8 = 1 << 3;
/// A mark: the device is being added.
pub(super) const ARRIVING: u8 = 1 << 2;

/// The memory of one address's devices. See the module.
///
/// Cache-line aligned, so that two threads at work on two devices share none, and in declared order: what an
/// access touches (word, lock, the owner and the first of the embedder's data) is on the first line, what only
/// transitions need comes after the data.
#[repr(C, align(64))]
pub(crate) struct Slot<T, L: RawLock> {
    pub(super) word: Word,
    /// Who holds the device lock, as [`RawLock::current`] names it; 0 for nobody.
    lock_holder: AtomicUsize,
    lock: L,
    marks: AtomicU8,
    bus: Bus,
    devfn: DevFn,
    segment: Segment,
    pub(super) value: UnsafeCell<MaybeUninit<T>>,
    arena: NonNull<Arena<T, L>>,
    aside: OnceBox<Aside>,
    position: AtomicU32,
    names_lock: L,
    /// The holders of a device that is gone have been told.
    told: AtomicBool,
}

/// What only those slots have whose device has had a holder with a name, or has published something.
struct Aside {
    names: UnsafeCell<Names>,
    published: Published,
}

impl Aside {
    fn new() -> Self {
        Self { names: UnsafeCell::new(Names::new()), published: Published::new() }
    }

    /// None yet. Models have theirs from the beginning: who makes it first is not what they are about, and loom does not
    /// see the order that [`OnceBox`] gives.
    fn none() -> OnceBox<Self> {
        let aside = OnceBox::new();
        if cfg!(loom) {
            let _made = aside.get_or_make(Self::new);
        }
        aside
    }
}

// SAFETY: every field is reached by the rules in the table above, which let one thread at a time at `value` and
// `names`; holder callbacks are `Send + Sync`.
unsafe impl<T: Send, L: RawLock> Send for Slot<T, L> {}
// SAFETY: as above; no `&T` is ever lent to two threads.
unsafe impl<T: Send, L: RawLock> Sync for Slot<T, L> {}

impl<T, L: RawLock> Slot<T, L> {
    pub(super) fn new(address: Sbdf, arena: NonNull<Arena<T, L>>) -> Self {
        Self {
            word: Word::new(),
            lock_holder: AtomicUsize::new(0),
            arena,
            aside: Aside::none(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
            segment: address.segment(),
            position: AtomicU32::new(u32::MAX),
            bus: address.bus(),
            devfn: address.devfn(),
            lock: L::new(),
            names_lock: L::new(),
            told: AtomicBool::new(false),
            marks: AtomicU8::new(0),
        }
    }

    pub(crate) fn address(&self) -> Sbdf {
        Sbdf::new(self.segment, self.bus, self.devfn)
    }

    pub(super) fn belongs_to(&self, arena: &Arena<T, L>) -> bool {
        core::ptr::eq(self.arena.as_ptr(), arena)
    }

    /// Whether the device is gone at this instant.
    #[inline]
    pub(crate) fn is_gone_by_now(&self) -> bool {
        self.word.is_gone_by_now()
    }

    /// A share of the memory this slot is in, on the word of somebody who keeps it.
    pub(super) fn arena(&self) -> Shared<Arena<T, L>> {
        // SAFETY: an arena always lives in a `Shared`, and the caller's borrow of the slot keeps it; the copy
        // forgotten here is the one that keeps it.
        let share = unsafe { Shared::from_raw(self.arena) };
        let copy = share.clone();
        core::mem::forget(share);
        copy
    }

    /// The word, for display and for decisions that something else confirms.
    pub(crate) fn glance(&self) -> Seen {
        self.word.glance()
    }

    /// Its place on the list it is on; only under that list's lock.
    pub(super) fn position(&self) -> usize {
        self.position.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_position(&self, position: usize) {
        self.position.store(u32::try_from(position).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    // ---- references

    /// Counts a use of the live device, if there is one (R3).
    #[inline]
    pub(crate) fn get(&self) -> Option<Ref<T, L>> {
        self.word.get()?;
        // SAFETY: the reference was counted on the line above.
        Some(unsafe { Ref::from_counted(NonNull::from(self)) })
    }

    /// Counts a use under a name (R2).
    #[inline]
    pub(crate) fn hold(&self, holder: Holder) -> Result<Option<NamedRef<T, L>>, NoMemory> {
        match self.get() {
            Some(reference) => reference.named(holder).map(Some),
            None => Ok(None),
        }
    }

    /// Gives a reference back.
    ///
    /// # Safety
    ///
    /// The caller owns one counted reference of `slot`, and neither uses it nor the slot after this call.
    #[inline]
    pub(super) unsafe fn put(slot: NonNull<Self>) {
        // SAFETY: the caller's reference keeps the slot up to the subtraction in `put`. What follows touches
        // the slot only in `Destroy`, where the device's own share of the arena still keeps it.
        match unsafe { slot.as_ref() }.word.put() {
            AfterPut::Done => {}
            AfterPut::Wake => Self::wake(slot.addr().get()),
            AfterPut::Destroy => {
                // SAFETY: this was the last reference of a gone device, so nobody else reaches the value.
                unsafe { Self::destroy(slot) }
            }
        }
    }

    #[cold]
    fn wake(slot: usize) {
        L::waiters().wake(slot);
    }

    /// Runs the destructor, frees the slot for the next device of its address and gives up the device's share
    /// of the arena. If the destructor panics the rest is done all the same.
    ///
    /// # Safety
    ///
    /// The caller is the one who closed the device (CLOSED with count 1, or GONE with count 0).
    pub(super) unsafe fn destroy(slot: NonNull<Self>) {
        struct Vacate<T, L: RawLock>(NonNull<Slot<T, L>>);

        impl<T, L: RawLock> Drop for Vacate<T, L> {
            fn drop(&mut self) {
                // SAFETY: the device's share, taken back below, keeps the slot until then.
                let slot = unsafe { self.0.as_ref() };
                let arena = slot.arena;
                slot.take_marks_away();
                slot.told.store(false, Ordering::Relaxed);
                // Veiled when it was closed, or drained; what is left of it is the next device's to fill.
                slot.unpublish();
                slot.word.vacate();
                if !weakened(Site::DeviceHoldsMemory) {
                    // SAFETY: `Reserved::open` gave this share away when the device came; it is taken back
                    // once per device, by the closer.
                    drop(unsafe { Shared::from_raw(arena) });
                }
            }
        }

        let vacate = Vacate(slot);
        // SAFETY: the device's share keeps the slot; the value was written when the device came, and having
        // closed it the caller alone reaches it.
        unsafe { slot.as_ref().value.get_mut().deref().assume_init_drop() };
        drop(vacate);
    }

    // ---- the device lock

    /// Takes the device lock, whatever the state of the device.
    #[inline]
    pub(super) fn lock_raw(&self) -> Result<(), WouldDeadlock> {
        if !self.lock.try_lock() {
            self.lock_contended()?;
        }
        // Relaxed: only the thread that stored a value compares equal to it.
        self.lock_holder.store(L::current().get(), Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn lock_contended(&self) -> Result<(), WouldDeadlock> {
        if self.locked_here() {
            return Err(WouldDeadlock);
        }
        self.lock.lock();
        Ok(())
    }

    /// # Safety
    ///
    /// The calling thread holds the device lock.
    #[inline]
    pub(super) unsafe fn unlock_raw(&self) {
        self.lock_holder.store(0, Ordering::Relaxed);
        // SAFETY: the caller holds the lock.
        unsafe { self.lock.unlock() }
    }

    pub(super) fn locked_here(&self) -> bool {
        self.lock_holder.load(Ordering::Relaxed) == L::current().get()
    }

    /// Locked access without a count (R6): `None` once the device is closed or gone.
    #[inline]
    pub(crate) fn lock(&self) -> Result<Option<Locked<'_, T, L>>, WouldDeadlock> {
        Locked::new(self)
    }

    /// Runs `step` under the device lock, whatever the state of the device.
    pub(super) fn under_lock<R>(&self, step: impl FnOnce() -> R) -> Result<R, WouldDeadlock> {
        self.lock_raw()?;
        let result = step();
        // SAFETY: taken two lines above, on this thread.
        unsafe { self.unlock_raw() };
        Ok(result)
    }

    // ---- published registers

    /// A published register, if it is shown to this audience at this moment; see [`Published`].
    #[inline]
    pub(crate) fn read_published(&self, audience: Option<Audience>, register: usize) -> Option<u32> {
        self.published()?.read(audience, register)
    }

    /// What the device has published, if ever one here has.
    #[inline]
    pub(super) fn published(&self) -> Option<&Published> {
        self.aside.get().map(|aside| &aside.published)
    }

    pub(super) fn published_or_make(&self) -> Result<&Published, NoMemory> {
        self.aside_or_make().map(|aside| &aside.published)
    }

    /// Nobody reads what is published, until it is shown again; only under the device lock.
    pub(super) fn veil(&self) {
        if let Some(published) = self.published() {
            published.veil();
        }
    }

    /// Nothing is published any more; only under the device lock, or by who closed the device.
    pub(super) fn unpublish(&self) {
        if let Some(published) = self.published() {
            published.clear();
        }
    }

    fn aside_or_make(&self) -> Result<&Aside, NoMemory> {
        self.aside.get_or_make(Aside::new)
    }

    // ---- marks

    /// Marks of whoever runs transitions; only under the device lock.
    pub(crate) fn marks(&self) -> u8 {
        self.marks.load(Ordering::Relaxed)
    }

    pub(crate) fn set_marks(&self, marks: u8) {
        // Release: pairs with the Acquire of `keeps_address`.
        self.marks.store(marks, ordering(Site::MarksRelease, Ordering::Release));
    }

    /// Takes all marks away; by who destroys the device.
    fn take_marks_away(&self) {
        // Release: pairs with the Acquire of `keeps_address`. Whoever still reads GONE in the word, and then finds this
        // store, has found the mark away without having read what took it away; a relaxed store would hide that.
        self.marks.store(0, ordering(Site::MarksAwayRelease, Ordering::Release));
    }

    /// Sets these marks and leaves the others.
    pub(super) fn add_marks(&self, marks: u8) {
        self.marks.fetch_or(marks, Ordering::Release);
    }

    /// Whether the device is gone and its address not free.
    pub(crate) fn keeps_address_when_gone(&self) -> bool {
        self.glance().state() == State::Gone && self.keeps_address()
    }

    /// Whether the address will not be free when the device is gone.
    pub(super) fn keeps_address(&self) -> bool {
        // Acquire: pairs with the Release of who took the mark away, whose work is over then.
        self.marks.load(ordering(Site::MarksAcquire, Ordering::Acquire)) & KEEPS_ADDRESS != 0
    }

    // ---- names

    /// The first name that `pick` takes.
    pub(crate) fn find_holder<R>(&self, pick: impl Fn(Holder) -> Option<R>) -> Option<R>
    where
        R: Ord,
    {
        self.with_names(|names| names?.holders().filter_map(pick).min())
    }

    /// Whether the device is gone. Ordered with [`find_holder`](Self::find_holder) by the leaf lock: of one who looks
    /// for holders after the device has gone and one who asks this after it became a holder, one finds the other.
    pub(crate) fn is_gone_by_names(&self) -> bool {
        self.with_names(|_| self.glance().state() == State::Gone)
    }

    /// Gives a parked name another one; `false` if it is not there.
    pub(crate) fn rename_parked(&self, from: Holder, to: Holder) -> bool {
        self.with_names(|names| names.is_some_and(|names| names.rename_parked(from, to)))
    }

    #[inline]
    pub(super) fn with_names<R>(&self, step: impl FnOnce(Option<&mut Names>) -> R) -> R {
        struct Unlock<'a, L: RawLock>(&'a L);
        impl<L: RawLock> Drop for Unlock<'_, L> {
            fn drop(&mut self) {
                // SAFETY: taken by `with_names` on this thread.
                unsafe { self.0.unlock() }
            }
        }
        self.names_lock.lock();
        let _unlock = Unlock(&self.names_lock);
        let names = self.aside.get().map(|aside| aside.names.get_mut());
        // SAFETY: under the leaf lock, which `_unlock` gives back after `names` is dropped.
        step(names.as_ref().map(|names| unsafe { names.deref() }))
    }

    #[inline]
    pub(super) fn add_name(&self, holder: Holder) -> Result<Token, NoMemory> {
        self.aside_or_make()?;
        self.with_names(|names| {
            let names = names.ok_or(NoMemory)?;
            names.reserve()?;
            Ok(names.add(holder))
        })
    }

    #[inline]
    pub(super) fn remove_name(&self, token: Token) {
        let on_gone = self.with_names(|names| names.and_then(|names| names.remove(token)));
        drop(on_gone);
    }

    /// Leaves a call with a name, or makes it at once if the holders of a device that is gone have been told.
    pub(super) fn set_on_gone(&self, token: Token, call: OnGone) {
        let (too_late, old) = self.with_names(|names| match names {
            Some(names) if self.told.load(Ordering::Relaxed) => {
                (names.holder(token).map(|holder| (holder, call)), None)
            }
            Some(names) => (None, names.on_gone(token, call)),
            None => (None, None),
        });
        drop(old);
        if let Some((holder, call)) = too_late {
            call(self.address(), holder);
        }
    }

    /// Calls, once each, what the holders of a device that is gone left to be called.
    pub(super) fn tell_holders(&self) {
        let next = || {
            self.with_names(|names| {
                self.told.store(true, Ordering::Relaxed);
                names.and_then(Names::next_to_tell)
            })
        };
        while let Some((holder, call)) = next() {
            call(self.address(), holder);
        }
    }

    pub(super) fn park_name(&self, token: Token) {
        self.with_names(|names| names.map(|names| names.park(token)));
    }

    /// Takes back a named reference that was left with the slot by [`NamedRef::park`].
    pub(crate) fn unpark(&self, holder: Holder) -> Option<NamedRef<T, L>> {
        let token = self.with_names(|names| names.and_then(|names| names.unpark(holder)))?;
        // SAFETY: `park` forgot the reference that this name stands for, and the name was parked until now.
        Some(unsafe { NamedRef::from_counted(NonNull::from(self), token) })
    }

    /// Who holds the device now. `None` if nobody uses it, so that a removal can be tried again.
    pub(crate) fn busy(&self) -> Option<Busy> {
        let mut holders = Vec::new();
        let (names, seen) = self.with_names(|names| {
            // Names first, then the word: a name's reference is older than the name.
            let count = names.as_ref().map_or(0, |names| names.len());
            if let Some(names) = names
                && holders.try_reserve_exact(count).is_ok()
            {
                holders.extend(names.holders());
            }
            (count, self.word.glance())
        });
        // Whoever reports a device gone puts the creation reference; what is left are uses.
        let creation = u32::from(seen.state() != State::Gone);
        let uses = seen.references().saturating_sub(creation);
        let named = u32::try_from(names).unwrap_or(u32::MAX);
        let truncated = holders.len() < names;
        (uses > 0).then(|| Busy { uses, unnamed: uses.saturating_sub(named), holders, truncated })
    }
}

impl<T, L: RawLock> fmt::Debug for Slot<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("address", &self.address()).field("word", &self.glance()).finish()
    }
}
