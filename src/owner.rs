//! Whose a device can be.

use core::fmt;

/// Names a guest, as the hypervisor numbers it. Every value is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u32);

impl DomainId {
    /// The domain of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The domain's number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The one party that owns a device, and on whose list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// Nobody yet: found by a scan, before there is a host to own it.
    Unowned,
    /// The host: Xen's hardware domain, Linux with its drivers.
    Host,
    /// Nobody who could do harm with it: its DMA goes nowhere. Xen's `dom_io`.
    Quarantine,
    /// Taken away from everyone. Xen's `dom_xen`.
    Hidden,
    /// A guest.
    Guest(DomainId),
}

impl Owner {
    /// The guest, if the owner is one.
    pub const fn guest(self) -> Option<DomainId> {
        match self {
            Self::Guest(id) => Some(id),
            _ => None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowned => f.pad("unowned"),
            Self::Host => f.pad("host"),
            Self::Quarantine => f.pad("quarantine"),
            Self::Hidden => f.pad("hidden"),
            Self::Guest(id) => write!(f, "domain {id}"),
        }
    }
}
