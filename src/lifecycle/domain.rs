//! The end of a guest: all its devices are taken back, and only then it is forgotten.

use alloc::vec::Vec;

use super::Lifecycle;
use super::error::TransitionError;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::Platform;
use crate::registry::{DestroyDomainError, Member};

impl<P: Platform> Lifecycle<P> {
    /// Takes all devices back from a guest that ends, and forgets it.
    ///
    /// New assignments to it are refused from now on. Each device is tried once, those that share a requester ID
    /// together; what fails stays on its list, and the first error is returned: release it again. A broken device that
    /// may still reach the guest's memory keeps it from being released: its memory must not be freed before
    /// [`repair`](Self::repair).
    pub fn release_domain(&self, guest: DomainId) -> Result<(), TransitionError> {
        let devices = self.registry().condemn(guest)?.ok_or(TransitionError::NoDomain(guest))?;
        let from = Owner::Guest(guest);
        let mut first = None;
        for device in devices.iter() {
            let address = device.address();
            // It may have left on its own, or together with an earlier one.
            if !self.lock(address).is_ok_and(|device| device.owner() == from) {
                continue;
            }
            let released = match self.deassign(&[Member::new(address)], from) {
                Err(TransitionError::Inseparable { .. }) => self.deassign_together(address, from),
                released => released,
            };
            if let Err(error) = released {
                first.get_or_insert(error);
            }
        }
        match first {
            Some(error) => Err(error),
            None => self.registry().destroy_domain(guest).map_err(|error| match error {
                DestroyDomainError::NotFound(domain) => TransitionError::NoDomain(domain),
                DestroyDomainError::NotEmpty { domain, devices } => {
                    TransitionError::NotReleased { domain, devices }
                }
            }),
        }
    }

    /// Takes back a device and all of its group, or with its requester IDs, that this guest has.
    fn deassign_together(&self, address: Sbdf, from: Owner) -> Result<(), TransitionError> {
        let known =
            self.lock(address).map_err(|error| TransitionError::of_access(address, error))?.known.clone();
        let mut set = Vec::new();
        for other in self.devices_of(from)?.iter().flat_map(|devices| devices.iter()) {
            let at = other.address();
            let comes_along = self.lock(at).is_ok_and(|device| {
                let of_group = known.group.as_ref().zip(device.known.group.as_ref());
                device.owner() == from
                    && (device.known.shares_requester(&known)
                        || of_group.is_some_and(|(one, other)| one.key == other.key))
            });
            if comes_along {
                set.try_reserve(1).map_err(NoMemory::from)?;
                set.push(Member::new(at));
            }
        }
        self.deassign(&set, from)
    }

    /// The other members of a device's IOMMU group, bridges included, in address order; empty without a group.
    pub fn group_of(&self, address: Sbdf) -> Result<Vec<Sbdf>, TransitionError> {
        let device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let group = device.known.group.clone();
        drop(device);
        let Some(group) = group else { return Ok(Vec::new()) };
        let mut members = group.members()?;
        members.retain(|member| *member != address);
        Ok(members)
    }
}
