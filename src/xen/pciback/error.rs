//! Why not, and what has become of it.

use std::fmt;

use super::state::State;
use crate::address::{Sbdf, SegmentTooWide};
use crate::errno::Errno;
use crate::owner::DomainId;
use crate::xen::store::{InvalidPath, NodePath, StoreError};

/// Why a guest's devices could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PcibackError {
    /// The store failed, or did not answer. What it had committed stays.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing to give, or the same device twice (EINVAL).
    #[error("a set of devices has at least one, and each once")]
    Set,
    /// The address does not fit the driver's 16 bits of segment (EINVAL).
    #[error("{0} has a segment that xen-pciback does not know")]
    Segment(Sbdf),
    /// What a device is called cannot be a value: 1 to 255 printable characters (EINVAL).
    #[error("the name of {0} is not 1 to 255 printable characters")]
    Name(Sbdf),
    /// This guest has the device already (EEXIST).
    #[error("{0} is this guest's already")]
    Already(Sbdf),
    /// Another guest has the device. Nothing of it was touched (EBUSY).
    #[error("{device} is domain {guest}'s")]
    Held {
        /// The device.
        device: Sbdf,
        /// Whose it is.
        guest: DomainId,
    },
    /// The guest does not have the device (ENODEV).
    #[error("{0} is not this guest's")]
    NotExported(Sbdf),
    /// The guest has no backend: it has no devices. Publish a set (ENODEV).
    #[error("the guest has no PCI devices")]
    NoBackend,
    /// The guest has a backend: add to it, or release what is left of a former guest (EEXIST).
    #[error("the guest has a PCI backend already, in state {0}")]
    Backend(State),
    /// A node says what nobody can have meant. Nothing was changed (EIO).
    #[error("{0} says what it cannot")]
    Nonsense(NodePath),
    /// The driver went through a reconfiguration and did not take the device; it was taken back (EIO).
    #[error("the driver did not take {0}")]
    NotTaken(Sbdf),
    /// Driver and front end did not come to rest.
    #[error("{unsettled}; {outcome}")]
    Unsettled {
        /// What they did instead.
        unsettled: Unsettled,
        /// What has become of the change.
        outcome: Outcome,
    },
}

/// Why driver and front end are not at rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unsettled {
    /// The time is up (ETIMEDOUT).
    #[error("waited for both sides to be Connected, with the backend in {}, the front end in {}", Side(*.backend), Side(*.frontend))]
    Stuck {
        /// Where the backend is.
        backend: Option<State>,
        /// Where the front end is.
        frontend: Option<State>,
    },
    /// The driver has given up (EIO). Release the guest's devices.
    #[error("the backend is in {0}")]
    Over(State),
    /// The guest is dead, or was never started (ESRCH). Release its devices.
    #[error("the guest is gone")]
    GuestGone,
    /// The backend was removed (ENODEV).
    #[error("the backend is gone")]
    BackendGone,
}

struct Side(Option<State>);

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(state) => write!(f, "{state}"),
            None => f.write_str("no state"),
        }
    }
}

/// What has become of a change that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Nothing was written.
    NotBegun,
    /// It was taken back: the devices are whose they were.
    Withdrawn,
    /// It could not be taken back, because the driver may be at it. The devices are the guest's until the next operation
    /// finds both sides at rest, or the guest is released.
    Pending,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotBegun => "nothing was changed",
            Self::Withdrawn => "the change was taken back",
            Self::Pending => "the change is pending",
        })
    }
}

impl From<SegmentTooWide> for PcibackError {
    fn from(error: SegmentTooWide) -> Self {
        Self::Segment(error.0)
    }
}

impl From<InvalidPath> for PcibackError {
    fn from(error: InvalidPath) -> Self {
        Self::Store(error.into())
    }
}

impl PcibackError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Store(error) => error.errno(),
            Self::Set | Self::Segment(_) | Self::Name(_) => Errno::EINVAL,
            Self::Already(_) | Self::Backend(_) => Errno::EEXIST,
            Self::Held { .. } => Errno::EBUSY,
            Self::NotExported(_) | Self::NoBackend => Errno::ENODEV,
            Self::Nonsense(_) | Self::NotTaken(_) => Errno::EIO,
            Self::Unsettled { unsettled, .. } => match unsettled {
                Unsettled::Stuck { .. } => Errno::ETIMEDOUT,
                Unsettled::Over(_) => Errno::EIO,
                Unsettled::GuestGone => Errno::ESRCH,
                Unsettled::BackendGone => Errno::ENODEV,
            },
        }
    }
}
