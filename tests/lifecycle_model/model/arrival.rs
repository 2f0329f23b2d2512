//! Devices come: reported one by one, found by a scan, adopted by the host.

use pcidevs::address::DevFn;
use pcidevs::platform::GroupId;
use pcidevs::{Owner, Sbdf};

use super::Model;
use super::device::{Device, Group};
use super::verdict::{DONE, Reasons, Verdict};
use crate::machine::{FUNCTIONS, Function, Kind};
use crate::stage::{Outcome, Reason};

impl Model {
    pub(super) fn add(&mut self, at: Sbdf, extended: bool) -> Verdict {
        self.plugged.insert(at);
        let pf = Function::find(at).physical_function();
        let mut reasons = Reasons::new();
        if pf.is_some_and(|pf| !self.can_be_used(pf)) {
            reasons.insert(Reason::NoPf);
        }
        if let Some(device) = self.devices.get(&at) {
            if device.removing {
                reasons.insert(Reason::Busy);
            }
            let adopts = device.owner == Owner::Unowned && !device.broken;
            if adopts {
                reasons.extend(self.apart(&[at], |_| Owner::Host));
            }
            if !reasons.is_empty() {
                return Verdict::Refused(reasons);
            }
            if adopts {
                self.settle(at, Owner::Host, None);
            }
            if let Some(device) = self.devices.get_mut(&at)
                && pf.is_none()
            {
                device.extended = extended;
            }
            return Verdict::Is(Outcome::Again);
        }
        reasons.extend(self.not_new(at, Owner::Host));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        let inherited = pf.and_then(|pf| self.devices.get(&pf)).is_some_and(|pf| pf.extended);
        let mut device = self.make(at);
        (device.pf, device.extended) = (pf, extended || inherited);
        device.settle(Owner::Host, None);
        self.devices.insert(at, device);
        DONE
    }

    /// Why no new device can be made known there.
    fn not_new(&self, at: Sbdf, to: Owner) -> Reasons {
        let mut reasons = Reasons::new();
        let parent = self.parent(at);
        if parent.is_some_and(|bridge| !self.can_be_used(bridge)) {
            reasons.insert(Reason::Busy);
        }
        // What is behind a bridge was set up without it.
        let behind = Function::find(at).behind();
        let is_behind = |other: &Sbdf| {
            let bus = other.bus().number();
            behind.is_some_and(|(first, last)| (first..=last).contains(&bus))
        };
        if self.devices.keys().any(is_behind) {
            reasons.insert(Reason::BridgeTooLate);
        }
        let requesters = self.requesters(at);
        // Leavings at its address, or at another one that its requests carry.
        if self.teardown.keys().any(|left| requesters.contains(left)) {
            reasons.insert(Reason::Busy);
        }
        // The host's tables under a name that somebody else's requests carry would be a way to the host's memory.
        let twins =
            self.devices.values().filter(|other| other.requesters.iter().any(|id| requesters.contains(id)));
        if to == Owner::Host
            && twins.into_iter().any(|twin| !matches!(twin.owner, Owner::Host | Owner::Unowned))
        {
            reasons.insert(Reason::Inseparable);
        }
        reasons
    }

    fn make(&mut self, at: Sbdf) -> Device {
        self.instances += 1;
        let group = match Function::find(at).group {
            Some(group) => Some(Group::Platform(GroupId(group))),
            None => self
                .alias(at)
                .or(self.requesters(at).last().filter(|_| at.device() == 3).copied())
                .map(Group::Alias),
        };
        Device {
            instance: self.instances,
            owner: Owner::Unowned,
            seen_at: None,
            dma_of: false,
            broken: false,
            removing: false,
            sticky: false,
            deferred: false,
            read_only: false,
            asked: false,
            msix_table: false,
            extended: false,
            viewed: false,
            attached: Vec::new(),
            stuck: false,
            bridge: self.parent(at),
            pf: None,
            requesters: self.requesters(at),
            group,
        }
    }

    pub(super) fn scan(&mut self) -> Verdict {
        let mut answering: Vec<_> = FUNCTIONS
            .iter()
            .filter(|function| function.answers() && self.plugged.contains(&function.at()))
            .filter(|function| self.answers_at_all(function.at()))
            .map(Function::at)
            .collect();
        answering.sort_unstable();
        let mut new = 0;
        for at in answering {
            if self.devices.contains_key(&at) {
                continue;
            }
            let reasons = self.not_new(at, Owner::Unowned);
            if !reasons.is_empty() {
                return Verdict::Refused(reasons);
            }
            let device = self.make(at);
            self.devices.insert(at, device);
            new += 1;
        }
        Verdict::Is(Outcome::Count(new))
    }

    /// Functions after the first are looked for only where the first one says that there are some.
    fn answers_at_all(&self, function: Sbdf) -> bool {
        let first = function.with_devfn(DevFn::new(function.device(), 0).expect("function 0"));
        let is_multifunction = FUNCTIONS.iter().any(|other| {
            other.at() == first && other.kind == Kind::FirstEndpoint && self.plugged.contains(&first)
        });
        function == first || is_multifunction
    }

    pub(super) fn set_host(&mut self) -> Verdict {
        let unowned: Vec<_> = self.with_owner(Owner::Unowned).collect();
        let adopted: Vec<_> =
            unowned.into_iter().filter(|at| !self.devices[at].removing && !self.devices[at].broken).collect();
        let reasons = self.apart(&adopted, |_| Owner::Host);
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in adopted {
            self.settle(at, Owner::Host, None);
        }
        DONE
    }
}
