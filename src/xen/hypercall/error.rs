//! Why not, and what to do.

use std::fmt;
use std::path::PathBuf;

use super::call::Hypercall;
use crate::address::{Sbdf, SegmentTooWide};
use crate::errno::Errno;
use crate::owner::DomainId;

/// Why the hypervisor could not be asked, or did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HypercallError {
    /// There is no libxenctrl on this machine (ENOENT). Install Xen's tools; in Debian the package is `libxenmisc4.17`.
    #[error("libxenctrl is not installed (install the tools of the Xen that runs; looked for {})", List(.looked_for))]
    NoLibrary {
        /// The names and folders that were tried.
        looked_for: Vec<PathBuf>,
    },
    /// A file of that name is there and cannot be used (EIO). The others were tried too.
    #[error("{} cannot be used: {reason}", library.display())]
    BadLibrary {
        /// The file.
        library: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// The library found no hypervisor (with the number it gave). Run in domain 0, as root, with `/dev/xen/privcmd`.
    #[error(
        "the hypervisor cannot be reached ({errno}): is this domain 0, are you root, is xen-privcmd loaded?"
    )]
    Unreachable {
        /// The library's error.
        errno: Errno,
    },
    /// Another Xen runs than this crate knows the layouts of (EOPNOTSUPP).
    #[error("Xen {major}.{minor} runs, and only 4.17 is known here")]
    UnknownVersion {
        /// 4, of 4.18.
        major: u16,
        /// 18, of 4.18.
        minor: u16,
    },
    /// The library and the hypervisor are of different versions (EACCES), or the hypervisor's security policy forbids
    /// domain 0 to manage guests. Install the tools of the Xen that runs.
    #[error("{} is not of the Xen that runs, or may not manage guests", library.display())]
    WrongLibrary {
        /// The file.
        library: PathBuf,
    },
    /// There is no such domain (ESRCH).
    #[error("there is no domain {0}")]
    NoDomain(DomainId),
    /// The hypervisor's addresses have 16 bits of segment (EINVAL).
    #[error("{0} has a segment that Xen does not know")]
    Segment(Sbdf),
    /// The library answered what it cannot have meant (EIO).
    #[error("cannot {}: the answer makes no sense", call.about(*domain))]
    Nonsense {
        /// What was asked for.
        call: Hypercall,
        /// For whom.
        domain: DomainId,
    },
    /// The hypervisor said no, and did nothing.
    #[error("cannot {}: {errno}{}", call.about(*domain), Advice(advice(*call, *errno)))]
    Refused {
        /// What was asked for.
        call: Hypercall,
        /// For whom.
        domain: DomainId,
        /// Why.
        errno: Errno,
    },
}

struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if k == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}

struct Advice(Option<&'static str>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

/// What these numbers mean at these calls, where it is not what one would think.
fn advice(call: Hypercall, errno: Errno) -> Option<&'static str> {
    match (call, errno) {
        (_, Errno::ESRCH) => Some("the domain is gone"),
        (Hypercall::Assign(_), Errno::EBUSY) => Some("another guest has it"),
        (Hypercall::TestAssign(_), Errno::EINVAL) => Some("a guest has it, or Xen does not know it"),
        (Hypercall::Assign(_) | Hypercall::Deassign(_), Errno::ENODEV) => {
            Some("Xen does not know the device, or the domain does not have it")
        }
        (Hypercall::Assign(_) | Hypercall::TestAssign(_), Errno::EOPNOTSUPP) => {
            Some("the domain was created without passthrough, or Xen has no IOMMU")
        }
        (Hypercall::Assign(_), Errno::EINVAL) => Some("the domain is being destroyed"),
        (Hypercall::Irq(..), Errno::EPERM) => Some("no driver of the host has turned the device on"),
        (Hypercall::UnmapPirq(_), Errno::EINVAL) => Some("it is not mapped"),
        _ => None,
    }
}

impl From<SegmentTooWide> for HypercallError {
    fn from(error: SegmentTooWide) -> Self {
        Self::Segment(error.0)
    }
}

impl HypercallError {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoLibrary { .. } => Errno::ENOENT,
            Self::BadLibrary { .. } | Self::Nonsense { .. } => Errno::EIO,
            Self::UnknownVersion { .. } => Errno::EOPNOTSUPP,
            Self::WrongLibrary { .. } => Errno::EACCES,
            Self::NoDomain(_) => Errno::ESRCH,
            Self::Segment(_) => Errno::EINVAL,
            Self::Unreachable { errno } | Self::Refused { errno, .. } => *errno,
        }
    }
}
