//! When all threads are gone: what can be said exactly, and whether everything can be shut down.

use pcidevs::platform::Entry;
use pcidevs::{DomainId, Holder, NoMemory, Owner, Sbdf};

use super::guardian::{bury, mend, run_deferred};
use super::hotplug::replug;
use super::statistics::Statistics;
use super::world::World;

/// How often the end may try again what a mishap left behind.
const ATTEMPTS: u32 = 8;

impl World {
    fn owners(&self) -> impl Iterator<Item = Owner> {
        let owners = [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden];
        owners.into_iter().chain(self.guests().ids().map(Owner::Guest))
    }

    /// Between two storms: every device is on one list, which is its owner's; its uses are its dependants and its
    /// assignment; nothing is half done; what has left is destroyed, unless it could not be cleared up after it yet.
    pub(crate) fn audit(&self) -> Result<(), NoMemory> {
        let mut lists = vec![Vec::new(); self.plan().len()];
        for owner in self.owners() {
            let Some(devices) = self.machine().devices_of(owner)? else { continue };
            for device in devices.iter() {
                match self.plan().find(device.address()) {
                    Some(place) => lists[place].push(owner),
                    None => self.violation(format_args!("{} is on the list of {owner}", device.address())),
                }
            }
        }
        for (place, lists) in lists.iter().enumerate() {
            self.audit_place(place, lists);
        }
        let not_cleared = if self.mishaps().are_possible() { self.machine().run_deferred() } else { 0 };
        for address in self.not_destroyed().iter().skip(not_cleared) {
            self.violation_at(*address, format_args!("a device at {address} has left and was not destroyed"));
        }
        Ok(())
    }

    fn audit_place(&self, place: usize, lists: &[Owner]) {
        let address = self.address(place);
        let (life, status) = (self.life(place), self.machine().status(address));
        let (Some(_), Some(status)) = (&life, &status) else {
            if life.is_some() || status.is_some() || !lists.is_empty() {
                self.violation_at(address, format_args!("{address} is lost, or was not taken away"));
            }
            return;
        };
        let owner = status.status.owner;
        if lists != owner.as_slice() {
            self.violation_at(
                address,
                format_args!("{address} is with {owner:?} and on the lists of {lists:?}"),
            );
        }
        let mut expected: Vec<_> = self.plan().holders(place).collect();
        expected.retain(|(below, _)| self.life(*below).is_some());
        let mut holders = status.status.holders.clone();
        holders.retain(|holder| !expected.iter().any(|(_, expected)| expected == holder));
        let assignment = match (owner, status.broken) {
            (Some(Owner::Guest(id)), None) => holders == [Holder::Domain(id)],
            (Some(Owner::Guest(id)), Some(_)) => {
                holders == [Holder::Domain(id)] || holders == [Holder::DmaOf(id)]
            }
            _ => holders.is_empty(),
        };
        let named = status.status.holders.len();
        let uses = (status.status.uses as usize, status.status.unnamed);
        if !assignment || named != expected.len() + holders.len() || uses != (named, 0) {
            let shown = &status.status;
            self.violation_at(address, format_args!("{address} has other uses than it should: {shown:?}"));
        }
        if let Ok(device) = self.machine().lock(address) {
            if device.is_claimed() {
                self.violation_at(address, format_args!("{address} is claimed by nobody"));
            }
            self.check_settled(&device);
        }
    }

    /// Everything comes to its end, without a mishap: repaired, released, taken back, removed, forgotten.
    pub(crate) fn shut_down(&self, statistics: &mut Statistics) -> Result<(), NoMemory> {
        self.mishaps().end();
        self.platform().clear_faults();
        for group in (0..self.plan().len()).filter_map(|place| self.plan().at(place).facts.group) {
            self.platform().set_group_in_use(group, false);
        }
        for _ in 0..ATTEMPTS {
            mend(self, statistics);
            run_deferred(self);
            replug(self);
        }
        self.audit()?;
        let broken: Vec<_> = self.machine().devices().filter(|device| device.broken.is_some()).collect();
        for address in broken.iter().map(|device| device.status.address) {
            if let Err(error) = self.machine().repair(address) {
                self.violation_at(address, format_args!("{address} cannot be repaired at the end: {error}"));
            }
        }
        for id in self.guests().ids() {
            self.release_at_the_end(id, statistics);
        }
        self.check_nothing_waits();
        for place in self.plan().top_down().iter().rev() {
            self.remove_at_the_end(*place);
        }
        self.audit()?;
        for (requester, entry) in self.platform().entries() {
            if entry != Entry::Absent {
                self.violation(format_args!("the IOMMU has {entry:?} for {requester} at the end"));
            }
        }
        for requester in self.platform().unflushed() {
            self.violation(format_args!("what the IOMMU had for {requester} was not flushed at the end"));
        }
        Ok(())
    }

    /// Everything that was deferred is done, but for devices that cannot go back without one that somebody has put in
    /// quarantine. A group goes back in one transition, so one of those keeps all of its group that wait.
    fn check_nothing_waits(&self) {
        // One may wait for another.
        let left = (0..ATTEMPTS).map(|_| run_deferred(self)).last().unwrap_or_default();
        let waiting: Vec<_> = self.machine().devices().filter(|device| device.deferred).collect();
        for address in waiting.iter().map(|device| device.status.address) {
            if !self.waits_with(address).iter().any(|member| self.is_kept_by_a_sharer(*member)) {
                self.violation_at(address, format_args!("{address} waits at the end, and nothing keeps it"));
            }
        }
        if left > waiting.len() {
            self.violation(format_args!("{left} things are left to be done at the end"));
        }
    }

    /// What goes back to the host together with this waiting device, itself included.
    fn waits_with(&self, address: Sbdf) -> Vec<Sbdf> {
        let mut set = self.machine().group_of(address).unwrap_or_default();
        set.retain(|member| self.machine().lock(*member).is_ok_and(|device| device.is_deferred()));
        set.push(address);
        set
    }

    /// Whether a device in quarantine that does not wait shares a requester ID with this one.
    fn is_kept_by_a_sharer(&self, address: Sbdf) -> bool {
        let Ok(ids) = self.machine().lock(address).map(|device| device.requesters().to_vec()) else {
            return false;
        };
        let addresses = (0..self.plan().len()).map(|place| self.address(place));
        addresses.filter(|other| *other != address).any(|other| {
            self.machine().lock(other).is_ok_and(|device| {
                let shares = device.requesters().iter().any(|id| ids.contains(id));
                shares && device.owner() == Owner::Quarantine && !device.is_deferred()
            })
        })
    }

    fn release_at_the_end(&self, id: DomainId, statistics: &mut Statistics) {
        self.guests().condemn(id);
        if let Some(error) = bury(self, id, statistics) {
            self.violation(format_args!("domain {id} cannot be released at the end: {error}"));
        }
    }

    fn remove_at_the_end(&self, place: usize) {
        if self.end_life(place).is_some()
            && let Err(error) = self.machine().remove_device(self.address(place))
        {
            self.violation(format_args!("{} cannot be removed at the end: {error}", self.address(place)));
        }
    }
}
