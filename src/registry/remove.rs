//! Exact removal: at once, or not at all.

use super::Core;
use super::binding::{Place, Record};
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::refcount::{Busy, CloseRefused, Closed, Holder, Slot, WouldDeadlock};
use crate::sync::{RawLock, Site, weakened};
use crate::transition::Transition;

/// Why a device was not removed. It is exactly as it was before the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No device is known there; nothing was made for the question (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// Somebody still uses it (EBUSY).
    #[error("{0}")]
    Busy(Busy),
    /// It is hidden, and hidden devices stay (EPERM).
    #[error("the device is hidden: it cannot be removed")]
    Denied,
    /// The calling thread holds its lock (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
    /// There was no memory for the ticket (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

/// A removal is under way already; who else stands in its way is named beside it.
pub(super) fn in_removal<D, L: RawLock>(slot: &Slot<Record<D>, L>) -> RemoveError {
    let removal = Holder::Transition(Transition::Remove);
    RemoveError::Busy(match slot.busy() {
        Some(busy) => busy.and(removal),
        None => Busy::because(removal),
    })
}

/// A device that this thread has closed, on its way out. Dropping it opens the device again, the same as before.
#[must_use]
pub(crate) struct Closing<'a, D, L: RawLock> {
    core: &'a Core<D, L>,
    closed: Closed<'a, Record<D>, L>,
}

impl<'a, D, L: RawLock> Closing<'a, D, L> {
    /// Closes a device that has no uses, but for the `held` ones that the caller owns.
    pub(super) fn close(core: &'a Core<D, L>, address: Sbdf, held: u32) -> Result<Self, RemoveError> {
        let slot = core.arena.find(address).ok_or(RemoveError::NotFound(address))?;
        let permit = |record: &Record<D>| record.binding.place() != Place::Hidden;
        let closed = slot.close(held, permit).map_err(|refused| match refused {
            CloseRefused::NotPermitted => RemoveError::Denied,
            CloseRefused::Absent | CloseRefused::Gone => RemoveError::NotFound(address),
            CloseRefused::Closing | CloseRefused::Removing => in_removal(slot),
            CloseRefused::Busy(busy) => RemoveError::Busy(busy),
            CloseRefused::WouldDeadlock => RemoveError::WouldDeadlock(WouldDeadlock),
        })?;
        Ok(Self { core, closed })
    }

    pub(super) fn of(core: &'a Core<D, L>, closed: Closed<'a, Record<D>, L>) -> Self {
        Self { core, closed }
    }

    /// The embedder's data, for the teardown.
    pub(crate) fn data<R>(&mut self, step: impl FnOnce(&mut D) -> R) -> R {
        self.closed.value(|record| step(&mut record.data))
    }

    /// Whose the device was.
    pub(crate) fn owner(&mut self) -> Owner {
        // Closing is the claim: no transition runs, so the binding is settled and stays.
        self.closed.value(|record| record.binding.place().owner())
    }

    /// Opens the device again, the same as before. Whether it was reported gone meanwhile.
    pub(crate) fn reopen(self) -> bool {
        self.closed.reopen()
    }

    /// The device was reported gone meanwhile.
    pub(crate) fn is_lost(&self) -> bool {
        self.closed.is_lost()
    }

    pub(crate) fn address(&self) -> Sbdf {
        self.closed.slot().address()
    }

    /// Unlinks the device and runs its destructor; then its address is free.
    pub(crate) fn finish(mut self) {
        let owner = self.owner();
        if let Some(domain) = self.core.owner(owner) {
            let left = domain.members.lock().list.remove(self.closed.slot());
            debug_assert!(
                left || weakened(Site::CloseChecksCount),
                "{:?} was on the list of {owner}",
                self.closed.slot()
            );
        }
        self.closed.destroy();
    }
}

pub(super) fn remove<D, L: RawLock>(core: &Core<D, L>, address: Sbdf) -> Result<(), RemoveError> {
    Closing::close(core, address, 0).map(Closing::finish)
}

impl RemoveError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_) => Errno::ENODEV,
            Self::Busy(_) => Errno::EBUSY,
            Self::Denied => Errno::EPERM,
            Self::WouldDeadlock(_) => Errno::EDEADLK,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
