//! What a platform answers when it cannot, or will not.

use crate::errno::Errno;

/// A hook failed, and did nothing.
///
/// Small and without memory of its own, so that the core can keep one per undone step without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({errno})")]
pub struct HookError {
    errno: Errno,
    reason: &'static str,
}

impl HookError {
    /// What a C caller gets, and a reason for the log.
    pub const fn new(errno: Errno, reason: &'static str) -> Self {
        Self { errno, reason }
    }

    /// The hook panicked. Under `std` the panic was caught; its message has gone to the panic hook.
    pub(crate) const PANICKED: Self = Self::new(Errno::EIO, "the platform's hook panicked");

    /// The platform cannot say that DMA is blocked.
    pub(crate) const NOT_BLOCKED: Self = Self::new(Errno::EBUSY, "it is not certain that DMA is blocked");

    /// What a C caller gets.
    pub const fn errno(self) -> Errno {
        self.errno
    }

    /// The reason, for the log.
    pub const fn reason(self) -> &'static str {
        self.reason
    }
}

/// Why the platform's policy does not permit a transition. Nothing has been touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller may not do this (EPERM).
    #[error("policy denies it")]
    Denied,
    /// This guest cannot take devices (EXDEV).
    #[error("the guest cannot take devices")]
    NoPassthrough,
    /// The caller would give a device to itself (EINVAL).
    #[error("a domain cannot assign a device to itself")]
    ToItself,
    /// The guest is being destroyed, by the platform's own account (EINVAL).
    #[error("the guest is dying")]
    Dying,
    /// The device has reserved memory regions, and the guest's policy does not relax them (EPERM).
    #[error("the device needs reserved memory that the guest does not map")]
    ReservedMemory,
    /// There is no interrupt remapping, and the policy does not allow that (EPERM).
    #[error("there is no interrupt remapping, and policy demands it")]
    NoInterruptRemapping,
    /// There is no IOMMU for this device (EOPNOTSUPP).
    #[error("no IOMMU covers the device")]
    NoIommu,
}

impl Refusal {
    /// What a C caller gets.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Denied | Self::ReservedMemory | Self::NoInterruptRemapping => Errno::EPERM,
            Self::NoPassthrough => Errno::EXDEV,
            Self::ToItself | Self::Dying => Errno::EINVAL,
            Self::NoIommu => Errno::EOPNOTSUPP,
        }
    }
}
