//! The end of a guest: all its devices are taken back, and only then it is forgotten.

use alloc::vec::Vec;

use super::Lifecycle;
use super::error::TransitionError;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::Platform;
use crate::registry::{DestroyDomainError, Member, with_room};

impl<P: Platform> Lifecycle<P> {
    /// Takes all devices back from a guest that ends, and forgets it.
    ///
    /// New assignments to it are refused from now on. Each device is tried once, those that share a requester ID or a
    /// reset together; what fails stays on its list, and the first error is returned: release it again. A broken device that
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
            if let Err(error) = self.deassign_with_ties(address, from) {
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

    /// Takes back a device, and with it those of the same guest that it cannot leave without: which these are, the
    /// refusal to take back the ones before them says.
    fn deassign_with_ties(&self, address: Sbdf, from: Owner) -> Result<(), TransitionError> {
        let mut set = with_room(1)?;
        set.push(Member::new(address));
        loop {
            let refused = match self.deassign(&set, from) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let (TransitionError::Inseparable { other, .. } | TransitionError::OthersInReset { other, .. }) =
                refused
            else {
                return Err(refused);
            };
            let is_theirs = self.lock(other).is_ok_and(|device| device.owner() == from);
            if !is_theirs || set.contains(&Member::new(other)) {
                return Err(refused);
            }
            set.try_reserve(1).map_err(NoMemory::from)?;
            set.push(Member::new(other));
        }
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
