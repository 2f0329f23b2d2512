//! Exact removal: at once, or not at all.

use super::Core;
use super::binding::{Place, Record};
use crate::Sbdf;
use crate::memory::NoMemory;
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

pub(super) fn remove<D, L: RawLock>(core: &Core<D, L>, address: Sbdf) -> Result<(), RemoveError> {
    let slot = core.arena.find(address).ok_or(RemoveError::NotFound(address))?;
    let closed =
        slot.close(|record| record.binding.place() != Place::Hidden).map_err(|refused| match refused {
            CloseRefused::NotPermitted => RemoveError::Denied,
            CloseRefused::Absent | CloseRefused::Gone => RemoveError::NotFound(address),
            CloseRefused::Closing | CloseRefused::Removing => in_removal(slot),
            CloseRefused::Busy(busy) => RemoveError::Busy(busy),
            CloseRefused::WouldDeadlock => RemoveError::WouldDeadlock(WouldDeadlock),
        })?;
    tear_down(core, closed);
    Ok(())
}

/// Unlinks a closed device and runs its destructor; then its address is free.
pub(super) fn tear_down<D, L: RawLock>(core: &Core<D, L>, mut closed: Closed<'_, Record<D>, L>) {
    // Closing is the claim: no transition runs, so the binding is settled and stays.
    let owner = closed.value(|record| record.binding.place().owner());
    if let Some(domain) = core.owner(owner) {
        let left = domain.members.lock().list.remove(closed.slot());
        debug_assert!(
            left || weakened(Site::CloseChecksCount),
            "{:?} was on the list of {owner}",
            closed.slot()
        );
    }
    drop(closed);
}
