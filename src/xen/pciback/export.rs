//! What is written for a device, and what is read back.

use std::collections::BTreeMap;

use super::state::State;
use crate::address::Sbdf;
use crate::xen::spec::{GuestSlot, RdmPolicy};

/// What a guest may do with a device, and how it gets its interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Whether an interrupt by pin reaches the guest as a message.
    pub msitranslate: bool,
    /// Whether the guest may change the power state.
    pub power_mgmt: bool,
    /// Whether the guest may write all of configuration space.
    pub permissive: bool,
    /// What happens when reserved memory of the device is in the guest's way.
    pub rdm_policy: RdmPolicy,
}

impl Default for Options {
    /// What xl takes where nothing is said.
    fn default() -> Self {
        Self { msitranslate: true, power_mgmt: false, permissive: false, rdm_policy: RdmPolicy::Relaxed }
    }
}

/// A device that a guest is to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Export {
    /// The device.
    pub device: Sbdf,
    /// Where the guest is to see it; the driver chooses if nothing is said.
    pub slot: Option<GuestSlot>,
    /// What the guest may do.
    pub options: Options,
    /// What it is called.
    pub name: Option<String>,
}

impl Export {
    /// A device with nothing said about it.
    pub fn of(device: Sbdf) -> Self {
        Self { device, slot: None, options: Options::default(), name: None }
    }

    /// Its nodes, by their names without the index.
    pub(super) fn leaves(&self) -> BTreeMap<&'static str, String> {
        let Options { msitranslate, power_mgmt, permissive, rdm_policy } = self.options;
        let [msitranslate, power_mgmt, permissive] = [msitranslate, power_mgmt, permissive].map(u8::from);
        let options = format!(
            "msitranslate={msitranslate},power_mgmt={power_mgmt},permissive={permissive},rdm_policy={rdm_policy}"
        );
        let device = self.device.to_string();
        let mut leaves = BTreeMap::from([
            ("key", device.clone()),
            ("dev", device),
            ("opts", options),
            ("state", State::Initialising.number()),
        ]);
        let slot = self.slot.map(|slot| format!("{:x}", slot.number() << 3 | self.device.function()));
        leaves.extend(slot.map(|slot| ("vdevfn", slot)));
        leaves.extend(self.name.clone().map(|name| ("name", name)));
        leaves
    }
}

/// A device that a guest has, or is about to have or to lose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exported {
    /// The device.
    pub device: Sbdf,
    /// How far it has come: 1 published, 3 taken by the driver, 5 on its way out.
    pub state: State,
    /// Where the guest sees it, once the driver has said so.
    pub guest_address: Option<String>,
}
