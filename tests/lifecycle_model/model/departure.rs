//! Devices leave: removed alone or with all that depends on them, by a ticket, or gone.

use pcidevs::address::DevFn;
use pcidevs::{Owner, Sbdf};

use super::Model;
use super::device::Device;
use super::verdict::{DONE, Reasons, Verdict, no};
use crate::machine::Function;
use crate::stage::{Outcome, Reason, nth};

impl Model {
    pub(super) fn slot(&self, at: Sbdf) -> Vec<Sbdf> {
        let functions = (0..8).filter_map(|function| DevFn::new(at.device(), function));
        functions.map(|devfn| at.with_devfn(devfn)).filter(|at| self.devices.contains_key(at)).collect()
    }

    /// These devices, virtual functions, and what is behind bridges.
    pub(super) fn with_dependants(&self, roots: &[Sbdf]) -> Vec<Sbdf> {
        let mut all: Vec<_> = roots.to_vec();
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            let behind = self.devices.contains_key(&at).then(|| Function::find(at).behind()).flatten();
            let more = self.devices.iter().filter(|(other, device)| {
                let bus = other.bus().number();
                device.pf == Some(at) || behind.is_some_and(|(first, last)| (first..=last).contains(&bus))
            });
            for (other, _) in more {
                if !all.contains(other) {
                    all.push(*other);
                }
            }
        }
        all
    }

    pub(super) fn remove_set(&mut self, set: &[Sbdf]) -> Verdict {
        if set.is_empty() {
            return no(Reason::NotFound);
        }
        let mut reasons = Reasons::new();
        for at in set {
            match self.devices.get(at) {
                None => {
                    reasons.insert(Reason::NotFound);
                }
                Some(device) => {
                    if device.owner == Owner::Hidden {
                        reasons.insert(Reason::Hidden);
                    }
                    if device.removing || !self.holders(*at, set).is_empty() || self.unnamed(*at) > 0 {
                        reasons.insert(Reason::Busy);
                    }
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in set {
            self.forget(*at);
        }
        DONE
    }

    /// The device leaves, cleanly or not.
    fn forget(&mut self, at: Sbdf) -> Option<Device> {
        self.forget_faults(at);
        self.devices.remove(&at)
    }

    pub(super) fn begin_removal(&mut self, at: Sbdf) -> Verdict {
        let mut reasons = Reasons::new();
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if device.owner == Owner::Hidden {
            reasons.insert(Reason::Hidden);
        }
        if device.removing {
            reasons.insert(Reason::Busy);
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        device.removing = true;
        let ticket = (at, device.instance);
        self.tickets.push(ticket);
        DONE
    }

    pub(crate) fn is_live(&self, (at, instance): (Sbdf, u32)) -> bool {
        self.devices.get(&at).is_some_and(|device| device.instance == instance)
    }

    pub(super) fn try_complete(&mut self, ticket: u8) -> Verdict {
        let Some(place) = nth(ticket, self.tickets.len()) else { return DONE };
        let (at, instance) = self.tickets[place];
        if !self.is_live((at, instance)) {
            self.tickets.remove(place);
            return no(Reason::TicketGone);
        }
        if !self.holders(at, &[]).is_empty() || self.unnamed(at) > 0 {
            return Verdict::Is(Outcome::Pending);
        }
        self.tickets.remove(place);
        self.forget(at);
        DONE
    }

    pub(super) fn cancel(&mut self, ticket: u8) -> Verdict {
        let Some(place) = nth(ticket, self.tickets.len()) else { return DONE };
        let (at, instance) = self.tickets.remove(place);
        if !self.is_live((at, instance)) {
            return no(Reason::TicketGone);
        }
        if let Some(device) = self.devices.get_mut(&at) {
            device.removing = false;
        }
        DONE
    }

    pub(super) fn report_gone(&mut self, at: Sbdf, pulled: bool) -> Verdict {
        if pulled {
            self.plugged.remove(&at);
        }
        if !self.devices.contains_key(&at) {
            return no(Reason::NotFound);
        }
        for gone in self.with_dependants(&[at]) {
            self.forget(gone);
        }
        DONE
    }
}
