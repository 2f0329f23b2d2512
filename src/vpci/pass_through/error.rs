//! Why a function cannot be modelled.

use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::vpci::function::BarFault;
use crate::vpci::registers::RegisterError;

/// A function cannot be put behind the model. Decoding and BARs of the hardware are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassThroughError {
    /// Nothing answers, or only with ones (ENODEV). A virtual function answers so unless it is said to be one:
    /// [`PassThrough::virtual_function`](super::PassThrough::virtual_function).
    #[error("no function answers there; a virtual one has to be said to be one")]
    Absent,
    /// Header types 0 and 1 are modelled, and a virtual function's is 0 (EOPNOTSUPP).
    #[error("header type {0} is not modelled")]
    HeaderType(u8),
    /// A BAR of the hardware, or as it was given, breaks a rule (EINVAL).
    #[error("BAR {bar}: {fault}")]
    Bar {
        /// Its slot; 6 is the ROM.
        bar: u8,
        /// Which rule.
        fault: BarFault,
    },
    /// What only may be looked at is the host's: a guest has it, or has it not (EINVAL).
    #[error("a guest's function cannot be read-only")]
    ReadOnlyGuest,
    /// Registers cannot be as they were found (EINVAL, EEXIST).
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// There is no memory for it (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl PassThroughError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Absent => Errno::ENODEV,
            Self::HeaderType(_) => Errno::EOPNOTSUPP,
            Self::Bar { .. } | Self::ReadOnlyGuest => Errno::EINVAL,
            Self::Register(error) => error.errno(),
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
