//! To a guest.

use serde::{Deserialize, Serialize};

use super::{Guarding, HostError, HostManager, guest_of, members};
use crate::Sbdf;
use crate::host::driver;
use crate::host::driver_type::{DriverChoice, DriverType};
use crate::host::function;
use crate::host::identity::{self, Missing};
use crate::host::journal::Records;
use crate::host::name::{DriverName, GuestName};
use crate::host::network::{NetworkIdentity, NetworkSettings};
use crate::host::operation::{Kind, Operation, Wish};
use crate::host::record::Tenure;
use crate::host::siblings;
use crate::platform::GroupId;

/// One device for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachable {
    /// The device.
    pub address: Sbdf,
    /// Whether it may come from the host's driver, and then goes back there.
    pub managed: bool,
    /// The driver it shall have.
    pub driver: DriverChoice,
    /// What it is to be on the network, if it is a virtual function of a network card; the host's comes back with the
    /// release. Without one nothing of that is read or written.
    pub network: Option<NetworkIdentity>,
}

impl Attachable {
    /// A device that comes from the host and goes back there.
    pub fn managed(address: Sbdf) -> Self {
        Self { address, managed: true, driver: DriverChoice::default(), network: None }
    }

    /// A device that was detached before.
    pub fn detached(address: Sbdf) -> Self {
        Self { address, managed: false, driver: DriverChoice::default(), network: None }
    }

    /// The same device, with this identity on the network.
    #[must_use]
    pub fn with_network(self, identity: NetworkIdentity) -> Self {
        Self { network: Some(identity), ..self }
    }
}

/// A device in the running or saved state of a guest: the driver is what was decided when the guest got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// The device, as text.
    pub address: String,
    /// Whether it goes back to the host.
    pub managed: bool,
    /// The driver it is on.
    pub driver: DriverName,
    /// What it is on the network, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkIdentity>,
}

impl HostManager {
    /// Gives devices to a guest: all of them at once, or none.
    ///
    /// Those of the host (`managed`) are taken from their drivers on the way. Each is reset. The guest may open them
    /// once this has returned.
    pub fn attach(&self, set: &[Attachable], guest: &GuestName, guard: Guarding) -> Result<(), HostError> {
        for Attachable { driver, .. } in set {
            if let DriverChoice::Configured(driver) = driver {
                driver.check()?;
            }
        }
        let addresses: Vec<Sbdf> = set.iter().map(|wanted| wanted.address).collect();
        let records = self.check_request(&addresses)?;
        let mut operation = Operation::new(Kind::Move).with_guest(guest);
        let mut hosts = Vec::new();
        for wanted in set {
            let device = wanted.address;
            self.check_no_bridge(device)?;
            let record = records.get(&device);
            if let Some(owner) = guest_of(record) {
                return Err(HostError::InUse { device, owner: owner.clone() });
            }
            match record {
                None if !wanted.managed => {
                    self.check_not_foreign(device)?;
                    return Err(HostError::NotDetached(device));
                }
                None => {
                    self.check_not_foreign(device)?;
                    self.check_no_virtual_functions(device)?;
                    self.check_has_group(device)?;
                    hosts.push(device);
                    let wish = Wish { driver: wanted.driver.clone(), managed: true };
                    operation = operation.with_wish(device, wish);
                }
                Some(record) if !is_satisfied(&wanted.driver, &record.stub) => {
                    return Err(HostError::OtherDriver { device, driver: record.stub.clone() });
                }
                Some(record) => self.check_still_ours(record)?,
            }
            if let Some(settings) = wanted.network.map(NetworkIdentity::settings).filter(is_any) {
                self.check_has_network(device)?;
                operation = operation.with_network(device, settings);
            }
        }
        if guard == Guarding::On {
            self.check_guards(&hosts)?;
        }
        self.check_groups(&addresses, guest, &records)?;
        let number = self.number_or_new(guest)?;
        self.carry_out(operation, |engine| engine.assign(&members(&addresses), number))?;
        Ok(())
    }

    /// Somebody keeps its network identity: its physical function is a network card that the host has.
    fn check_has_network(&self, device: Sbdf) -> Result<(), HostError> {
        match identity::keeper(self.kernel(), device) {
            Ok(_) => Ok(()),
            Err(Missing::NotVirtual) => Err(HostError::NotVirtual(device)),
            Err(Missing::NoInterface(pf)) => Err(HostError::NoInterface { device, physical_function: pf }),
            Err(Missing::Unreadable(errno)) => {
                Err(HostError::Unreadable { what: "look for who keeps its network identity", errno })
            }
        }
    }

    /// A detached device that somebody has bound to a host driver since is in use there.
    fn check_still_ours(&self, record: &crate::host::record::Record) -> Result<(), HostError> {
        let device = record.address;
        let driver =
            function::driver(self.kernel(), device).map_err(HostError::unreadable("read its driver"))?;
        match driver.filter(|driver| *driver != record.stub) {
            Some(driver) => Err(HostError::OtherDriver { device, driver }),
            None => Ok(()),
        }
    }

    /// No sibling is on a host driver, and nobody but this guest has a group of the set open.
    fn check_groups(&self, set: &[Sbdf], guest: &GuestName, records: &Records) -> Result<(), HostError> {
        let mut groups: Vec<GroupId> = Vec::new();
        for device in set {
            let group =
                function::group(self.kernel(), *device).map_err(HostError::unreadable("read its group"))?;
            groups.extend(group);
        }
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let siblings = siblings::in_the_way(self.kernel(), group, set);
            let siblings = siblings.map_err(HostError::unreadable("look at the group's drivers"))?;
            if !siblings.is_empty() {
                return Err(HostError::Siblings { group, siblings });
            }
            let is_theirs = |record: &crate::host::record::Record| {
                record.group == Some(group) && guest_of(Some(record)) == Some(guest)
            };
            if !records.values().any(is_theirs) && driver::is_open(&self.core.writer, group) {
                return Err(HostError::GroupOpen(group));
            }
        }
        Ok(())
    }

    /// The devices of a guest, for its running and saved state.
    pub fn saved_devices(&self, guest: &GuestName) -> Vec<SavedDevice> {
        let records = self.core.book.records();
        let theirs = records.values().filter(|record| record.tenure == Tenure::Guest(guest.clone()));
        let save = |record: &crate::host::record::Record| SavedDevice {
            address: record.address.to_string(),
            managed: record.managed,
            driver: record.stub.clone(),
            network: record.network.and_then(|network| NetworkIdentity::try_from(network.wanted).ok()),
        };
        theirs.map(save).collect()
    }
}

/// Whether anything is asked for.
fn is_any(settings: &NetworkSettings) -> bool {
    settings.mac.is_some() || settings.vlan.is_some()
}

/// Whether a device on this stub is what was asked for. A stub that was chosen before is not chosen again.
fn is_satisfied(choice: &DriverChoice, stub: &DriverName) -> bool {
    match choice {
        DriverChoice::Configured(DriverType::Default | DriverType::Vfio) => *stub != *"pci-stub",
        DriverChoice::Configured(DriverType::Xen) => false,
        DriverChoice::Recorded(name) | DriverChoice::Configured(DriverType::Named(name)) => name == stub,
    }
}
