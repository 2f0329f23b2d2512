//! Surprise removal: the hardware is away already, and the registry follows.

use super::Core;
use super::binding::{Place, Record};
use crate::Sbdf;
use crate::owner::Owner;
use crate::refcount::{Holder, Slot, WouldDeadlock};
use crate::sync::{RawLock, Site, weakened};

/// Why nothing was reported gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GoneError {
    /// No device is known there, or it was removed or reported gone already (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// The calling thread holds its lock (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
}

pub(super) fn report_gone<D, L: RawLock>(core: &Core<D, L>, address: Sbdf) -> Result<(), GoneError> {
    let slot = core.arena.find(address).ok_or(GoneError::NotFound(address))?;
    depart(core, slot)?.then_some(()).ok_or(GoneError::NotFound(address))
}

/// The steps of a surprise removal; `false` if there is no device to go.
pub(super) fn depart<D, L: RawLock>(
    core: &Core<D, L>,
    slot: &Slot<Record<D>, L>,
) -> Result<bool, WouldDeadlock> {
    let Some(departure) = slot.gone()? else { return Ok(false) };
    loop {
        let (owner, assignment) = departure.drain(|record| {
            let place = record.binding.place();
            // A move under way settles its members itself and will find this one gone.
            let assignment = match place {
                Place::Guest(guest, _) if !record.binding.is_moving() => {
                    slot.unpark(Holder::Domain(guest.id))
                }
                _ => None,
            };
            (place.owner(), assignment)
        })?;
        drop(assignment);
        let listed = core.owner(owner).is_none_or(|domain| domain.members.lock().list.remove(slot));
        // Not there: a move has committed in between and the device is on the next owner's list. No further
        // move begins on a device that is gone, so this ends.
        if listed || weakened(Site::GoneFollowsMove) {
            break;
        }
        debug_assert_ne!(owner, Owner::Hidden, "hidden devices do not move");
    }
    departure.finish();
    Ok(true)
}
