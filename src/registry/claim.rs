//! Claims: what keeps a second transition out of a device while hooks run without locks.
//!
//! A claim is an exclusive mark, set under the device lock, and a reference named "transition: …", so that a
//! removal of the device is `Busy`. It is taken by try: at least one contender wins, nothing is fair, nobody
//! waits. It does not stop `report_gone`; whoever holds a claim looks for that between its steps.

use core::cell::Cell;

use super::Core;
use super::binding::{Place, Record};
use super::gone::Departed;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::refcount::{self, Busy, Holder, NamedRef, Slot, State, WouldDeadlock};
use crate::sync::{RawLock, Site, weakened};
use crate::transition::Transition;

/// The mark of a claimed device.
pub(super) const CLAIMED: u8 = 1;

/// Whether a transition has claimed the device, whose lock the caller holds.
pub(super) fn is_claimed<D, L: RawLock>(device: &refcount::Locked<'_, Record<D>, L>) -> bool {
    device.slot().marks() & CLAIMED != 0
}

/// Why a device could not be claimed.
#[derive(Debug)]
pub(crate) enum ClaimRefused {
    NotFound(Sbdf),
    Busy(Sbdf, Busy),
    WouldDeadlock(WouldDeadlock),
    NoMemory(NoMemory),
}

impl From<NoMemory> for ClaimRefused {
    fn from(no_memory: NoMemory) -> Self {
        Self::NoMemory(no_memory)
    }
}

impl From<WouldDeadlock> for ClaimRefused {
    fn from(would_deadlock: WouldDeadlock) -> Self {
        Self::WouldDeadlock(would_deadlock)
    }
}

/// A device that could be claimed, under its lock.
pub(crate) struct Candidate<'a, D, L: RawLock>(refcount::Locked<'a, Record<D>, L>);

impl<D, L: RawLock> Candidate<'_, D, L> {
    pub(super) fn place(&self) -> Place {
        self.0.binding.place()
    }

    pub(crate) fn owner(&self) -> Owner {
        self.place().owner()
    }

    /// Its removal is pending: it goes to no guest and to no host driver.
    pub(crate) fn is_removing(&self) -> bool {
        self.0.state() == State::Removing
    }

    /// Somebody uses it.
    pub(crate) fn is_used(&self) -> bool {
        self.0.slot().busy().is_some()
    }

    /// Its users, or its removal, are in the way of what was asked for.
    pub(crate) fn in_the_way(&self) -> ClaimRefused {
        ClaimRefused::Busy(self.0.slot().address(), uses(self.0.slot()))
    }

    pub(crate) fn data(&mut self) -> &mut D {
        &mut self.0.data
    }
}

/// One device, kept from every other transition. Dropping it releases the device.
pub(crate) struct Claim<D, L: RawLock> {
    reference: NamedRef<Record<D>, L>,
    from: Place,
    released: Cell<bool>,
}

impl<D, L: RawLock> Claim<D, L> {
    /// Claims a device if `admit`, which looks at it under its lock, lets it; `None` if it says so.
    pub(super) fn take<R, E: From<ClaimRefused>>(
        core: &Core<D, L>,
        address: Sbdf,
        kind: Transition,
        admit: impl FnOnce(&mut Candidate<'_, D, L>) -> Result<Option<R>, E>,
    ) -> Result<Option<(Self, R)>, E> {
        let slot = core.arena.find(address).ok_or(ClaimRefused::NotFound(address))?;
        let device = slot.lock().map_err(ClaimRefused::from)?.ok_or(ClaimRefused::NotFound(address))?;
        if is_claimed(&device) && !weakened(Site::ClaimExclusive) {
            return Err(ClaimRefused::Busy(address, uses(slot)).into());
        }
        let mut candidate = Candidate(device);
        let Some(admitted) = admit(&mut candidate)? else { return Ok(None) };
        let Candidate(device) = candidate;
        let from = device.binding.place();
        let reference = device.keep(Holder::Transition(kind)).map_err(ClaimRefused::from)?;
        slot.set_marks(slot.marks() | CLAIMED);
        Ok(Some((Self { reference, from, released: Cell::new(false) }, admitted)))
    }

    pub(super) fn slot(&self) -> &Slot<Record<D>, L> {
        self.reference.slot()
    }

    /// Where the device was when it was claimed.
    pub(super) fn from(&self) -> Place {
        self.from
    }

    pub(crate) fn address(&self) -> Sbdf {
        self.slot().address()
    }

    /// It was released.
    pub(crate) fn is_released(&self) -> bool {
        self.released.get()
    }

    /// Whose the device was when it was claimed.
    pub(crate) fn owner(&self) -> Owner {
        self.from.owner()
    }

    /// The device was reported gone, as seen under a lock that the report goes through.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.slot().glance().state() == State::Gone
    }

    /// The device was reported gone by now: its hardware may not be touched any more.
    #[inline]
    pub(crate) fn is_gone_by_now(&self) -> bool {
        self.slot().is_gone_by_now()
    }

    /// The device under its lock, also when it is gone.
    pub(super) fn lock(&self) -> Result<refcount::Locked<'_, Record<D>, L>, WouldDeadlock> {
        self.reference.reference().settle()
    }

    /// Runs `step` on the embedder's data under the device's lock, with whether the device is gone.
    pub(crate) fn with<R>(&self, step: impl FnOnce(&mut D, bool) -> R) -> Result<R, WouldDeadlock> {
        let mut device = self.lock()?;
        let gone = device.state() == State::Gone;
        Ok(step(&mut device.data, gone))
    }

    /// Releases the device, with a last look at the data under its lock. `step` is told whether the device is gone:
    /// then nobody but the holder of this claim settles what it leaves behind, with what is returned in hand.
    pub(crate) fn release<R>(
        &self,
        step: impl FnOnce(&mut D, bool) -> R,
    ) -> Result<(R, Option<Departed<D, L>>), WouldDeadlock> {
        let mut device = self.reference.reference().settle()?;
        let gone = device.state() == State::Gone;
        let result = step(&mut device.data, gone);
        device.slot().set_marks(device.slot().marks() & !CLAIMED);
        drop(device);
        self.released.set(true);
        Ok((result, gone.then(|| Departed::new(self.reference.reference().clone()))))
    }
}

impl<D, L: RawLock> Drop for Claim<D, L> {
    fn drop(&mut self) {
        if self.released.get() {
            return;
        }
        // The thread has had this lock before in this call, so it does not hold it; a device that is gone
        // loses its marks when it is destroyed.
        if let Ok(Some(device)) = self.slot().lock() {
            device.slot().set_marks(device.slot().marks() & !CLAIMED);
        }
    }
}

/// Who uses the device; a removal under way if nobody does.
pub(super) fn uses<D, L: RawLock>(slot: &Slot<Record<D>, L>) -> Busy {
    slot.busy().unwrap_or_else(|| Busy::because(Holder::Transition(Transition::Remove)))
}
