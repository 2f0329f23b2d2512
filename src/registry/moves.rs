//! Moving a set of devices without a platform: all of them, at one instant, or none.
//!
//! Claim each, in address order and by try; then [`relocate`] does the rest, with no steps between.

use alloc::vec::Vec;

use super::Core;
use super::binding::Place;
use super::claim::{Claim, ClaimRefused};
use super::relocation::{Journey, Traveller, relocate};
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::{Few, NoMemory};
use crate::owner::{DomainId, Owner};
use crate::refcount::{Busy, WouldDeadlock};
use crate::sync::RawLock;
use crate::transition::Transition;

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

impl Member {
    /// The device.
    pub const fn address(self) -> Sbdf {
        self.address
    }

    pub(crate) const fn wanted(self) -> Option<Sbdf> {
        self.guest
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

impl From<ClaimRefused> for MoveError {
    fn from(refused: ClaimRefused) -> Self {
        match refused {
            ClaimRefused::NotFound(address) => Self::NotFound(address),
            ClaimRefused::Busy(address, busy) => Self::Busy(address, busy),
            ClaimRefused::WouldDeadlock(would_deadlock) => would_deadlock.into(),
            ClaimRefused::NoMemory(no_memory) => no_memory.into(),
        }
    }
}

/// Nothing happens between mark and commit.
struct NoSteps;

impl Journey<MoveError> for NoSteps {
    fn has_steps(&self) -> bool {
        false
    }

    fn steps(&mut self) -> Result<(), MoveError> {
        Ok(())
    }

    fn undo(&mut self) {}

    fn is_stranded(&self, _: usize) -> bool {
        false
    }
}

pub(super) fn move_devices<D, L: RawLock>(
    core: &Core<D, L>,
    set: &[Member],
    to: Owner,
) -> Result<(), MoveError> {
    let target = core.owner(to).ok_or(match to {
        Owner::Guest(id) => MoveError::NoDomain(id),
        _ => MoveError::NoMemory(NoMemory),
    })?;
    let order = in_order(set)?;
    let mut travellers = Few::<_, 1>::new();
    travellers.reserve(order.len())?;
    for member in &order {
        travellers.extend(set_out(core, *member, to)?);
    }
    relocate(core, &travellers, &target, &mut NoSteps)
}

/// Claims a member of a set that moves without a platform; `None` if it is where it should go already.
fn set_out<D, L: RawLock>(
    core: &Core<D, L>,
    member: Member,
    to: Owner,
) -> Result<Option<Traveller<D, L>>, MoveError> {
    let Member { address, guest } = member;
    let kind = match to {
        Owner::Host => Transition::Deassign,
        Owner::Quarantine => Transition::Quarantine,
        Owner::Hidden => Transition::Hide,
        Owner::Guest(_) => Transition::Assign,
        // A device is found unowned; it does not become so.
        Owner::Unowned => return Err(MoveError::Denied(address)),
    };
    let claim = Claim::take(core, address, kind, |device| {
        let from = device.place();
        if from == Place::Hidden {
            return Err(MoveError::Denied(address));
        }
        if from.owner() == to
            && (from.guest_address().is_none() || guest.is_none() || from.guest_address() == guest)
        {
            return Ok(None);
        }
        let removing = device.is_removing();
        match to {
            Owner::Guest(_) if removing => Err(device.in_the_way().into()),
            Owner::Hidden if removing || device.is_used() => Err(device.in_the_way().into()),
            // From a guest to quarantine, never to a host driver; who is in quarantine stays there.
            Owner::Host if removing && from == Place::Quarantine => Ok(None),
            Owner::Host if removing => Ok(Some(Owner::Quarantine)),
            _ => Ok(Some(to)),
        }
    })?;
    Ok(claim.map(|(claim, to)| Traveller { claim, to, wanted: guest }))
}

pub(crate) fn with_room<T>(length: usize) -> Result<Vec<T>, NoMemory> {
    let mut room = Vec::new();
    room.try_reserve_exact(length)?;
    Ok(room)
}

/// The set in address order, so that two sets that overlap contend for their first common member first.
pub(crate) fn in_order(set: &[Member]) -> Result<Vec<Member>, MoveError> {
    let mut order = with_room(set.len())?;
    order.extend_from_slice(set);
    order.sort_unstable_by_key(|member| member.address);
    match order.windows(2).find(|pair| pair[0].address == pair[1].address) {
        Some(twice) => Err(MoveError::Duplicate(twice[0].address)),
        None => Ok(order),
    }
}

impl MoveError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_) | Self::Gone(_) => Errno::ENODEV,
            Self::Duplicate(_) => Errno::EINVAL,
            Self::Busy(..) => Errno::EBUSY,
            Self::Denied(_) => Errno::EPERM,
            Self::NoDomain(_) => Errno::ESRCH,
            Self::SlotTaken(_) => Errno::EEXIST,
            Self::NoFreeSlot => Errno::ENOSPC,
            Self::WouldDeadlock(_) => Errno::EDEADLK,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
