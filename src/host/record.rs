//! What must be known of a device that the host's drivers do not have.

use serde::{Deserialize, Serialize};

use super::name::{DriverName, GuestName};
use super::network::NetworkSettings;
use crate::Sbdf;
use crate::platform::GroupId;

/// What tells whether the same device is still at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem device ID.
    pub subsystem_device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// The Device Serial Number capability, where there is one.
    pub serial: Option<u64>,
}

/// What the device had before, and gets back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Original {
    /// This driver, or none, and this text in `driver_override`.
    Known {
        /// The driver.
        driver: Option<DriverName>,
        /// The override, empty for none.
        driver_override: String,
    },
    /// Nobody knows: it was on a stub already when it was adopted. It gets what the kernel takes for it.
    Unknown,
}

/// With whom it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Tenure {
    /// With the host still, or again: a transition is under way, or the device is broken there.
    Host,
    /// On a stub, in nobody's guest.
    Quarantine,
    /// With a guest.
    Guest(GuestName),
}

/// The network identity of a virtual function while a guest's is in place, or the host's is still to be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// What it is with its guest.
    pub wanted: NetworkSettings,
    /// What it was before, of the same settings, and is with anybody else.
    pub saved: NetworkSettings,
}

/// One device that is not simply the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own: they come in every combination"
)]
pub struct Record {
    /// Where it is.
    #[serde(with = "address")]
    pub address: Sbdf,
    /// What it is.
    pub identity: Identity,
    /// The number of its IOMMU group.
    #[serde(with = "group")]
    pub group: Option<GroupId>,
    /// What it had before.
    pub original: Original,
    /// The driver it has for guests.
    pub stub: DriverName,
    /// With whom it is. The truth: after a crash the machine is made to agree with it.
    pub tenure: Tenure,
    /// It goes back to the host when its guest is done with it: an attach took it from there.
    pub managed: bool,
    /// A guest has had it since it was reset last.
    pub used: bool,
    /// It waits for its group to go back to the host.
    pub giving_back: bool,
    /// A transition that writes was begun and has not ended.
    pub intent: bool,
    /// Why it is broken.
    pub broken: Option<String>,
    /// Its network identity, if a guest's was asked for. In quarantine: the one before is still to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRecord>,
}

/// Addresses stand in the journal as text.
mod address {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::Sbdf;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(address: &Sbdf, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(address)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Sbdf, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Groups stand in the journal as numbers.
mod group {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::platform::GroupId;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(group: &Option<GroupId>, to: S) -> Result<S::Ok, S::Error> {
        group.map(|group| group.0).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<GroupId>, D::Error> {
        Ok(Option::<u32>::deserialize(from)?.map(GroupId))
    }
}
