//! Who holds a device: the names that `Busy` reports.

use core::fmt;

use crate::Sbdf;
use crate::owner::DomainId;
use crate::transition::Transition;

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
            Self::Export(id) => write!(f, "pciback export of domain {id}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}
