//! A hypervisor that cannot be asked: everything that needs it fails with the reason.

use pcidevs::xen::hypercall::{Access, DomainInfo, Frames, Gsi, HypercallError, Hypervisor, Pirq, Ports};
use pcidevs::xen::spec::RdmPolicy;
use pcidevs::{DomainId, Sbdf};

/// Why it cannot.
pub(super) struct Absent(pub(super) HypercallError);

impl Absent {
    fn refuse<T>(&self) -> Result<T, HypercallError> {
        Err(self.0.clone())
    }
}

impl Hypervisor for Absent {
    fn domain(&self, _: DomainId) -> Result<DomainInfo, HypercallError> {
        self.refuse()
    }

    fn test_assign_device(&self, _: DomainId, _: Sbdf) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn assign_device(&self, _: DomainId, _: Sbdf, _: RdmPolicy) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn deassign_device(&self, _: DomainId, _: Sbdf) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn iomem_permission(&self, _: DomainId, _: Frames, _: Access) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn ioport_permission(&self, _: DomainId, _: Ports, _: Access) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn map_pirq(&self, _: DomainId, _: Gsi) -> Result<Pirq, HypercallError> {
        self.refuse()
    }

    fn unmap_pirq(&self, _: DomainId, _: Pirq) -> Result<(), HypercallError> {
        self.refuse()
    }

    fn irq_permission(&self, _: DomainId, _: Pirq, _: Access) -> Result<(), HypercallError> {
        self.refuse()
    }
}
