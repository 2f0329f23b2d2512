//! Where the nodes are.

use crate::address::Sbdf;
use crate::owner::DomainId;
use crate::xen::store::{NodePath, StoreError};

/// The two ends of a guest's PCI connection, and the records of assignable devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    guest: DomainId,
}

impl Place {
    /// Of this guest, with the driver in domain 0.
    pub const fn new(guest: DomainId) -> Self {
        Self { guest }
    }

    /// The guest.
    pub const fn guest(self) -> DomainId {
        self.guest
    }

    /// The driver's folder.
    pub fn backend(self) -> Result<NodePath, StoreError> {
        Ok(NodePath::new(&format!("/local/domain/0/backend/pci/{}/0", self.guest))?)
    }

    /// The front end's folder.
    pub fn frontend(self) -> Result<NodePath, StoreError> {
        Ok(NodePath::new(&format!("/local/domain/{}/device/pci/0", self.guest))?)
    }

    /// What the host keeps of an assignable device.
    pub fn record(device: Sbdf) -> Result<NodePath, StoreError> {
        let (segment, bus) = (device.segment(), device.bdf() >> 8);
        let name = format!("{segment}-{bus:02x}-{:02x}-{:x}", device.device(), device.function());
        Ok(NodePath::new(&format!("/libxl/pci/{name}"))?)
    }

    /// Which guest has the device, in its record.
    pub(super) fn holder(device: Sbdf) -> Result<NodePath, StoreError> {
        Ok(Self::record(device)?.child("domid")?)
    }
}
