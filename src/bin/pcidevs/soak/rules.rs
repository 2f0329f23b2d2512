//! The promises, as they can be held against a device under its lock.
//!
//! What is compared comes from different sides: the owner from the core, the view and the interrupt vector from the
//! attachments that the core was to switch on and off, the entries from the IOMMU, and who is inside from the
//! thread itself.

use pcidevs::Owner;
use pcidevs::platform::Entry;

use super::party::Party;
use super::world::{Inside, World};

impl World {
    /// Somebody is inside the device, under its lock.
    pub(crate) fn check_inside(&self, what: &str, device: &Inside<'_>) {
        let (life, address) = (&device.life, device.address());
        if life.is_over() {
            self.violation_at(address, format_args!("{what} reached {address} after it had been taken away"));
        }
        if life.times_destroyed() > 0 {
            self.violation_at(address, format_args!("{what} reached {address} after its destructor"));
        }
        if life.address != address {
            self.violation_at(address, format_args!("{what} at {address} reached another device's data"));
        }
    }

    /// An access of this party is inside the device. Whether it sees the device: its vPCI is on.
    pub(crate) fn check_access(&self, device: &Inside<'_>, owner: Owner, party: Party) -> bool {
        self.check_inside("an access", device);
        let view = device.life.view.get();
        // While a transition has it the view ends before the owner changes, and the next one begins before that.
        let is_wrong = device.owner() != owner || device.broken().is_none() && view != party;
        if is_wrong && !device.is_claimed() {
            let address = device.address();
            self.violation_at(
                address,
                format_args!("an access at {address} landed with a former owner, {owner}"),
            );
        }
        view == party
    }

    /// Nothing is half done while no transition has the device: owner, view, vector and IOMMU entries agree.
    pub(crate) fn check_settled(&self, device: &Inside<'_>) {
        if device.is_claimed() || device.broken().is_some() {
            return;
        }
        let (owner, address, life) = (device.owner(), device.address(), &device.life);
        let party = self.guests().party(owner);
        if life.view.get() != party {
            self.violation_at(
                address,
                format_args!("{address} is with {owner}, and its view is somebody else's"),
            );
        }
        let vector = life.vector.get();
        if vector != party && vector != Party::NOBODY {
            self.violation_at(
                address,
                format_args!("{address} is with {owner}, and its interrupts are somebody else's"),
            );
        }
        if self.plan().at(life.place).bridge {
            return;
        }
        for requester in device.requesters() {
            let (entry, cached) =
                (self.platform().entry(*requester), self.platform().cached_entry(*requester));
            let agrees = match owner {
                Owner::Host | Owner::Guest(_) => entry == Entry::Attached(owner) && cached.is_none(),
                _ => ![Some(entry), cached].iter().any(|entry| matches!(entry, Some(Entry::Attached(_)))),
            };
            if !agrees {
                self.violation_at(address, format_args!(
                    "{address} is with {owner}, and the IOMMU has {entry:?} (cached: {cached:?}) for {requester}"
                ));
            }
        }
    }
}
