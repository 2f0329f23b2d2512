//! Why an operation did not happen, and what to do.

use crate::Sbdf;
use crate::errno::Errno;
use crate::host::driver_type::UnsupportedDriver;
use crate::host::guards::Guard;
use crate::host::journal::JournalDamage;
use crate::host::name::{DriverName, GuestName};
use crate::host::operation::WriteFailure;
use crate::host::store::LockRefused;
use crate::lifecycle::TransitionError;
use crate::memory::NoMemory;
use crate::platform::GroupId;
use crate::refcount::Busy;

/// Why an operation of the host manager did not happen. Every device is as before, unless this says that one is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The request names no device (EINVAL).
    #[error("no device is named")]
    NoDevices,
    /// The request names this device twice (EINVAL).
    #[error("{0} is named twice")]
    Duplicate(Sbdf),
    /// There is no such device (ENODEV).
    #[error("there is no device {0}")]
    NotFound(Sbdf),
    /// It is a bridge, and no guest gets those (EINVAL).
    #[error("{0} is a bridge")]
    Bridge(Sbdf),
    /// It is in no IOMMU group, and without one no guest can have it: switch the IOMMU on (EOPNOTSUPP).
    #[error(
        "{0} is in no IOMMU group: switch the IOMMU on, in the firmware and with intel_iommu=on where it is Intel's"
    )]
    NoGroup(Sbdf),
    /// It is to have a network identity, and is no virtual function that its physical one knows (EOPNOTSUPP).
    #[error("{0} is no virtual function: nobody keeps a network identity for it")]
    NotVirtual(Sbdf),
    /// It is to have a network identity, and its physical function has no network interface here: give that its driver
    /// and this network namespace (EOPNOTSUPP).
    #[error(
        "{device} has no network identity: its physical function {physical_function} has no network interface here"
    )]
    NoInterface {
        /// The virtual function.
        device: Sbdf,
        /// Its physical function.
        physical_function: Sbdf,
    },
    /// It has virtual functions, which its driver would take along or which VFIO refuses: switch them off first, or give
    /// guests those (EBUSY).
    #[error(
        "{device} has {count} virtual functions: switch them off first (echo 0 > \
         /sys/bus/pci/devices/{device}/sriov_numvfs), or give guests those"
    )]
    HasVirtualFunctions {
        /// The physical function.
        device: Sbdf,
        /// How many.
        count: u16,
    },
    /// A guest has it: release it there first (EBUSY).
    #[error("{device} is in use by {owner}: release it there first")]
    InUse {
        /// The device.
        device: Sbdf,
        /// Who has it.
        owner: GuestName,
    },
    /// It is not with the guest that was to give it back (ENODEV).
    #[error("{device} is not with {guest}")]
    NotOwner {
        /// The device.
        device: Sbdf,
        /// The guest that does not have it.
        guest: GuestName,
    },
    /// The host's driver has it, and the attach is not managed: detach it first (EBUSY).
    #[error("{0} is with the host: detach it, or ask for a managed attach")]
    NotDetached(Sbdf),
    /// Somebody else has put it on a stub: adopt it first (EBUSY).
    #[error("{device} is on {driver}, and not by this manager: adopt it first")]
    Foreign {
        /// The device.
        device: Sbdf,
        /// The stub.
        driver: DriverName,
    },
    /// It is not on a stub, so there is nothing to adopt (EINVAL).
    #[error("{0} is not on a stub: there is nothing to adopt")]
    NotForeign(Sbdf),
    /// It was detached with another driver than the one asked for, or somebody has bound it to one since: reattach it
    /// first (EBUSY).
    #[error("{device} is on {driver}, not on the driver that it is to have: reattach it first")]
    OtherDriver {
        /// The device.
        device: Sbdf,
        /// The driver it is on.
        driver: DriverName,
    },
    /// Members of the group are on host drivers: detach them too (EBUSY).
    #[error("{}", Siblings(*.group, .siblings))]
    Siblings {
        /// The group.
        group: GroupId,
        /// Each of them, and its driver.
        siblings: Vec<(Sbdf, DriverName)>,
    },
    /// Somebody has the group, or a device of it, open (EBUSY).
    #[error("group {group} is open: stop who uses a device of it (fuser /dev/vfio/{group} names them)", group = .0.0)]
    GroupOpen(GroupId),
    /// The host cannot do without them: `force` overrides (EPERM).
    #[error("{}", Guards(.0))]
    Guarded(Vec<(Sbdf, Guard)>),
    /// This platform cannot do the driver type (EOPNOTSUPP).
    #[error(transparent)]
    UnsupportedDriver(#[from] UnsupportedDriver),
    /// It is broken: repair it first (EBADF).
    #[error("{device} is broken: {reason}; repair it first")]
    Broken {
        /// The device.
        device: Sbdf,
        /// Why.
        reason: String,
    },
    /// It is not broken (EINVAL).
    #[error("{0} is not broken")]
    NotBroken(Sbdf),
    /// A kernel write on it has not returned; when it does it can be repaired (EBUSY).
    #[error("{device} is stuck: {what} has not returned; when it has, repair it")]
    Stuck {
        /// The device.
        device: Sbdf,
        /// What has not returned.
        what: String,
    },
    /// Another operation has it; try again (EBUSY).
    #[error("{0} is {1}")]
    Busy(Sbdf, Busy),
    /// The journal cannot be relied on, so nothing is written (EROFS).
    #[error("read-only: {0}")]
    ReadOnly(JournalDamage),
    /// This one only looks, while another manager may be at work (EROFS).
    #[error("this manager only looks")]
    Observer,
    /// The journal could not be written; nothing has been done (its number).
    #[error("the journal cannot be written: {0}")]
    Journal(Errno),
    /// Another manager is at work.
    #[error(transparent)]
    Locked(#[from] LockRefused),
    /// The kernel does not say what must be known (its number).
    #[error("{what}: {errno}")]
    Unreadable {
        /// What was read.
        what: &'static str,
        /// The kernel's number.
        errno: Errno,
    },
    /// It failed, and was undone as far as possible.
    #[error("{}", Failed(.error, .failures))]
    Failed {
        /// The engine's account.
        error: Box<TransitionError>,
        /// Every file operation that failed, also in the undo.
        failures: Vec<WriteFailure>,
    },
}

struct Siblings<'a>(GroupId, &'a [(Sbdf, DriverName)]);

impl std::fmt::Display for Siblings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "group {}: ", self.0.0)?;
        for (place, (device, driver)) in self.1.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{device} is bound to {driver}")?;
        }
        f.write_str(": detach them too")
    }
}

struct Guards<'a>(&'a [(Sbdf, Guard)]);

impl std::fmt::Display for Guards<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the host needs it: ")?;
        for (place, (device, guard)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{device}: {guard}")?;
        }
        f.write_str("; --force overrides")
    }
}

struct Failed<'a>(&'a TransitionError, &'a [WriteFailure]);

impl std::fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, others)) = self.1.split_first() else { return write!(f, "{}", self.0) };
        // What the kernel said is why; the engine's account adds what it broke.
        write!(f, "{first}")?;
        others.iter().try_for_each(|failure| write!(f, "; {failure}"))?;
        if let TransitionError::Failed(failure) = self.0 {
            for undo in &failure.undo {
                write!(f, "; {} is broken, which `repair` mends", undo.device)?;
            }
        }
        Ok(())
    }
}

impl HostError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoDevices
            | Self::Duplicate(_)
            | Self::Bridge(_)
            | Self::NotBroken(_)
            | Self::NotForeign(_) => Errno::EINVAL,
            Self::NotFound(_) | Self::NotOwner { .. } => Errno::ENODEV,
            Self::InUse { .. }
            | Self::HasVirtualFunctions { .. }
            | Self::NotDetached(_)
            | Self::Foreign { .. }
            | Self::OtherDriver { .. }
            | Self::Siblings { .. }
            | Self::GroupOpen(_)
            | Self::Stuck { .. }
            | Self::Busy(..)
            | Self::Locked(LockRefused::Taken(_)) => Errno::EBUSY,
            Self::Guarded(_) => Errno::EPERM,
            Self::UnsupportedDriver(_)
            | Self::NoGroup(_)
            | Self::NotVirtual(_)
            | Self::NoInterface { .. } => Errno::EOPNOTSUPP,
            Self::Broken { .. } => Errno::EBADF,
            // EROFS
            Self::ReadOnly(_) | Self::Observer => Errno::new(30),
            Self::Journal(errno)
            | Self::Unreadable { errno, .. }
            | Self::Locked(LockRefused::Failed(errno)) => *errno,
            Self::Failed { error, .. } => error.errno(),
        }
    }

    /// The kernel does not say what must be known.
    pub(super) fn unreadable(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Unreadable { what, errno }
    }
}

impl From<NoMemory> for HostError {
    fn from(error: NoMemory) -> Self {
        Self::Failed { error: Box::new(error.into()), failures: Vec::new() }
    }
}
