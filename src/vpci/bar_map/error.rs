//! Which BARs are not mapped, and why.

use super::piece::BarId;
use crate::errno::Errno;
use crate::memory::NoMemory;

/// A BAR that is not mapped. The others of its device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BAR {} of {} is not mapped: {reason}", .id.bar, .id.device)]
pub struct Refusal {
    /// Which BAR.
    pub id: BarId,
    /// Why.
    #[source]
    pub reason: Reason,
}

/// Why a BAR is not mapped. It answers once the guest has put it elsewhere and enables it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It has no bytes (EINVAL).
    #[error("it has no bytes")]
    Empty,
    /// It ends beyond 64 bits (EINVAL).
    #[error("it ends beyond 64 bits")]
    TooHigh,
    /// Not all of it is in the host bridge's windows (EINVAL).
    #[error("not all of it is in the host bridge's windows")]
    OutsideWindows,
    /// It overlaps RAM, ECAM, or something else that no BAR may cover (EINVAL).
    #[error("it overlaps addresses that are something else's")]
    Reserved,
}

impl Refusal {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        Errno::EINVAL
    }
}

/// BARs were not enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BarMapError {
    /// This BAR is enabled already, or was asked for twice (EEXIST). To move it, disable it first.
    #[error("BAR {} of {} is enabled already", .0.bar, .0.device)]
    AlreadyEnabled(BarId),
    /// Memory ran out (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl BarMapError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::AlreadyEnabled(_) => Errno::EEXIST,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
