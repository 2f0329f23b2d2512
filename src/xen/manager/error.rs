//! Why not, and what to do.

use crate::Sbdf;
use crate::errno::Errno;
use crate::host::WriteFailure;
use crate::lifecycle::TransitionError;
use crate::memory::NoMemory;
use crate::owner::DomainId;
use crate::refcount::Busy;
use crate::xen::assignable::AssignableError;
use crate::xen::hypercall::{HypercallError, Unsuitable};
use crate::xen::pciback::PcibackError;
use crate::xen::store::StoreError;

/// Why an operation did not happen. Unless [`Undo`](Self::Undo) says otherwise everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XenError {
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hypervisor cannot be asked, or said no.
    #[error(transparent)]
    Hypercall(#[from] HypercallError),
    /// The guest cannot be given devices.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// It emulates devices for another domain (EXDEV). Give devices to a PV guest.
    #[error("domain {0} is a stub domain: give devices to a PV guest")]
    StubDomain(DomainId),
    /// It drives devices for other domains (EXDEV). Give devices to a PV guest that is no driver domain.
    #[error("domain {0} is a driver domain, which is not supported: give devices to an ordinary PV guest")]
    DriverDomain(DomainId),
    /// A device could not become assignable, or stop to be.
    #[error(transparent)]
    Assignable(#[from] AssignableError),
    /// Driver or guest did not go along.
    #[error(transparent)]
    Pciback(#[from] PcibackError),
    /// The guest still runs: detach its devices (EBUSY).
    #[error("domain {0} still runs: detach its devices")]
    Alive(DomainId),
    /// Somebody uses the device (EBUSY).
    #[error("{0} is {1}")]
    Busy(Sbdf, Busy),
    /// A file of the machine cannot be read (its number).
    #[error("cannot {what}: {errno}")]
    Unreadable {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The engine says no, for a reason that is none of the above.
    #[error("{error}{}", List(.failures))]
    Refused {
        /// Its error.
        error: Box<TransitionError>,
        /// What failed beside.
        failures: Vec<WriteFailure>,
    },
    /// An operation failed, and something of it could not be undone: its devices are broken. Try again, or stop the guest.
    #[error("{cause}; undoing what was done:{}", List(.undo))]
    Undo {
        /// Why it failed.
        cause: Box<XenError>,
        /// What could not be undone.
        undo: Vec<WriteFailure>,
    },
    /// Nothing was changed (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

struct List<'a>(&'a [WriteFailure]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|failure| write!(f, "; {failure}"))
    }
}

impl XenError {
    pub(super) fn unreadable(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Unreadable { what, errno }
    }

    pub(super) fn transition(error: TransitionError, failures: Vec<WriteFailure>) -> Self {
        match error {
            TransitionError::Busy(device, busy) => Self::Busy(device, busy),
            TransitionError::NotFound(device) => AssignableError::NotFound(device).into(),
            TransitionError::NotEndpoint(device) => AssignableError::NotEndpoint(device).into(),
            TransitionError::Duplicate(_) => PcibackError::Set.into(),
            error => Self::Refused { error: Box::new(error), failures },
        }
    }

    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Store(error) => error.errno(),
            Self::Hypercall(error) => error.errno(),
            Self::Unsuitable(error) => error.errno(),
            Self::StubDomain(_) | Self::DriverDomain(_) => Errno::EXDEV,
            Self::Assignable(error) => error.errno(),
            Self::Pciback(error) => error.errno(),
            Self::Alive(_) | Self::Busy(..) => Errno::EBUSY,
            Self::Unreadable { errno, .. } => *errno,
            Self::Refused { error, .. } => error.errno(),
            Self::Undo { cause, .. } => cause.errno(),
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
