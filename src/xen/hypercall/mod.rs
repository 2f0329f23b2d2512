//! What the hypervisor itself must be asked for before a guest can use a device.
//!
//! xenstore only *tells* driver and front end about a device. That the guest may touch its registers, take its
//! interrupt, and that its DMA ends in the guest's memory and nowhere else, is the hypervisor's to allow:
//!
//! | ask for | with | what it does |
//! |---|---|---|
//! | the guest | [`domain`](Hypervisor::domain) | kind, whether it lives, whether it was created with passthrough |
//! | its BARs | [`iomem_permission`](Hypervisor::iomem_permission), [`ioport_permission`](Hypervisor::ioport_permission) | a paravirtualised guest maps them itself, if it may |
//! | its interrupt | [`map_pirq`](Hypervisor::map_pirq), [`irq_permission`](Hypervisor::irq_permission) | the line becomes one of the guest's *physical interrupts* (PIRQ) |
//! | its DMA | [`assign_device`](Hypervisor::assign_device) | the IOMMU translates by the guest's memory |
//!
//! Each has its opposite, so each is a step that can be undone. None is counted by the hypervisor: permission for a page, and
//! the mapping of an interrupt line, are there or are not. Two devices of one guest that share a page or a line share them;
//! whoever gives one of them back must know of the other.
//!
//! [`QUARANTINE`] is a domain of the hypervisor's own that maps nothing: a device assigned to it reaches no memory at all.
//!
//! | file | what it does |
//! |---|---|
//! | `call` | the questions, and what they are about |
//! | `domain` | the answer about a guest |
//! | `error` | why not, and what to do |
//! | `library` | asking the real one, through libxenctrl, which is looked for at run time |
//! | `simulated` | one in memory, that can fail every call |
//!
//! `unsafe` is in `library/symbols.rs` and nowhere else in `xen`.

mod call;
mod domain;
mod error;
mod library;
mod simulated;

use crate::address::Sbdf;
use crate::owner::DomainId;
use crate::xen::spec::RdmPolicy;

pub use call::{Access, Frames, Gsi, Hypercall, Pirq, Ports};
pub use domain::{DomainInfo, DomainKind, DomainLife, Passthrough, Unsuitable};
pub use error::HypercallError;
pub use library::Libxenctrl;
pub use simulated::{Holdings, Ranges, Simulated};

/// The hypervisor's domain for devices whose DMA is to go nowhere: `DOMID_IO` of Xen's public headers.
pub const QUARANTINE: DomainId = DomainId::new(0x7ff1);

/// What a tool stack asks of the hypervisor, to give a device to a guest and to take it back.
///
/// Every call is bounded: it asks, is answered, and does not wait for a guest. They can come from any thread.
pub trait Hypervisor: Send + Sync {
    /// What is known of a domain.
    ///
    /// # Errors
    /// [`NoDomain`](HypercallError::NoDomain) if there is none of this number.
    fn domain(&self, domain: DomainId) -> Result<DomainInfo, HypercallError>;

    /// Asks whether the device could be assigned to the domain, and changes nothing.
    ///
    /// A device that a guest has, or that the hypervisor does not know, is refused with EINVAL.
    fn test_assign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError>;

    /// Lets the device's DMA into the domain's memory; into none at all for [`QUARANTINE`].
    ///
    /// Only what is the host's or in quarantine can be assigned: another guest's is EBUSY.
    fn assign_device(
        &self,
        domain: DomainId,
        device: Sbdf,
        reserved: RdmPolicy,
    ) -> Result<(), HypercallError>;

    /// Ends the domain's DMA. From a guest the device goes to quarantine (or to the host, if the hypervisor was started
    /// without), from [`QUARANTINE`] to the host.
    fn deassign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError>;

    /// May the domain map these pages? Not counted.
    fn iomem_permission(
        &self,
        domain: DomainId,
        frames: Frames,
        access: Access,
    ) -> Result<(), HypercallError>;

    /// May the domain use these ports? Not counted.
    fn ioport_permission(&self, domain: DomainId, ports: Ports, access: Access)
    -> Result<(), HypercallError>;

    /// Makes an interrupt line one of the domain's physical interrupts, of the same number if that is free, which is where
    /// xen-pcifront looks.
    ///
    /// A line that is mapped already stays as it is, and is `Ok`. Not counted.
    fn map_pirq(&self, domain: DomainId, gsi: Gsi) -> Result<Pirq, HypercallError>;

    /// Takes a physical interrupt away, also from a guest that uses it.
    ///
    /// # Errors
    /// EINVAL if it is not mapped.
    fn unmap_pirq(&self, domain: DomainId, pirq: Pirq) -> Result<(), HypercallError>;

    /// May the domain use the interrupt that is the *caller's* `pirq`? Not counted.
    ///
    /// # Errors
    /// EPERM if the caller has no such interrupt: no driver of the host has turned the device on.
    fn irq_permission(&self, domain: DomainId, pirq: Pirq, access: Access) -> Result<(), HypercallError>;
}

impl<H: Hypervisor + ?Sized> Hypervisor for &H {
    fn domain(&self, domain: DomainId) -> Result<DomainInfo, HypercallError> {
        (**self).domain(domain)
    }

    fn test_assign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        (**self).test_assign_device(domain, device)
    }

    fn assign_device(
        &self,
        domain: DomainId,
        device: Sbdf,
        reserved: RdmPolicy,
    ) -> Result<(), HypercallError> {
        (**self).assign_device(domain, device, reserved)
    }

    fn deassign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        (**self).deassign_device(domain, device)
    }

    fn iomem_permission(
        &self,
        domain: DomainId,
        frames: Frames,
        access: Access,
    ) -> Result<(), HypercallError> {
        (**self).iomem_permission(domain, frames, access)
    }

    fn ioport_permission(
        &self,
        domain: DomainId,
        ports: Ports,
        access: Access,
    ) -> Result<(), HypercallError> {
        (**self).ioport_permission(domain, ports, access)
    }

    fn map_pirq(&self, domain: DomainId, gsi: Gsi) -> Result<Pirq, HypercallError> {
        (**self).map_pirq(domain, gsi)
    }

    fn unmap_pirq(&self, domain: DomainId, pirq: Pirq) -> Result<(), HypercallError> {
        (**self).unmap_pirq(domain, pirq)
    }

    fn irq_permission(&self, domain: DomainId, pirq: Pirq, access: Access) -> Result<(), HypercallError> {
        (**self).irq_permission(domain, pirq, access)
    }
}
