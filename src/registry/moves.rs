//! Moving a set of devices from their owners to another: all of them, at one instant, or none.
//!
//! ```text
//! claim each, in address order, by try
//!   -> room on the new owner's list, a guest address each          (may fail: nothing has changed)
//!     -> mark each Moving { from, to, committed: false }           (readers still resolve to `from`)
//!       -> [the platform's steps will run here, without locks]
//!         -> lock all lists concerned, in owner order
//!            is none reported gone?  edit the lists, set committed (readers resolve to `to`, all at once)
//!         -> settle each binding, give the old assignment back, free the old guest address
//! release the claims
//! ```
//!
//! A claim is a mark and a reference named "transition: …", so a removal of a device on its way is `Busy`. It
//! does not stop `report_gone`: the commit looks for members that are gone and undoes the rest.

use alloc::vec::Vec;

use super::Core;
use super::binding::{Binding, Move, Place, Record, Step};
use super::domain::{CannotOccupy, DomainState, Members};
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::owner::{DomainId, Owner};
use crate::refcount::{self, Busy, Holder, NamedRef, Slot, State, WouldDeadlock};
use crate::sync::{AtomicBool, Guard, Ordering, RawLock, Site, ordering, weakened};
use crate::transition::Transition;

/// The mark of a claimed device.
const CLAIMED: u8 = 1;

/// Whether a transition has claimed the device, whose lock the caller holds.
pub(super) fn is_claimed<D, L: RawLock>(device: &refcount::Locked<'_, Record<D>, L>) -> bool {
    device.slot().marks() & CLAIMED != 0
}

/// One device of a set to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    address: Sbdf,
    guest: Option<Sbdf>,
}

impl Member {
    /// A device, at the lowest free address of the guest it goes to.
    pub const fn new(address: Sbdf) -> Self {
        Self { address, guest: None }
    }

    /// A device, and the address under which the guest it goes to shall see it.
    pub const fn at(address: Sbdf, guest: Sbdf) -> Self {
        Self { address, guest: Some(guest) }
    }
}

impl From<Sbdf> for Member {
    fn from(address: Sbdf) -> Self {
        Self::new(address)
    }
}

/// Why a set was not moved. Every device is where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// No device is known at this address (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// The set names this device twice (EINVAL).
    #[error("{0} is in the set twice")]
    Duplicate(Sbdf),
    /// Somebody stands in the way: another transition, a removal, or, for hiding, any use (EBUSY).
    #[error("{0} is {1}")]
    Busy(Sbdf, Busy),
    /// The device is hidden, and hidden devices stay (EPERM).
    #[error("{0} is hidden: it cannot be moved")]
    Denied(Sbdf),
    /// The device was reported gone during the move (ENODEV).
    #[error("{0} was reported gone during the move")]
    Gone(Sbdf),
    /// There is no such guest, or it is being destroyed (ESRCH).
    #[error("there is no domain {0}, or it is going away")]
    NoDomain(DomainId),
    /// The guest has something at the address asked for (EEXIST).
    #[error("the guest's slot {0} is taken")]
    SlotTaken(Sbdf),
    /// The guest has no free slot left (ENOSPC).
    #[error("the guest has no free slot left")]
    NoFreeSlot,
    /// The calling thread holds the lock of a device in the set (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
    /// Nothing was moved (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

pub(super) fn move_devices<D, L: RawLock>(
    core: &Core<D, L>,
    set: &[Member],
    to: Owner,
) -> Result<(), MoveError> {
    let target = core.owner(to).ok_or_else(|| match to {
        Owner::Guest(id) => MoveError::NoDomain(id),
        _ => unreachable!("{to} always exists"),
    })?;
    let order = in_order(set)?;
    let mut claims = with_room(order.len())?;
    for member in &order {
        claims.extend(Claim::take(core, *member, to)?);
    }
    if claims.is_empty() {
        return Ok(());
    }
    // All memory first, but the names of the new assignments: those come with the marks, where undoing needs
    // none. From the last mark on nothing may fail for want of it.
    let mut arrival = Arrival::reserve(&target, &core.quarantine, &claims)?;
    let moves = plan(&claims, &arrival)?;
    let concerned = concerned(core, &claims)?;
    let lists = with_room(concerned.len())?;

    let result =
        depart(&claims, &moves).and_then(|()| commit(&claims, &moves, &mut arrival, &concerned, lists));
    settle(&claims, &moves, &concerned);
    result
}

fn with_room<T>(length: usize) -> Result<Vec<T>, NoMemory> {
    let mut room = Vec::new();
    room.try_reserve_exact(length)?;
    Ok(room)
}

/// The set in address order, so that two sets that overlap contend for their first common member first.
fn in_order(set: &[Member]) -> Result<Vec<Member>, MoveError> {
    let mut order = with_room(set.len())?;
    order.extend_from_slice(set);
    order.sort_unstable_by_key(|member| member.address);
    match order.windows(2).find(|pair| pair[0].address == pair[1].address) {
        Some(twice) => Err(MoveError::Duplicate(twice[0].address)),
        None => Ok(order),
    }
}

/// One device, kept from every other transition. Dropping it releases the device.
struct Claim<D, L: RawLock> {
    reference: NamedRef<Record<D>, L>,
    from: Place,
    /// Whom it goes to: a device taken from its guest while its removal is pending goes to quarantine, never
    /// to a host driver.
    to: Owner,
    wanted: Option<Sbdf>,
}

impl<D, L: RawLock> Claim<D, L> {
    /// Claims a member; `None` if it is where it should go already.
    fn take(core: &Core<D, L>, member: Member, to: Owner) -> Result<Option<Self>, MoveError> {
        let Member { address, guest } = member;
        let slot = core.arena.find(address).ok_or(MoveError::NotFound(address))?;
        let Some(device) = slot.lock()? else { return Err(MoveError::NotFound(address)) };
        if is_claimed(&device) && !weakened(Site::ClaimExclusive) {
            return Err(busy(slot));
        }
        let from = device.binding.place();
        if from == Place::Hidden {
            return Err(MoveError::Denied(address));
        }
        if from.owner() == to
            && (from.guest_address().is_none() || guest.is_none() || from.guest_address() == guest)
        {
            return Ok(None);
        }
        let removing = device.state() == State::Removing;
        let (to, kind) = match to {
            Owner::Guest(_) if removing => return Err(busy(slot)),
            Owner::Hidden if removing || slot.busy().is_some() => return Err(busy(slot)),
            Owner::Guest(_) | Owner::Quarantine | Owner::Hidden => (to, Transition::Assign),
            // From a guest to quarantine, never to a host driver; who is in quarantine stays there.
            Owner::Host if removing && from == Place::Quarantine => return Ok(None),
            Owner::Host if removing => (Owner::Quarantine, Transition::Deassign),
            Owner::Host => (to, Transition::Deassign),
            // A device is found unowned; it does not become so.
            Owner::Unowned => return Err(MoveError::Denied(address)),
        };
        let reference = device.keep(Holder::Transition(kind))?;
        slot.set_marks(slot.marks() | CLAIMED);
        Ok(Some(Self { reference, from, to, wanted: guest }))
    }

    fn slot(&self) -> &Slot<Record<D>, L> {
        self.reference.slot()
    }

    fn address(&self) -> Sbdf {
        self.slot().address()
    }

    /// Marks the device as on its way, with the reference of its new assignment in place.
    fn depart(&self, moves: &Shared<Move>, member: u32) -> Result<(), MoveError> {
        let mut device = self.reference.reference().settle()?;
        if device.state() == State::Gone {
            return Err(MoveError::Gone(self.address()));
        }
        if let Some(Step { to: Place::Guest(guest, _), .. }) = moves.members.get(member as usize) {
            device.keep(Holder::Domain(guest.id))?.park();
        }
        device.binding = Binding::Moving { member, moves: moves.clone() };
        Ok(())
    }
}

impl<D, L: RawLock> Drop for Claim<D, L> {
    fn drop(&mut self) {
        // The thread has had this lock before in this call, so it does not hold it; a device that is gone
        // loses its marks when it is destroyed.
        if let Ok(Some(device)) = self.slot().lock() {
            device.slot().set_marks(device.slot().marks() & !CLAIMED);
        }
    }
}

fn busy<D, L: RawLock>(slot: &Slot<Record<D>, L>) -> MoveError {
    let busy = slot.busy().unwrap_or_else(|| Busy::because(Holder::Transition(Transition::Remove)));
    MoveError::Busy(slot.address(), busy)
}

/// Room at the new owner's: places on its list and, for a guest, an address each. Given back when this is
/// dropped before the commit.
struct Arrival<'a, D, L: RawLock> {
    target: &'a DomainState<D, L>,
    /// Where members go that may not go to the target.
    refuge: &'a DomainState<D, L>,
    claims: &'a [Claim<D, L>],
    /// Promised and not used: by the target, by the refuge.
    room: [usize; 2],
    addresses: Vec<Option<Sbdf>>,
}

impl<'a, D, L: RawLock> Arrival<'a, D, L> {
    fn reserve(
        target: &'a DomainState<D, L>,
        refuge: &'a DomainState<D, L>,
        claims: &'a [Claim<D, L>],
    ) -> Result<Self, MoveError> {
        let addresses = with_room(claims.len())?;
        let mut arrival = Self { target, refuge, claims, room: [0; 2], addresses };
        let diverted = claims.iter().filter(|claim| claim.to != target.owner).count();
        if diverted > 0 {
            refuge.members.lock().promise(diverted)?;
            arrival.room[1] = diverted;
        }
        let occupied = arrival.occupy(&mut target.members.lock(), claims.len() - diverted);
        occupied.map(|()| arrival)
    }

    fn occupy(&mut self, members: &mut Members<D, L>, room: usize) -> Result<(), MoveError> {
        members.promise(room)?;
        self.room[0] = room;
        let Owner::Guest(id) = self.target.owner else { return Ok(()) };
        if members.closed {
            return Err(MoveError::NoDomain(id));
        }
        self.addresses.resize(self.claims.len(), None);
        // Addresses asked for come before addresses handed out.
        for asked in [true, false] {
            for (claim, place) in self.claims.iter().zip(&mut self.addresses) {
                if claim.wanted.is_some() == asked {
                    let occupied = self.target.occupy(members, claim.wanted, claim.slot());
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
}

impl<D, L: RawLock> Drop for Arrival<'_, D, L> {
    fn drop(&mut self) {
        if self.room[1] > 0 {
            self.refuge.members.lock().release(self.room[1]);
        }
        if self.room[0] > 0 {
            let mut members = self.target.members.lock();
            members.release(self.room[0]);
            for (claim, at) in self.claims.iter().zip(&self.addresses) {
                if let Some(at) = at {
                    self.target.vacate(&mut members, *at, claim.slot());
                }
            }
        }
    }
}

fn plan<D, L: RawLock>(
    claims: &[Claim<D, L>],
    arrival: &Arrival<'_, D, L>,
) -> Result<Shared<Move>, NoMemory> {
    let mut members = with_room(claims.len())?;
    for (place, claim) in claims.iter().enumerate() {
        let at = arrival.addresses.get(place).copied().flatten().unwrap_or_default();
        let to = if claim.to == arrival.target.owner { arrival.target } else { arrival.refuge };
        members.push(Step { from: claim.from, to: to.place(at) });
    }
    Shared::try_new(Move { committed: AtomicBool::new(false), members })
}

/// The owners whose lists the move changes, in order. Each has a member, or a promise, so none is destroyed
/// meanwhile.
fn concerned<D, L: RawLock>(
    core: &Core<D, L>,
    claims: &[Claim<D, L>],
) -> Result<Vec<Shared<DomainState<D, L>>>, NoMemory> {
    let mut owners = with_room(claims.len() * 2)?;
    owners.extend(claims.iter().flat_map(|claim| [claim.from.owner(), claim.to]));
    owners.sort_unstable();
    owners.dedup();
    let mut concerned = with_room(owners.len())?;
    concerned.extend(owners.iter().filter_map(|owner| core.owner(*owner)));
    Ok(concerned)
}

/// Marks every member as on its way.
fn depart<D, L: RawLock>(claims: &[Claim<D, L>], moves: &Shared<Move>) -> Result<(), MoveError> {
    claims.iter().zip(0..).try_for_each(|(claim, member)| claim.depart(moves, member))
}

type List<'a, D, L> = (Owner, Guard<'a, Members<D, L>, L>);

/// The instant of the move: every list it concerns is locked, and no member is gone.
fn commit<'a, D, L: RawLock>(
    claims: &[Claim<D, L>],
    moves: &Shared<Move>,
    arrival: &mut Arrival<'_, D, L>,
    concerned: &'a [Shared<DomainState<D, L>>],
    mut lists: Vec<List<'a, D, L>>,
) -> Result<(), MoveError> {
    lists.extend(concerned.iter().map(|domain| (domain.owner, domain.members.lock())));
    if !weakened(Site::CommitChecksGone)
        && let Some(gone) = claims.iter().find(|claim| claim.slot().glance().state() == State::Gone)
    {
        return Err(MoveError::Gone(gone.address()));
    }
    if weakened(Site::CommitUnderLists) {
        lists.clear();
        moves.committed.store(true, Ordering::Release);
        lists.extend(concerned.iter().map(|domain| (domain.owner, domain.members.lock())));
    }
    for claim in claims {
        if let Some(from) = list_of(&mut lists, claim.from.owner()) {
            from.list.remove(claim.slot());
        }
        if let Some(to) = list_of(&mut lists, claim.to) {
            to.arrive(claim.slot());
        }
    }
    arrival.room = [0; 2];
    // Release: pairs with the Acquire of those who resolve a member, so that who sees one sees all.
    moves.committed.store(true, ordering(Site::CommitRelease, Ordering::Release));
    Ok(())
}

/// Sorted by owner, and every owner concerned is there.
fn list_of<'l, D, L: RawLock>(
    lists: &'l mut [List<'_, D, L>],
    owner: Owner,
) -> Option<&'l mut Members<D, L>> {
    let place = lists.binary_search_by_key(&owner, |(owner, _)| *owner).ok()?;
    Some(&mut lists[place].1)
}

/// After the commit, or instead of it: every binding says where its device is, and what the other place had is
/// given back.
fn settle<D, L: RawLock>(
    claims: &[Claim<D, L>],
    moves: &Shared<Move>,
    concerned: &[Shared<DomainState<D, L>>],
) {
    let committed = moves.committed.load(Ordering::Acquire);
    for (claim, step) in claims.iter().zip(&moves.members) {
        let (stays, leaves) = if committed { (step.to, step.from) } else { (step.from, step.to) };
        let slot = claim.slot();
        // `settle` fails only for a thread that holds the lock, which had it once more in this call.
        let released = claim.reference.reference().settle().map(|mut device| {
            // A member that had not departed yet has no second assignment to give back.
            let departed = device.binding.is_moving();
            device.binding = Binding::settled(stays);
            let assigned = |place| match place {
                Place::Guest(guest, _) => slot.unpark(Holder::Domain(guest.id)),
                _ => None,
            };
            let left = if departed { assigned(leaves) } else { None };
            // Who reports a device gone takes its assignment back, unless it was on its way: then we do.
            let gone = if device.state() == State::Gone { assigned(stays) } else { None };
            (left, gone)
        });
        drop(released);
        // What was reserved at the new owner's is given back by `Arrival` if there was no commit.
        if committed
            && let Place::Guest(guest, at) = leaves
            && stays != leaves
            && let Ok(from) = concerned.binary_search_by_key(&Owner::Guest(guest.id), |domain| domain.owner)
        {
            let domain = &concerned[from];
            let mut members = domain.members.lock();
            domain.vacate(&mut members, at, slot);
        }
    }
}
