//! Why a store did not do it.

use std::io;

use super::path::InvalidPath;
use crate::errno::Errno;

/// The store's own answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such node, watch or transaction (ENOENT).
    #[error("there is no such node, watch or transaction")]
    NotFound,
    /// This connection's domain may not (EACCES).
    #[error("permission denied")]
    Denied,
    /// The transaction has met another, and changed nothing: begin again (EAGAIN).
    #[error("the transaction met another one")]
    Again,
    /// It exists already (EEXIST).
    #[error("it exists already")]
    Exists,
    /// The request makes no sense to the store (EINVAL).
    #[error("the store does not understand the request")]
    Invalid,
    /// A quota of this connection's domain is used up (ENOSPC).
    #[error("a quota is used up")]
    NoSpace,
    /// Too many watches, or an answer that fits no message (E2BIG).
    #[error("too many or too long")]
    TooBig,
    /// Any other.
    #[error("the store answered {0}")]
    Other(String),
}

impl Refusal {
    /// The refusal of this name, as it is on the wire.
    pub fn named(name: &str) -> Self {
        match name {
            "ENOENT" => Self::NotFound,
            "EACCES" | "EPERM" => Self::Denied,
            "EAGAIN" => Self::Again,
            "EEXIST" => Self::Exists,
            "EINVAL" => Self::Invalid,
            "ENOSPC" => Self::NoSpace,
            "E2BIG" => Self::TooBig,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Why a request, or waiting for an event, failed.
///
/// After any but [`Refused`](Self::Refused), [`TooLong`](Self::TooLong), [`Path`](Self::Path) and
/// [`Conflicts`](Self::Conflicts) the connection is of no more use: make a new one, whose transactions and watches
/// begin anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store said no; the connection is as good as before.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request does not fit a message of 4096 bytes. Nothing was sent (E2BIG).
    #[error("the request does not fit a message of 4096 bytes")]
    TooLong,
    /// What was to be a path is none. Nothing was sent (EINVAL).
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The transaction met others this many times in a row. Try later (EAGAIN).
    #[error("the transaction met another one {attempts} times in a row")]
    Conflicts {
        /// How often it was tried.
        attempts: u32,
    },
    /// What came from the store is no answer: a daemon that speaks something else, or is broken (EIO).
    #[error("what came from the store is no answer: {0}")]
    Malformed(&'static str),
    /// The store did not take a request, or did not answer it, in time (ETIMEDOUT).
    #[error("the store does not answer")]
    Stalled,
    /// The connection has ended, now or before (EIO).
    #[error("the connection to the store has ended")]
    Closed,
    /// The system failed.
    #[error("the connection to the store failed: {0}")]
    Io(io::ErrorKind),
}

impl StoreError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(Refusal::NotFound) => Errno::new(2),
            Self::Refused(Refusal::Denied) => Errno::EPERM,
            Self::Refused(Refusal::Again) | Self::Conflicts { .. } => Errno::EAGAIN,
            Self::Refused(Refusal::Exists) => Errno::EEXIST,
            Self::Refused(Refusal::Invalid) | Self::Path(_) => Errno::EINVAL,
            Self::Refused(Refusal::NoSpace) => Errno::ENOSPC,
            Self::Refused(Refusal::TooBig) | Self::TooLong => Errno::new(7),
            Self::Stalled => Errno::ETIMEDOUT,
            Self::Refused(Refusal::Other(_)) | Self::Malformed(_) | Self::Closed | Self::Io(_) => Errno::EIO,
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
