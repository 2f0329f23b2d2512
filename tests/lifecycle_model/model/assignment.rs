//! Devices go to guests.

use std::collections::BTreeSet;

use pcidevs::address::Segment;
use pcidevs::{DomainId, Owner, Sbdf};

use super::Model;
use super::device::{Device, Group};
use super::verdict::{DONE, Reasons, Verdict, no};
use crate::machine::Function;
use crate::stage::Reason;

impl Model {
    fn guest_reasons(&self, guest: DomainId) -> Reasons {
        match self.guests.get(&guest) {
            None => [Reason::NoDomain].into(),
            Some(guest) if guest.dying => [Reason::Dying].into(),
            Some(_) => Reasons::new(),
        }
    }

    fn not_for_a_guest(&self, at: Sbdf) -> Reasons {
        let mut reasons = Reasons::new();
        let Some(device) = self.devices.get(&at) else { return [Reason::NotFound].into() };
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if !Function::find(at).is_endpoint() {
            reasons.insert(Reason::NotEndpoint);
        }
        match device.owner {
            Owner::Hidden => reasons.insert(Reason::Hidden),
            Owner::Guest(_) | Owner::Unowned => reasons.insert(Reason::Taken),
            _ => false,
        };
        if device.removing {
            reasons.insert(Reason::Busy);
        }
        reasons
    }

    pub(super) fn can_assign(&self, at: Sbdf, guest: DomainId) -> Verdict {
        let mut reasons = self.guest_reasons(guest);
        reasons.extend(self.not_for_a_guest(at));
        if reasons.is_empty() { DONE } else { Verdict::Refused(reasons) }
    }

    pub(super) fn assign(&mut self, set: &[(Sbdf, Option<Sbdf>)], guest: DomainId) -> Verdict {
        let mut reasons = self.guest_reasons(guest);
        reasons.extend(Self::duplicates(set));
        reasons.extend(set.iter().flat_map(|(at, _)| self.not_for_a_guest(*at)));
        let moved: Vec<_> = set.iter().map(|(at, _)| *at).collect();
        if moved.iter().all(|at| self.devices.contains_key(at)) {
            reasons.extend(self.apart(&moved, |_| Owner::Guest(guest)));
            reasons.extend(self.resets(&moved));
            if !self.groups_are_viable(&moved, guest) {
                reasons.insert(Reason::GroupNotViable);
            }
        }
        let mut wanted = BTreeSet::new();
        if let Some(guest) = self.guests.get(&guest) {
            for slot in set.iter().filter_map(|(_, wanted)| *wanted) {
                if guest.slots.contains_key(&slot) || !wanted.insert(slot) {
                    reasons.insert(Reason::SlotTaken);
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        let mut in_order = set.to_vec();
        // Who asks for an address comes before who takes what is left, in address order.
        in_order.sort_unstable_by_key(|(at, wanted)| (wanted.is_none(), *at));
        for (at, wanted) in in_order {
            let slots = &mut self.guests.get_mut(&guest).expect("checked").slots;
            let free = (0..).map(|place| Sbdf::from_bdf(Segment::new(0), place << 3));
            let slot = wanted.or_else(|| free.into_iter().find(|slot| !slots.contains_key(slot)));
            slots.insert(slot.expect("there are many"), (at, self.devices[&at].instance));
            self.settle(at, Owner::Guest(guest), slot);
        }
        DONE
    }

    /// Every other member of the groups is with this guest, has no driver, is nobody's or a bridge.
    fn groups_are_viable(&self, moved: &[Sbdf], guest: DomainId) -> bool {
        let groups: Vec<_> = moved.iter().filter_map(|at| self.devices[at].group).collect();
        let in_the_way = |(at, device): (&Sbdf, &Device)| {
            let in_group = device.group.is_some_and(|group| groups.contains(&group));
            let is_in_the_way = match device.owner {
                Owner::Guest(_) => device.owner != Owner::Guest(guest),
                Owner::Host => self.drivers.contains(at),
                _ => false,
            };
            in_group
                && matches!(device.group, Some(Group::Platform(_)))
                && !moved.contains(at)
                && is_in_the_way
        };
        !self.devices.iter().any(in_the_way)
    }

    pub(super) fn assign_group(&mut self, at: Sbdf, guest: DomainId) -> Verdict {
        let Some(device) = self.devices.get(&at) else { return no(Reason::NotFound) };
        let group = device.group;
        let is_member =
            |(other, device): &(&Sbdf, &Device)| **other == at || group.is_some() && device.group == group;
        let members = self.devices.iter().filter(is_member).map(|(at, _)| *at);
        let set: Vec<_> = members.filter(|at| !Device::is_bridge(*at)).map(|at| (at, None)).collect();
        self.assign(&set, guest)
    }
}
