//! Why a device did not become assignable, or did not stop to be.

use std::fmt;

use crate::errno::Errno;
use crate::host::{DriverName, WriteFailure};
use crate::owner::DomainId;
use crate::xen::store::{NodePath, StoreError};
use crate::{Sbdf, address::SegmentTooWide};

/// Why not. Nothing was changed, unless [`Failed`](Self::Failed) says that something could not be undone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssignableError {
    /// xen-pciback is not loaded (ENOENT).
    #[error("xen-pciback is not there: load it (modprobe xen-pciback)")]
    NoPciback,
    /// The machine has no such device (ENODEV).
    #[error("there is no device at {0}")]
    NotFound(Sbdf),
    /// Bridges are not assignable (EINVAL).
    #[error("{0} is not an endpoint, and cannot be given to a guest")]
    NotEndpoint(Sbdf),
    /// Its segment does not fit pciback's 16 bits (EINVAL).
    #[error("{0} has a segment that xen-pciback does not know")]
    Segment(Sbdf),
    /// A name is 1 to 255 printable characters (EINVAL).
    #[error("a name is 1 to 255 printable characters")]
    Name,
    /// Another device has the name (EEXIST).
    #[error("{0} has that name already: choose another one")]
    NameTaken(Sbdf),
    /// Somebody has put it on a stub for something else (EBUSY).
    #[error(
        "{device} is on {driver}, which somebody else wanted: give it back there first (pcidevs reattach)"
    )]
    Foreign {
        /// The device.
        device: Sbdf,
        /// The stub.
        driver: DriverName,
    },
    /// Somebody keeps it for one driver (EBUSY).
    #[error("{device} is kept for {text:?} by its driver_override: clear that first")]
    Overridden {
        /// The device.
        device: Sbdf,
        /// What the override says.
        text: String,
    },
    /// A guest has it (EBUSY).
    #[error("{device} is busy: pciback export of domain {guest}; detach it there first")]
    Exported {
        /// The device.
        device: Sbdf,
        /// Whose it is.
        guest: DomainId,
    },
    /// It is not on pciback, and nothing is left of its having been (ENODEV).
    #[error("{0} is not assignable")]
    NotAssignable(Sbdf),
    /// Its record says what it cannot (EIO). Look at it, and remove it.
    #[error("the record {0} says what it cannot: look at it, and remove it (xenstore-rm)")]
    Nonsense(NodePath),
    /// The store failed before anything was touched.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step failed; those before it were undone, but for what is listed (the step's number).
    #[error(transparent)]
    Failed(#[from] StepsFailed),
}

/// A step failed, and what became of undoing those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct StepsFailed {
    /// What failed.
    pub failure: WriteFailure,
    /// What could not be undone. Its record stays: `assignable-remove` tries again.
    pub undo: Vec<WriteFailure>,
}

impl fmt::Display for StepsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure)?;
        for undo in &self.undo {
            write!(f, "; undoing what was done: {undo}")?;
        }
        if self.undo.is_empty() { Ok(()) } else { f.write_str("; assignable-remove tries again") }
    }
}

impl From<WriteFailure> for AssignableError {
    /// A look that failed: nothing was touched.
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(StepsFailed { failure, undo: Vec::new() })
    }
}

impl From<SegmentTooWide> for AssignableError {
    fn from(error: SegmentTooWide) -> Self {
        Self::Segment(error.0)
    }
}

impl AssignableError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoPciback => Errno::ENOENT,
            Self::NotFound(_) | Self::NotAssignable(_) => Errno::ENODEV,
            Self::NotEndpoint(_) | Self::Segment(_) | Self::Name => Errno::EINVAL,
            Self::NameTaken(_) => Errno::EEXIST,
            Self::Foreign { .. } | Self::Overridden { .. } | Self::Exported { .. } => Errno::EBUSY,
            Self::Nonsense(_) => Errno::EIO,
            Self::Store(error) => error.errno(),
            Self::Failed(failed) => failed.failure.errno,
        }
    }
}
