//! What is known of devices. Reads nothing that a stuck device blocks: links, and our own memory.

use super::{HostError, HostManager};
use crate::Sbdf;
use crate::host::function;
use crate::host::journal::Records;
use crate::host::name::{DriverName, GuestName};
use crate::host::record::{NetworkRecord, Record, Tenure};
use crate::platform::GroupId;

/// One device at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostStatus {
    /// Where it is.
    pub address: Sbdf,
    /// With whom it is.
    pub state: HostState,
    /// The driver it is bound to; `None` also where the link cannot be read.
    pub driver: Option<DriverName>,
    /// Its IOMMU group.
    pub group: Option<GroupId>,
    /// The kernel write that has not returned, if one has not.
    pub stuck: Option<String>,
    /// A guest has had it since it was reset last.
    pub needs_reset: bool,
    /// It goes back to the host when its guest is done with it.
    pub managed: bool,
    /// Its network identity, if a guest's was asked for; in quarantine, what is still to be put back.
    pub network: Option<NetworkRecord>,
}

/// With whom a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostState {
    /// With the host: its driver, or none.
    Host,
    /// On a stub, and not by this manager.
    Foreign,
    /// In nobody's guest.
    Quarantine,
    /// In nobody's guest, and waiting for its group to go back to the host.
    Deferred,
    /// With a guest.
    Guest(GuestName),
    /// Refused until it is repaired.
    Broken {
        /// Why.
        reason: String,
    },
}

impl HostManager {
    /// One device; `None` if there is none.
    pub fn status(&self, device: Sbdf) -> Option<HostStatus> {
        let records = self.core.book.records();
        // Not the engine: it may be reading the configuration of a device that is being reset, under the device's lock.
        let is_there = || function::is_present(self.kernel(), device).unwrap_or(false);
        (records.contains_key(&device) || is_there()).then(|| self.show(device, &records))
    }

    /// Every device, in address order.
    pub fn list(&self) -> Result<Vec<HostStatus>, HostError> {
        let records = self.core.book.records();
        let mut devices = function::all(self.kernel()).map_err(HostError::unreadable("list the devices"))?;
        devices.extend(records.keys());
        devices.sort_unstable();
        devices.dedup();
        Ok(devices.into_iter().map(|device| self.show(device, &records)).collect())
    }

    fn show(&self, device: Sbdf, records: &Records) -> HostStatus {
        let record = records.get(&device);
        let driver = function::driver(self.kernel(), device).ok().flatten();
        let state = match record {
            None if driver.as_ref().is_some_and(DriverName::is_stub) => HostState::Foreign,
            None => HostState::Host,
            Some(Record { broken: Some(reason), .. }) => HostState::Broken { reason: reason.clone() },
            Some(record) => match &record.tenure {
                Tenure::Host => HostState::Host,
                Tenure::Quarantine if record.giving_back => HostState::Deferred,
                Tenure::Quarantine => HostState::Quarantine,
                Tenure::Guest(guest) => HostState::Guest(guest.clone()),
            },
        };
        HostStatus {
            address: device,
            state,
            driver,
            group: function::group(self.kernel(), device).ok().flatten(),
            stuck: self.core.writer.stuck_in(device),
            needs_reset: record.is_some_and(|record| record.used),
            managed: record.is_some_and(|record| record.managed),
            network: record.and_then(|record| record.network),
        }
    }
}
