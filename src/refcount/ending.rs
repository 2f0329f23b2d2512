//! How a device ends: closed because nobody uses it, or gone whoever does.
//!
//! Both end in [`Slot::destroy`], once, on the thread that owns the end: the one that closed the device, or the
//! one whose put was the last.

use core::ptr::NonNull;

use super::Busy;
use super::reference::Ref;
use super::slot::{ARRIVING, LOST, Slot, WouldDeadlock};
use super::word::{Seen, State};
use crate::sync::{RawLock, Site, WaitTable, weakened};

impl<T, L: RawLock> Slot<T, L> {
    /// Closes the device if `permit` allows it and nobody uses it: from the return on, no handle exists and
    /// none can be made, but for the `held` references that the caller owns and keeps. `permit` looks at the
    /// device under its lock, in the instant of closing.
    pub(crate) fn close(
        &self,
        held: u32,
        permit: impl Fn(&T) -> bool,
    ) -> Result<Closed<'_, T, L>, CloseRefused> {
        loop {
            let closed = self.close_once(|| {
                let permitted = self.word.look(Site::LockedAcquire).state() != State::Live || {
                    let value = self.value.get_mut();
                    // SAFETY: under the device lock and LIVE: the value is there, and this thread's.
                    permit(unsafe { value.deref().assume_init_ref() })
                };
                permitted.then(|| self.newly_closed(self.word.close(held)))
            })?;
            let seen = match closed {
                None => return Err(CloseRefused::NotPermitted),
                Some(Ok(_)) => return Ok(Closed(self)),
                Some(Err(seen)) => seen,
            };
            match seen.state() {
                State::Closed if seen.is_vacant() => return Err(CloseRefused::Absent),
                // Being torn down by another thread: as good as removed, but its address is not free yet.
                State::Closed => return Err(CloseRefused::Closing),
                State::Gone => return Err(CloseRefused::Gone),
                State::Removing => return Err(CloseRefused::Removing),
                State::Live => {
                    if let Some(busy) = self.busy()
                        && busy.uses > held
                    {
                        return Err(CloseRefused::Busy(busy));
                    }
                    // The last use went while the names were read: it can be closed now.
                }
            }
        }
    }

    /// Under the device lock: what was reported of the device before does not concern this closing, and what it
    /// published nobody reads any more.
    pub(super) fn newly_closed(&self, closed: Result<Seen, Seen>) -> Result<Seen, Seen> {
        closed.inspect(|_| {
            self.set_marks(self.marks() & !LOST);
            if !weakened(Site::CloseVeils) {
                self.veil();
            }
        })
    }

    /// Closing happens under the device lock, for that instant only: a locked access is either over, or will
    /// find the device closed.
    pub(super) fn close_once<R>(&self, close: impl FnOnce() -> R) -> Result<R, WouldDeadlock> {
        if weakened(Site::CloseUnderLock) { Ok(close()) } else { self.under_lock(close) }
    }

    /// The hardware is gone: no new use, no new access. The caller owns the creation reference now and gives
    /// it back through [`Departure::finish`].
    pub(crate) fn gone(&self) -> Result<Option<Departure<'_, T, L>>, WouldDeadlock> {
        if self.locked_here() {
            return Err(WouldDeadlock);
        }
        Ok(self.word.gone().ok().map(|_| Departure { slot: self }))
    }

    /// The hardware of a device that somebody has closed is gone: whoever closed it will see. `false` if nobody has.
    pub(crate) fn lose(&self) -> Result<bool, WouldDeadlock> {
        self.under_lock(|| {
            let seen = self.word.look(Site::LockedAcquire);
            let closed = seen.state() == State::Closed && !seen.is_vacant() && self.marks() & ARRIVING == 0;
            if closed {
                // It may be vacant by now, or another device may be on its way: to be opened, or closed again, clears it.
                self.add_marks(LOST);
            }
            closed
        })
    }

    /// The hardware is gone and this very thread is inside the device, so nobody drains it, and nobody will put
    /// the creation reference: no new use, no new access, and the object is leaked.
    pub(crate) fn abandon(&self) {
        // Not there any more is as good.
        let _ = self.word.gone();
        self.veil();
    }
}

/// Why a device could not be closed.
#[derive(Debug)]
pub(crate) enum CloseRefused {
    NotPermitted,
    Absent,
    Gone,
    Closing,
    Removing,
    Busy(Busy),
    WouldDeadlock,
}

impl From<WouldDeadlock> for CloseRefused {
    fn from(_: WouldDeadlock) -> Self {
        Self::WouldDeadlock
    }
}

/// A device that this thread has closed: nobody else reaches it. Dropping this opens it again, the same as before.
#[must_use]
pub(crate) struct Closed<'a, T, L: RawLock>(pub(super) &'a Slot<T, L>);

impl<T, L: RawLock> Closed<'_, T, L> {
    pub(crate) fn slot(&self) -> &Slot<T, L> {
        self.0
    }

    /// The device, for its teardown.
    pub(crate) fn value<R>(&mut self, teardown: impl FnOnce(&mut T) -> R) -> R {
        let value = self.0.value.get_mut();
        // SAFETY: this thread closed the device, so it alone reaches the value, which is still there.
        teardown(unsafe { value.deref().assume_init_mut() })
    }

    /// It was reported gone meanwhile: its hardware may not be touched any more, and it may not stay.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.marks() & LOST != 0
    }

    /// Opens the device again, the same as before. Whether it was reported gone meanwhile: then it may not stay.
    pub(crate) fn reopen(self) -> bool {
        let lost = self.open_again();
        core::mem::forget(self);
        lost
    }

    fn open_again(&self) -> bool {
        let slot = self.0;
        let reopen = || {
            slot.word.reopen();
            if let Some(published) = slot.published() {
                published.show_again();
            }
            slot.marks() & LOST != 0
        };
        // Under the device lock: whoever reports it gone finds it closed, and is seen here, or finds it open. This thread
        // does not hold the lock of a device that nobody reaches.
        if weakened(Site::ReopenUnderLock) {
            return reopen();
        }
        slot.under_lock(reopen).unwrap_or_else(|WouldDeadlock| reopen())
    }

    /// Runs the destructor and frees the address.
    pub(crate) fn destroy(self) {
        let slot = NonNull::from(self.0);
        core::mem::forget(self);
        // SAFETY: a `Closed` is made once, by whoever closed the device.
        unsafe { Slot::destroy(slot) }
    }
}

impl<T, L: RawLock> Drop for Closed<'_, T, L> {
    fn drop(&mut self) {
        self.open_again();
    }
}

/// A device whose disappearance this thread reports. Its steps are those of `report_gone`, in order.
#[must_use]
pub(crate) struct Departure<'a, T, L: RawLock> {
    slot: &'a Slot<T, L>,
}

impl<T, L: RawLock> Departure<'_, T, L> {
    /// Waits until the accesses that were under way are over, and lets `settle` at the device's own state
    /// while the lock is held. Later accesses find the device gone.
    pub(crate) fn drain<R>(&self, settle: impl FnOnce(&mut T) -> R) -> Result<R, WouldDeadlock> {
        let slot = self.slot;
        let settle = || {
            if !weakened(Site::DrainVeils) {
                slot.veil();
            }
            let value = slot.value.get_mut();
            // SAFETY: GONE keeps everyone else from the value; the creation reference, which this departure
            // owns, keeps it from being destroyed.
            settle(unsafe { value.deref().assume_init_mut() })
        };
        if weakened(Site::GoneDrains) { Ok(settle()) } else { slot.under_lock(settle) }
    }

    /// A use of the device that is leaving, for what is to be done once it has left.
    pub(crate) fn keep(&self) -> Ref<T, L> {
        self.slot.word.get_more();
        // SAFETY: counted on the line above, next to the creation reference that this departure owns.
        unsafe { Ref::from_counted(NonNull::from(self.slot)) }
    }

    /// Tells the holders that asked for it, wakes the ticket, and puts the creation reference. If that was the
    /// last one the destructor runs here. A callback that panics does not keep the rest from being done.
    pub(crate) fn finish(self) {
        struct Wake<L: RawLock>(usize, &'static WaitTable<L>);

        impl<L: RawLock> Drop for Wake<L> {
            fn drop(&mut self) {
                if !weakened(Site::GoneWakes) {
                    self.1.wake(self.0);
                }
            }
        }

        struct PutCreation<'a, T, L: RawLock>(&'a Slot<T, L>);

        impl<T, L: RawLock> Drop for PutCreation<'_, T, L> {
            fn drop(&mut self) {
                let slot = NonNull::from(self.0);
                // A waker and a destructor are the embedder's code, and may panic: neither keeps the other back.
                let _wake = Wake(slot.addr().get(), L::waiters());
                // SAFETY: the creation reference belongs to whoever set GONE, and is put here, once.
                unsafe { Slot::put(slot) };
            }
        }

        /// Tells those who are left, also when one of the calls has panicked.
        struct Tell<'a, T, L: RawLock>(&'a Slot<T, L>);

        impl<T, L: RawLock> Drop for Tell<'_, T, L> {
            fn drop(&mut self) {
                self.0.tell_holders();
            }
        }

        let _put_last = PutCreation(self.slot);
        let rest = Tell(self.slot);
        rest.0.tell_holders();
    }
}
