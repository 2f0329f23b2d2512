//! What a transition answers when it did not happen.

use alloc::vec::Vec;
use core::fmt;

use crate::address::Sbdf;
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::{GroupId, HookError, Refusal};
use crate::refcount::{Busy, WouldDeadlock};
use crate::registry::{
    AccessError, AddRefused, ClaimRefused, GoneError, MoveError, RemoveError, TicketError,
};

/// Why a transition did not happen. Every device is exactly as before, unless a [`Failure`] says that one is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// No device is known there; nothing was made for the question (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// A virtual function comes after its physical function, and that one is not known (ENODEV).
    #[error("{vf} is a virtual function of {pf}, which is not known: add that first")]
    NoPf {
        /// The virtual function.
        vf: Sbdf,
        /// Its physical function.
        pf: Sbdf,
    },
    /// A bridge comes before what is behind it: those devices were set up without it. Remove them, add the bridge, and
    /// then them again (EBUSY).
    #[error("{behind} is behind {bridge} and is known already: add bridges first")]
    BridgeTooLate {
        /// The bridge.
        bridge: Sbdf,
        /// A device behind it.
        behind: Sbdf,
    },
    /// The set names this device twice (EINVAL).
    #[error("{0} is in the set twice")]
    Duplicate(Sbdf),
    /// Somebody uses it, or another transition has it: wait for the holders named, or ask them to let go (EBUSY).
    #[error("{0} is {1}")]
    Busy(Sbdf, Busy),
    /// It has an owner already: deassign it there first (EBUSY).
    #[error("{device} is with {owner}")]
    Taken {
        /// The device.
        device: Sbdf,
        /// Whose it is.
        owner: Owner,
    },
    /// It is not with the owner it was to be taken from (ENODEV).
    #[error("{device} is with {owner}, not with the one it was to be taken from")]
    NotOwned {
        /// The device.
        device: Sbdf,
        /// Whose it is.
        owner: Owner,
    },
    /// It is hidden, and hidden devices stay (EPERM).
    #[error("{0} is hidden")]
    Hidden(Sbdf),
    /// It is broken: repair it first (EBADF).
    #[error("{device} is broken: {because}")]
    Broken {
        /// The device.
        device: Sbdf,
        /// What broke it.
        because: HookError,
    },
    /// It is not broken, so there is nothing to repair (EINVAL).
    #[error("{0} is not broken")]
    NotBroken(Sbdf),
    /// The platform cannot confirm that its DMA is blocked; it stays broken (EBUSY).
    #[error("it is not certain that the DMA of {0} is blocked")]
    DmaNotBlocked(Sbdf),
    /// Bridges and functions of other header types are not assignable (EINVAL).
    #[error("{0} is not an endpoint")]
    NotEndpoint(Sbdf),
    /// It is no bridge, so nothing is behind it (EINVAL).
    #[error("{0} is no bridge")]
    NotBridge(Sbdf),
    /// There is no such guest (ESRCH).
    #[error("there is no domain {0}")]
    NoDomain(DomainId),
    /// The guest is being released and takes no devices (EINVAL).
    #[error("domain {0} is dying")]
    Dying(DomainId),
    /// The guest is not released yet: devices are left, or some are on their way to it. Release it again (EBUSY).
    #[error("domain {domain} still has {devices} devices, or some are on their way to it")]
    NotReleased {
        /// The guest.
        domain: DomainId,
        /// How many are on its list.
        devices: usize,
    },
    /// The platform's policy does not permit it (by reason).
    #[error("{0}: {1}")]
    Refused(Sbdf, Refusal),
    /// The host has masked the function's MSI-X as a whole: it is in the middle of something (EBUSY).
    #[error("the host has masked the MSI-X vectors of {0}")]
    MsixMasked(Sbdf),
    /// It has no MSI-X (ENODEV).
    #[error("{0} has no MSI-X")]
    NoMsix(Sbdf),
    /// MSI-X entries of it are in use: release them first (EBUSY).
    #[error("MSI-X entries of {0} are in use")]
    VectorsInUse(Sbdf),
    /// Other members of its IOMMU group stand in the way: move them along, or to quarantine, or unbind their
    /// drivers (EBUSY).
    #[error("group {} is not viable: {}", .group.0, List(.in_the_way))]
    GroupNotViable {
        /// The group.
        group: GroupId,
        /// Who is in the way, and with whom.
        in_the_way: Vec<(Sbdf, Owner)>,
    },
    /// Another transition has a member of this group; try again (EBUSY).
    #[error("another transition is under way in the group of {0}")]
    GroupBusy(Sbdf),
    /// Two devices share a requester ID and must move together (EBUSY).
    #[error("{device} and {other} share a requester ID: move them together")]
    Inseparable {
        /// The member of the set.
        device: Sbdf,
        /// The device that has to come along.
        other: Sbdf,
    },
    /// A reset of the device would reach a device of somebody else (EBUSY).
    #[error("a reset of {device} would reach {other}, which is with {owner}")]
    OthersInReset {
        /// The device to be reset.
        device: Sbdf,
        /// Who would be hit.
        other: Sbdf,
        /// Whose that is.
        owner: Owner,
    },
    /// The guest has something at the address asked for (EEXIST).
    #[error("the guest's slot {0} is taken")]
    SlotTaken(Sbdf),
    /// The guest has no free slot left (ENOSPC).
    #[error("the guest has no free slot left")]
    NoFreeSlot,
    /// No such request is pending (EINVAL).
    #[error("nobody asked the guest to let {0} go")]
    NotAsked(Sbdf),
    /// The bridges above the device make no sense (EINVAL).
    #[error("the bridges above {0} form a loop or overlap")]
    Topology(Sbdf),
    /// The device was reported gone meanwhile (ENODEV).
    #[error("{0} was reported gone meanwhile")]
    Gone(Sbdf),
    /// A removal ticket is over, or its time is up.
    #[error(transparent)]
    Ticket(TicketError),
    /// A hook of the platform failed (its own number).
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The calling thread holds the lock of a device concerned (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
    /// Nothing was changed (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

struct List<'a>(&'a [(Sbdf, Owner)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (device, owner)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{device} is with {owner}")?;
        }
        Ok(())
    }
}

/// A hook failed. All steps before it have been undone; what could not be is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The device at which it failed.
    pub device: Sbdf,
    /// The step that failed.
    pub step: &'static str,
    /// The hook's error.
    pub error: HookError,
    /// Every error of the undo, in order. Their devices are broken.
    pub undo: Vec<UndoError>,
}

/// A step that could not be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UndoError {
    /// The device, now broken.
    pub device: Sbdf,
    /// The step.
    pub step: &'static str,
    /// The hook's error.
    pub error: HookError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.device, self.step, self.error)?;
        for undo in &self.undo {
            write!(f, "; undoing {} of {}: {}", undo.step, undo.device, undo.error)?;
        }
        Ok(())
    }
}

impl core::error::Error for Failure {}

impl TransitionError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_)
            | Self::NoPf { .. }
            | Self::NotOwned { .. }
            | Self::NoMsix(_)
            | Self::Gone(_) => Errno::ENODEV,
            Self::Duplicate(_)
            | Self::NotBroken(_)
            | Self::NotEndpoint(_)
            | Self::NotBridge(_)
            | Self::Dying(_)
            | Self::NotAsked(_)
            | Self::Topology(_) => Errno::EINVAL,
            Self::Busy(..)
            | Self::BridgeTooLate { .. }
            | Self::Taken { .. }
            | Self::DmaNotBlocked(_)
            | Self::NotReleased { .. }
            | Self::MsixMasked(_)
            | Self::VectorsInUse(_)
            | Self::GroupNotViable { .. }
            | Self::GroupBusy(_)
            | Self::Inseparable { .. }
            | Self::OthersInReset { .. } => Errno::EBUSY,
            Self::Hidden(_) => Errno::EPERM,
            Self::Broken { .. } => Errno::EBADF,
            Self::NoDomain(_) => Errno::ESRCH,
            Self::Refused(_, refusal) => refusal.errno(),
            Self::SlotTaken(_) => Errno::EEXIST,
            Self::NoFreeSlot => Errno::ENOSPC,
            Self::Ticket(error) => error.errno(),
            Self::Failed(failure) => failure.error.errno(),
            Self::WouldDeadlock(_) => Errno::EDEADLK,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

impl From<ClaimRefused> for TransitionError {
    fn from(refused: ClaimRefused) -> Self {
        MoveError::from(refused).into()
    }
}

impl From<MoveError> for TransitionError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::NotFound(address) => Self::NotFound(address),
            MoveError::Duplicate(address) => Self::Duplicate(address),
            MoveError::Busy(address, busy) => Self::Busy(address, busy),
            MoveError::Denied(address) => Self::Hidden(address),
            MoveError::Gone(address) => Self::Gone(address),
            MoveError::NoDomain(id) => Self::Dying(id),
            MoveError::SlotTaken(at) => Self::SlotTaken(at),
            MoveError::NoFreeSlot => Self::NoFreeSlot,
            MoveError::WouldDeadlock(would_deadlock) => would_deadlock.into(),
            MoveError::NoMemory(no_memory) => no_memory.into(),
        }
    }
}

impl TransitionError {
    /// A hook failed before anything was done.
    pub(super) fn failed(device: Sbdf, step: &'static str, error: HookError) -> Self {
        Self::Failed(Failure { device, step, error, undo: Vec::new() })
    }

    pub(super) fn of_access(address: Sbdf, error: AccessError) -> Self {
        match error {
            AccessError::NotFound => Self::NotFound(address),
            AccessError::WouldDeadlock(would_deadlock) => would_deadlock.into(),
        }
    }

    pub(super) fn of_removal(address: Sbdf, error: RemoveError) -> Self {
        match error {
            RemoveError::NotFound(address) => Self::NotFound(address),
            RemoveError::Busy(busy) => Self::Busy(address, busy),
            RemoveError::Denied => Self::Hidden(address),
            RemoveError::WouldDeadlock(would_deadlock) => would_deadlock.into(),
            RemoveError::NoMemory(no_memory) => no_memory.into(),
        }
    }

    pub(super) fn of_add(address: Sbdf, error: AddRefused) -> Self {
        match error {
            AddRefused::Exists(address) => Self::Taken { device: address, owner: Owner::Host },
            AddRefused::Busy(busy) => Self::Busy(address, busy),
            AddRefused::NoMemory(no_memory) => no_memory.into(),
        }
    }
}

impl From<GoneError> for TransitionError {
    fn from(error: GoneError) -> Self {
        match error {
            GoneError::NotFound(address) => Self::NotFound(address),
            GoneError::WouldDeadlock(would_deadlock) => would_deadlock.into(),
        }
    }
}

impl From<TicketError> for TransitionError {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::WouldDeadlock(would_deadlock) => would_deadlock.into(),
            error => Self::Ticket(error),
        }
    }
}
