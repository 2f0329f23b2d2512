//! Devices that nobody has: in quarantine, and hidden.

use pcidevs::lifecycle::Visibility;
use pcidevs::{Owner, Sbdf};

use super::Model;
use super::verdict::{DONE, Reasons, Verdict, no};
use crate::machine::Function;
use crate::operations::Set;
use crate::stage::Reason;

impl Model {
    pub(super) fn quarantine(&mut self, set: &Set) -> Verdict {
        let mut reasons = Self::duplicates(&set.0);
        for (at, _) in &set.0 {
            let Some(device) = self.devices.get(at) else {
                reasons.insert(Reason::NotFound);
                continue;
            };
            if device.broken {
                reasons.insert(Reason::Broken);
            }
            if !Function::find(*at).is_endpoint() {
                reasons.insert(Reason::NotEndpoint);
            }
            match device.owner {
                Owner::Hidden => reasons.insert(Reason::Hidden),
                Owner::Guest(_) => reasons.insert(Reason::Taken),
                _ => false,
            };
        }
        let known = |at: &Sbdf| self.devices.get(at).is_some_and(|device| device.owner != Owner::Quarantine);
        let moved: Vec<_> = set.0.iter().map(|(at, _)| *at).filter(known).collect();
        reasons.extend(self.apart(&moved, |_| Owner::Quarantine));
        reasons.extend(self.resets(&moved));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for (at, _) in &set.0 {
            if moved.contains(at) {
                self.settle(*at, Owner::Quarantine, None);
            }
            let device = self.devices.get_mut(at).expect("checked");
            (device.sticky, device.deferred) = (true, false);
        }
        DONE
    }

    pub(super) fn hide(&mut self, at: Sbdf, visibility: Visibility) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        let read_only = visibility == Visibility::ReadOnly;
        if device.owner == Owner::Hidden {
            device.read_only = read_only;
            return DONE;
        }
        let mut reasons = Reasons::new();
        if device.owner.guest().is_some() {
            reasons.insert(Reason::Taken);
        }
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if device.removing || !self.holders(at, &[]).is_empty() || self.unnamed(at) > 0 {
            reasons.insert(Reason::Busy);
        }
        reasons.extend(self.apart(&[at], |_| Owner::Hidden));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        self.settle(at, Owner::Hidden, None);
        self.devices.get_mut(&at).expect("checked").read_only = read_only;
        DONE
    }
}
