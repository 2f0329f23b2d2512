//! Surprise removal: the hardware is away already, and the registry follows.

use super::Core;
use super::binding::Record;
use super::claim::CLAIMED;
use crate::Sbdf;
use crate::errno::Errno;
use crate::owner::Owner;
use crate::refcount::{Departure, Holder, KEEPS_ADDRESS, Ref, Slot, WouldDeadlock};
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
    depart(core, slot, |_, _| ())?.map(drop).ok_or(GoneError::NotFound(address))
}

/// Whether a transition has the device in its hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InHands {
    /// None: what is to be settled is the reporter's.
    Nobodys,
    /// One does, and settles when it finds the device gone.
    ATransitions,
}

/// A device that has left: its memory stays while this exists.
pub(crate) struct Departed<D, L: RawLock>(Ref<Record<D>, L>);

impl<D, L: RawLock> Departed<D, L> {
    pub(super) fn new(reference: Ref<Record<D>, L>) -> Self {
        Self(reference)
    }

    pub(crate) fn address(&self) -> Sbdf {
        self.0.slot().address()
    }

    /// The same device once more.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// The first, by what `pick` makes of them, of its holders.
    pub(crate) fn find_holder<R: Ord>(&self, pick: impl Fn(Holder) -> Option<R>) -> Option<R> {
        self.0.slot().find_holder(pick)
    }

    /// Runs `step` on the data under the device's lock.
    pub(crate) fn with<R>(&self, step: impl FnOnce(&mut D) -> R) -> Result<R, WouldDeadlock> {
        Ok(step(&mut self.0.settle()?.data))
    }

    /// The address is free for the next device.
    pub(crate) fn release_address(&self) -> Result<(), WouldDeadlock> {
        let device = self.0.settle()?;
        let slot = device.slot();
        slot.set_marks(slot.marks() & !KEEPS_ADDRESS);
        Ok(())
    }
}

/// The rest of a surprise removal: its holders are told, its ticket is woken, and its creation reference is put. When
/// this is dropped, at the latest.
pub(crate) struct Farewell<'a, D, L: RawLock>(Option<Departure<'a, Record<D>, L>>);

impl<D, L: RawLock> Drop for Farewell<'_, D, L> {
    fn drop(&mut self) {
        if let Some(departure) = self.0.take() {
            departure.finish();
        }
    }
}

/// What was settled of a device, the device, and what remains to be done, once it has left.
type Left<'a, R, D, L> = (R, Departed<D, L>, Farewell<'a, D, L>);

/// The steps of a surprise removal; `None` if there is no device to go. `settle` looks at the data once no access is
/// inside any more, under the device's lock.
pub(super) fn depart<'a, D, L: RawLock, R>(
    core: &Core<D, L>,
    slot: &'a Slot<Record<D>, L>,
    mut settle: impl FnMut(&mut D, InHands) -> R,
) -> Result<Option<Left<'a, R, D, L>>, WouldDeadlock> {
    let Some(departure) = slot.gone()? else { return Ok(None) };
    let departed = Departed::new(departure.keep());
    let mut settled = None;
    loop {
        let (owner, assignment) = departure.drain(|record| {
            if settled.is_none() {
                let claimed = slot.marks() & CLAIMED != 0;
                let in_hands = if claimed { InHands::ATransitions } else { InHands::Nobodys };
                settled = Some(settle(&mut record.data, in_hands));
            }
            let place = record.binding.place();
            // A move under way settles its members itself and will find this one gone.
            let moving = record.binding.is_moving();
            let assignment = place.assignment().filter(|_| !moving).and_then(|holder| slot.unpark(holder));
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
    Ok(settled.map(|settled| (settled, departed, Farewell(Some(departure)))))
}

impl GoneError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_) => Errno::ENODEV,
            Self::WouldDeadlock(_) => Errno::EDEADLK,
        }
    }
}
