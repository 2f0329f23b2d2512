//! What a reset, or a repair, makes of a device that stays where it is.

use pcidevs::platform::ResetSupport;
use pcidevs::{Owner, Sbdf};

use super::Model;
use super::device::Device;
use super::verdict::{DONE, Reasons, Verdict, no};
use crate::machine::Function;
use crate::stage::Reason;

impl Model {
    pub(super) fn reset(&mut self, at: Sbdf) -> Verdict {
        let Some(device) = self.devices.get(&at) else { return no(Reason::NotFound) };
        let owner = device.owner;
        let mut reasons = self.not_to_reset(at);
        if Function::find(at).reset == ResetSupport::Missing {
            reasons.insert(Reason::Failed);
        }
        let mut reset = vec![at];
        for other in self.reset_reaches(at) {
            let is_same = self.devices[&other].owner == owner;
            match self.devices[&other].owner {
                _ if Device::is_bridge(other) => {}
                _ if is_same => {
                    reasons.extend(self.not_to_reset(other));
                    reset.push(other);
                }
                Owner::Quarantine => {}
                _ => {
                    reasons.insert(Reason::OthersInReset);
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in reset {
            self.rebind(at);
        }
        DONE
    }

    pub(super) fn report_reset(&mut self, at: Sbdf) -> Verdict {
        if !self.devices.contains_key(&at) {
            return no(Reason::NotFound);
        }
        let reasons = self.not_to_reset(at);
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        self.rebind(at);
        DONE
    }

    fn not_to_reset(&self, at: Sbdf) -> Reasons {
        let device = &self.devices[&at];
        let mut reasons = Reasons::new();
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if device.owner == Owner::Hidden {
            reasons.insert(Reason::Hidden);
        }
        reasons
    }

    /// What the owner sees is made anew, and everything else of the binding has ended.
    fn rebind(&mut self, at: Sbdf) {
        self.forget_faults(at);
        if let Some(device) = self.devices.get_mut(&at) {
            device.attached.clear();
            device.viewed = matches!(device.owner, Owner::Host | Owner::Guest(_));
        }
    }

    /// A broken device was repaired.
    pub(crate) fn repaired(&mut self, at: Sbdf) {
        self.settle(at, Owner::Quarantine, None);
        if let Some(device) = self.devices.get_mut(&at) {
            device.broken = false;
        }
        self.give_back(at);
    }
}
