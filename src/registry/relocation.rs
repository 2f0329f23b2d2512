//! The way of a claimed set from its owners to another: all of it arrives, at one instant, or none does.
//!
//! ```text
//! room on the new owner's list, a guest address each          (may fail: nothing has changed)
//!   -> mark each Moving { from, to, committed: false }        (it is still `from`'s; a guest there reads ones
//!                                                               if there are steps)
//!     -> the journey's steps run, without locks
//!       -> lock all lists concerned, in owner order
//!          is none reported gone?  edit the lists, set committed (readers resolve to `to`, all at once)
//!       -> settle each binding, give the old assignment back, free the old guest address
//! ```
//!
//! If a step fails, or a member was reported gone, the journey undoes its steps and every member settles where it
//! was; but one whose DMA may still reach a guest is *stranded*: it goes on that guest's list, out of its sight.

use core::marker::PhantomData;

use super::Core;
use super::binding::{Move, Place, Record, Step};
use super::claim::Claim;
use super::domain::{CannotOccupy, DomainState, Members, OwnerState};
use super::moves::MoveError;
use crate::Sbdf;
use crate::memory::{Few, NoMemory, Shared};
use crate::owner::Owner;
use crate::refcount::{Holder, Slot, State};
use crate::sync::{AtomicBool, Guard, Ordering, RawLock, Site, ordering, weakened};

/// A claimed device and where it goes.
pub(crate) struct Traveller<D, L: RawLock> {
    pub(crate) claim: Claim<D, L>,
    /// The set's destination, or quarantine.
    pub(crate) to: Owner,
    /// At which address, if the destination is a guest and an address was asked for.
    pub(crate) wanted: Option<Sbdf>,
}

impl<D, L: RawLock> Traveller<D, L> {
    fn slot(&self) -> &Slot<Record<D>, L> {
        self.claim.slot()
    }

    /// Marks the device as on its way, with the reference of its new assignment in place.
    fn depart(&self, moves: &Shared<Move>, member: u32) -> Result<(), MoveError> {
        let mut device = self.claim.lock()?;
        if device.state() == State::Gone {
            return Err(MoveError::Gone(self.claim.address()));
        }
        if let Some(Step { to, .. }) = moves.members.get(member as usize)
            && let Some(assignment) = to.assignment()
        {
            device.keep(assignment)?.park();
        }
        Record::mark(&mut device, member, moves.clone());
        Ok(())
    }
}

/// What happens between the marks and the commit, without locks, and how it is undone.
pub(crate) trait Journey<E> {
    /// Whether anything happens to the devices on the way, which those who are losing them must not see.
    fn has_steps(&self) -> bool;

    /// Everything that must have succeeded when the set arrives.
    fn steps(&mut self) -> Result<(), E>;

    /// Undoes all of it: a step failed, or the set could not arrive.
    fn undo(&mut self);

    /// After the undo: whether the DMA of this member may still reach the guest that the journey was from or to.
    fn is_stranded(&self, member: usize) -> bool;
}

/// Moves what is claimed to `target`, or, those members that say so, to quarantine.
pub(super) fn relocate<D, L: RawLock, E: From<MoveError>>(
    core: &Core<D, L>,
    travellers: &[Traveller<D, L>],
    target: &DomainState<D, L>,
    journey: &mut impl Journey<E>,
) -> Result<(), E> {
    if travellers.is_empty() {
        return Ok(());
    }
    // All memory first, but the names of the new assignments: those come with the marks, where undoing needs
    // none. From the last mark on nothing may fail for want of it.
    let mut arrival = Arrival::none(target, &core.quarantine, travellers);
    arrival.reserve()?;
    let moves = arrival.plan(journey.has_steps()).map_err(MoveError::from)?;
    let mut concerned = Concerned::new();
    add_concerned(core, &arrival, &mut concerned).map_err(MoveError::from)?;
    let mut lists = Lists::new();
    lists.reserve(concerned.len()).map_err(MoveError::from)?;

    let mut underway = Underway {
        travellers,
        moves,
        concerned: &concerned,
        arrival: &mut arrival,
        journey,
        arrived: false,
        error: PhantomData,
    };
    underway.depart()?;
    underway.journey.steps()?;
    underway.commit(lists)?;
    Ok(())
}

/// A set on its way. Dropping it settles every member: where it arrived, or where it was.
struct Underway<'u, 'a, D, L: RawLock, E, J: Journey<E>> {
    travellers: &'a [Traveller<D, L>],
    moves: Shared<Move>,
    concerned: &'u [OwnerState<'a, D, L>],
    arrival: &'u mut Arrival<'a, D, L>,
    journey: &'u mut J,
    arrived: bool,
    error: PhantomData<fn() -> E>,
}

/// Mostly one owner loses devices and one gets them.
const OWNERS: usize = 2;

type List<'a, D, L> = (Owner, Guard<'a, Members<D, L>, L>);
type Lists<'a, D, L> = Few<List<'a, D, L>, OWNERS>;
type Concerned<'a, D, L> = Few<OwnerState<'a, D, L>, OWNERS>;

impl<'u, D, L: RawLock, E, J: Journey<E>> Underway<'u, '_, D, L, E, J> {
    fn depart(&self) -> Result<(), MoveError> {
        self.travellers
            .iter()
            .zip(0..)
            .try_for_each(|(traveller, member)| traveller.depart(&self.moves, member))
    }

    /// The instant of the move: every list it concerns is locked, and no member is gone.
    fn commit(&mut self, mut lists: Lists<'u, D, L>) -> Result<(), MoveError> {
        let lock_all = |lists: &mut Lists<'u, D, L>| {
            lists.extend(self.concerned.iter().map(|domain| (domain.owner, domain.members.lock())));
        };
        lock_all(&mut lists);
        if !weakened(Site::CommitChecksGone)
            && let Some(gone) = self.travellers.iter().find(|traveller| traveller.claim.is_gone())
        {
            return Err(MoveError::Gone(gone.claim.address()));
        }
        if let Owner::Guest(id) = self.arrival.target.owner
            && list_of(&mut lists, self.arrival.target.owner).is_some_and(|members| members.dying)
            && !weakened(Site::CommitChecksDying)
        {
            return Err(MoveError::NoDomain(id));
        }
        if weakened(Site::CommitUnderLists) {
            lists.clear();
            self.moves.committed.store(true, Ordering::Release);
            lock_all(&mut lists);
        }
        for traveller in self.travellers {
            if let Some(from) = list_of(&mut lists, traveller.claim.from().owner()) {
                from.list.remove(traveller.slot());
            }
            if let Some(to) = list_of(&mut lists, traveller.to) {
                to.arrive(traveller.slot());
            }
        }
        self.arrival.room = [0; 2];
        self.arrival.addresses.clear();
        // Release: pairs with the Acquire of those who resolve a member, so that who sees one sees all.
        self.moves.committed.store(true, ordering(Site::CommitRelease, Ordering::Release));
        self.arrived = true;
        Ok(())
    }

    /// Every binding says where its device is, and what the other place had is given back.
    fn settle(&mut self, traveller: &Traveller<D, L>, step: Step, stranded: bool) {
        let slot = traveller.slot();
        let (stays, leaves) = match self.arrived {
            true => (step.to, step.from),
            false if stranded => self.strand(slot, step),
            false => (step.from, step.to),
        };
        // It fails only for a thread that holds the lock, which had it once more in this call.
        let released = traveller.claim.lock().map(|mut device| {
            // A member that had not departed yet has no second assignment to give back.
            let departed = device.binding.is_moving();
            Record::settle(&mut device, stays);
            let unpark = |place: Place| place.assignment().and_then(|holder| slot.unpark(holder));
            let left = if departed { unpark(leaves) } else { None };
            // Who reports a device gone takes its assignment back, unless it was on its way: then we do.
            let gone = if device.state() == State::Gone { unpark(stays) } else { None };
            (left, gone)
        });
        drop(released);
        // What was reserved at the new owner's is given back by `Arrival` if the set did not arrive.
        if let Place::Guest(guest, at) = step.from
            && stays != step.from
            && let Some(domain) = self.domain(Owner::Guest(guest.id))
        {
            let mut members = domain.members.lock();
            domain.vacate(&mut members, at, slot);
        }
    }

    fn domain(&self, owner: Owner) -> Option<&'u DomainState<D, L>> {
        let place = self.concerned.binary_search_by_key(&owner, |domain| domain.owner).ok()?;
        Some(&self.concerned[place])
    }

    /// Puts a device that did not arrive on the list of the guest that its DMA may still reach. Returns where it
    /// stays, and the place that its departure reserved and nobody takes.
    fn strand(&mut self, slot: &Slot<Record<D>, L>, step: Step) -> (Place, Place) {
        let Some(guest) = step.to.guest().or(step.from.guest()) else { return (step.from, step.to) };
        let stays = Place::DmaOf(guest);
        let (from, to) = (step.from.owner(), stays.owner());
        if from == to {
            slot.rename_parked(Holder::Domain(guest.id), Holder::DmaOf(guest.id));
            return (stays, step.to);
        }
        let (Some(old), Some(new)) = (self.domain(from), self.domain(to)) else {
            return (step.from, step.to);
        };
        // In owner order; a guest comes after everyone it can have a device from.
        let (mut old, mut new) = (old.members.lock(), new.members.lock());
        if slot.glance().state() == State::Gone || !old.list.remove(slot) {
            return (step.from, step.to);
        }
        new.arrive(slot);
        self.arrival.room[0] -= 1;
        slot.rename_parked(Holder::Domain(guest.id), Holder::DmaOf(guest.id));
        (stays, step.from)
    }
}

impl<D, L: RawLock, E, J: Journey<E>> Drop for Underway<'_, '_, D, L, E, J> {
    fn drop(&mut self) {
        if !self.arrived {
            self.journey.undo();
        }
        for (member, traveller) in self.travellers.iter().enumerate() {
            if let Some(step) = self.moves.members.get(member).copied() {
                let stranded = !self.arrived && self.journey.is_stranded(member);
                self.settle(traveller, step, stranded);
            }
        }
    }
}

/// Sorted by owner, and every owner concerned is there.
fn list_of<'l, D, L: RawLock>(
    lists: &'l mut [List<'_, D, L>],
    owner: Owner,
) -> Option<&'l mut Members<D, L>> {
    let place = lists.binary_search_by_key(&owner, |(owner, _)| *owner).ok()?;
    Some(&mut lists[place].1)
}

/// Room at the new owner's: places on its list and, for a guest, an address each. Given back when this is
/// dropped before the commit.
struct Arrival<'a, D, L: RawLock> {
    target: &'a DomainState<D, L>,
    /// Where members go that may not go to the target.
    refuge: &'a DomainState<D, L>,
    travellers: &'a [Traveller<D, L>],
    /// Promised and not used: by the target, by the refuge.
    room: [usize; 2],
    addresses: Few<Option<Sbdf>, 1>,
}

impl<'a, D, L: RawLock> Arrival<'a, D, L> {
    /// No room yet.
    fn none(
        target: &'a DomainState<D, L>,
        refuge: &'a DomainState<D, L>,
        travellers: &'a [Traveller<D, L>],
    ) -> Self {
        Self { target, refuge, travellers, room: [0; 2], addresses: Few::new() }
    }

    fn reserve(&mut self) -> Result<(), MoveError> {
        let all = self.travellers.len();
        self.addresses.reserve(all)?;
        let diverted = self.travellers.iter().filter(|traveller| traveller.to != self.target.owner).count();
        if diverted > 0 {
            self.refuge.members.lock().promise(diverted)?;
            self.room[1] = diverted;
        }
        let target = self.target;
        self.occupy(&mut target.members.lock(), all - diverted)
    }

    fn occupy(&mut self, members: &mut Members<D, L>, room: usize) -> Result<(), MoveError> {
        members.promise(room)?;
        self.room[0] = room;
        let Owner::Guest(id) = self.target.owner else { return Ok(()) };
        if members.closed {
            return Err(MoveError::NoDomain(id));
        }
        self.addresses.extend(self.travellers.iter().map(|_| None));
        // Addresses asked for come before addresses handed out.
        for asked in [true, false] {
            for (traveller, place) in self.travellers.iter().zip(self.addresses.iter_mut()) {
                if traveller.wanted.is_some() == asked {
                    let occupied = self.target.occupy(members, traveller.wanted, traveller.slot());
                    *place = Some(occupied.map_err(|error| match error {
                        CannotOccupy::SlotTaken(at) => MoveError::SlotTaken(at),
                        CannotOccupy::NoFreeSlot => MoveError::NoFreeSlot,
                        CannotOccupy::NoMemory => MoveError::NoMemory(NoMemory),
                    })?);
                }
            }
        }
        Ok(())
    }

    /// The way of each member.
    fn plan(&self, veiled: bool) -> Result<Shared<Move>, NoMemory> {
        let mut members = Few::new();
        members.reserve(self.travellers.len())?;
        for (place, traveller) in self.travellers.iter().enumerate() {
            let at = self.addresses.get(place).copied().flatten().unwrap_or_default();
            let to = if traveller.to == self.target.owner { self.target } else { self.refuge };
            members.push(Step { from: traveller.claim.from(), to: to.place(at) });
        }
        Shared::try_new(Move { committed: AtomicBool::new(false), veiled, members })
    }
}

impl<D, L: RawLock> Drop for Arrival<'_, D, L> {
    fn drop(&mut self) {
        if self.room[1] > 0 {
            self.refuge.members.lock().release(self.room[1]);
        }
        if self.room[0] == 0 && self.addresses.is_empty() {
            return;
        }
        let mut members = self.target.members.lock();
        members.release(self.room[0]);
        for (traveller, at) in self.travellers.iter().zip(self.addresses.iter()) {
            if let Some(at) = at {
                self.target.vacate(&mut members, *at, traveller.slot());
            }
        }
    }
}

/// Adds the owners whose lists the move changes, in order. Each has a member, or a promise, so none is destroyed
/// meanwhile.
fn add_concerned<'a, D, L: RawLock>(
    core: &'a Core<D, L>,
    arrival: &Arrival<'a, D, L>,
    concerned: &mut Concerned<'a, D, L>,
) -> Result<(), NoMemory> {
    let Arrival { target, travellers, .. } = arrival;
    for owner in travellers.iter().flat_map(|traveller| [traveller.claim.from().owner(), traveller.to]) {
        let Err(place) = concerned.binary_search_by_key(&owner, |domain| domain.owner) else { continue };
        let known = (owner == target.owner).then_some(OwnerState::Always(target));
        if let Some(domain) = known.or_else(|| core.owner(owner)) {
            concerned.reserve(1)?;
            concerned.push(domain);
            concerned[place..].rotate_right(1);
        }
    }
    Ok(())
}
