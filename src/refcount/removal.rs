//! A removal that waits: REMOVING, and the ticket that completes or cancels it.

use core::task::Waker;

use super::ending::Closed;
use super::reference::WeakRef;
use super::slot::{Slot, WouldDeadlock};
use super::word::State;
use crate::memory::NoMemory;
use crate::sync::{Number, RawLock, Site, weakened};

/// A pending removal of one device. Dropping it cancels.
pub(crate) struct Removal<T, L: RawLock> {
    device: WeakRef<T, L>,
    place: Number,
    over: bool,
}

/// Why a removal could not be begun.
#[derive(Debug)]
pub(crate) enum BeginRefused {
    NoMemory,
    /// No device, or one being removed or gone.
    State(State),
}

/// How far a removal is.
pub(crate) enum Progress<'a, T, L: RawLock> {
    /// Uses are left. The waker will be used when the last one goes.
    Pending,
    /// Closed; what remains is the teardown.
    Closed(Closed<'a, T, L>),
    /// The device was reported gone meanwhile.
    Gone,
}

impl<T, L: RawLock> Slot<T, L> {
    /// Refuses new uses from now on. What exists may be used, and locked access goes on.
    pub(crate) fn begin_removal(&self) -> Result<Removal<T, L>, BeginRefused> {
        let device = WeakRef::new(self.arena(), self, self.glance().generation());
        // The place among the waiters comes first: afterwards there is nothing that could fail.
        let place = L::waiters().join(self.key()).map_err(|NoMemory| BeginRefused::NoMemory)?;
        match self.word.begin_removal(device.generation()) {
            Ok(_) => Ok(Removal { device, place, over: false }),
            Err(seen) => {
                L::waiters().leave(self.key(), place);
                Err(BeginRefused::State(seen.state()))
            }
        }
    }

    /// The slot's address: what waiters are found by.
    fn key(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

impl<T, L: RawLock> Removal<T, L> {
    pub(crate) fn slot(&self) -> &Slot<T, L> {
        self.device.slot()
    }

    /// Completes the removal if nobody uses the device any more; else leaves `waker` to be woken.
    pub(crate) fn poll(&mut self, waker: Option<&Waker>) -> Result<Progress<'_, T, L>, WouldDeadlock> {
        let generation = self.device.generation();
        let slot = self.device.slot();
        let mut closed = slot.close_once(|| slot.newly_closed(slot.word.close_removing(generation)))?;
        if closed.is_err()
            && let Some(waker) = waker
        {
            L::waiters().register(slot.key(), self.place, waker);
            if !weakened(Site::WaiterRereads) {
                // A put that came before the registration woke nobody, but it is in the word by now: the
                // bucket lock orders it.
                closed = slot.close_once(|| slot.newly_closed(slot.word.close_removing(generation)))?;
            }
        }
        match closed {
            Ok(_) => {
                self.over = true;
                let closed = Closed(self.device.slot());
                L::waiters().leave(slot.key(), self.place);
                Ok(Progress::Closed(closed))
            }
            Err(seen) if seen.generation() == generation && seen.state() == State::Removing => {
                Ok(Progress::Pending)
            }
            Err(_) => {
                L::waiters().leave(slot.key(), self.place);
                self.over = true;
                Ok(Progress::Gone)
            }
        }
    }

    /// Gives the device back as it was; `false` if it was reported gone meanwhile.
    pub(crate) fn cancel(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        if core::mem::replace(&mut self.over, true) {
            return false;
        }
        let slot = self.device.slot();
        L::waiters().leave(slot.key(), self.place);
        slot.word.cancel_removal(self.device.generation()).is_ok()
    }
}

impl<T, L: RawLock> Drop for Removal<T, L> {
    fn drop(&mut self) {
        self.end();
    }
}
