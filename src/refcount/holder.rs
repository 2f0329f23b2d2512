//! Who holds a device: the names that `Busy` reports.

use core::fmt;

use crate::Sbdf;

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

/// A movement of a device through its life that somebody is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transition {
    /// Made known.
    Add,
    /// Taken away.
    Remove,
    /// Given to a guest or to quarantine.
    Assign,
    /// Taken back from a guest.
    Deassign,
    /// Taken from its host driver.
    Detach,
    /// Given back to its host driver.
    Reattach,
    /// Reset.
    Reset,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Assign => "assign",
            Self::Deassign => "deassign",
            Self::Detach => "detach",
            Self::Reattach => "reattach",
            Self::Reset => "reset",
        })
    }
}

/// Whoever stands between a device and its removal, by name (R2).
///
/// ```
/// use pcidevs::{DomainId, Holder};
/// assert_eq!(Holder::Domain(DomainId::new(3)).to_string(), "assigned to domain 3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// The assignment to a guest.
    Domain(DomainId),
    /// A virtual function of this physical function.
    Vf(Sbdf),
    /// A device behind this bridge.
    Child(Sbdf),
    /// A transition in flight.
    Transition(Transition),
    /// The DMA of a domain whose tables may still be live: the device is broken.
    DmaOf(DomainId),
    /// IOMMU entries of the device that was here before, not yet cleared and flushed.
    DmaTeardown,
    /// An export to a guest through xen-pciback.
    Export(DomainId),
    /// A long-lived user of the embedder's.
    Named(&'static str),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(id) => write!(f, "assigned to domain {id}"),
            Self::Vf(address) => write!(f, "VF {address}"),
            Self::Child(address) => write!(f, "device {address}"),
            Self::Transition(kind) => write!(f, "transition: {kind}"),
            Self::DmaOf(id) => write!(f, "DMA of domain {id}"),
            Self::DmaTeardown => f.write_str("dma teardown"),
            Self::Export(id) => write!(f, "export to domain {id}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}
