//! Devices come back from guests and out of quarantine: at once, or when their group can.

use pcidevs::lifecycle::Unplug;
use pcidevs::platform::ResetSupport;
use pcidevs::{DomainId, Owner, Sbdf};

use super::Model;
use super::device::{Device, Group};
use super::verdict::{DONE, Verdict, no};
use crate::machine::Function;
use crate::operations::Set;
use crate::stage::{Outcome, Reason};

impl Model {
    pub(super) fn deassign(&mut self, set: &Set, from: Owner) -> Verdict {
        let mut reasons = Self::duplicates(&set.0);
        let members: Vec<_> = set.0.iter().map(|(at, _)| *at).collect();
        for at in &members {
            match self.devices.get(at) {
                None => {
                    reasons.insert(Reason::NotFound);
                }
                Some(device) => {
                    if device.owner != from || !matches!(from, Owner::Guest(_) | Owner::Quarantine) {
                        reasons.insert(Reason::NotOwned);
                    }
                    if device.broken {
                        reasons.insert(Reason::Broken);
                    }
                }
            }
        }
        if !reasons.is_empty() {
            if members.iter().all(|at| self.devices.contains_key(at)) {
                reasons.extend(self.apart(&members, |_| Owner::Unowned));
                reasons.extend(self.resets(&members));
            }
            return Verdict::Refused(reasons);
        }
        let mut moved: Vec<_> = members.iter().filter_map(|at| Some((*at, self.way_back(*at)?))).collect();
        // Who shares a requester ID goes to one place.
        let kept = |moved: &[(Sbdf, (Owner, bool))]| {
            let shares = |one: Sbdf, other: Sbdf| self.devices[&one].shares_requester(&self.devices[&other]);
            moved.iter().position(|(at, (to, _))| {
                let leads =
                    |(other, (to, _)): &(Sbdf, (Owner, bool))| *to != Owner::Host && shares(*at, *other);
                *to == Owner::Host && moved.iter().any(leads)
            })
        };
        while let Some(place) = kept(&moved) {
            moved[place].1 = (Owner::Quarantine, false);
        }
        let leaving: Vec<_> =
            moved.iter().map(|(at, _)| *at).filter(|at| self.way_back(*at) != Some((from, true))).collect();
        let apart = |moved: &[(Sbdf, (Owner, bool))]| {
            let to = |at: Sbdf| moved.iter().find(|(moved, _)| *moved == at).map_or(from, |(_, (to, _))| *to);
            self.apart(&leaving, to)
        };
        reasons.extend(apart(&moved));
        if from.guest().is_some() {
            // What the host cannot have without a reset of somebody else's device waits for it in quarantine.
            for at in &leaving {
                match self.first_in_reset(*at, &leaving) {
                    Some(other) if other.owner == from && !other.broken => {
                        reasons.insert(Reason::OthersInReset);
                    }
                    Some(_) => {
                        let member = moved.iter_mut().find(|(member, _)| member == at).expect("leaves");
                        if member.1.0 == Owner::Host {
                            member.1 = (Owner::Quarantine, false);
                        }
                    }
                    None => {}
                }
            }
            while let Some(place) = kept(&moved) {
                moved[place].1 = (Owner::Quarantine, false);
            }
            reasons.extend(apart(&moved));
            if leaving.iter().any(|at| Function::find(*at).reset == ResetSupport::Missing) {
                reasons.insert(Reason::Failed);
            }
        } else {
            reasons.extend(self.resets(&leaving));
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for (at, (to, deferred)) in moved {
            if to != from {
                self.settle(at, to, None);
            }
            let device = self.devices.get_mut(&at).expect("checked");
            device.deferred |= deferred;
            if to == Owner::Host {
                device.sticky = false;
            }
        }
        for at in members {
            self.give_back(at);
        }
        DONE
    }

    /// Where a device goes that a guest gives back, or that leaves quarantine, and whether it waits there for its
    /// group; `None` if it stays.
    fn way_back(&self, at: Sbdf) -> Option<(Owner, bool)> {
        let device = &self.devices[&at];
        let from_guest = device.owner.guest().is_some();
        if device.removing {
            return from_guest.then_some((Owner::Quarantine, false));
        }
        let mut twins = self.devices.iter().filter(|(other, twin)| {
            **other != at && !Device::is_bridge(**other) && twin.shares_requester(device)
        });
        // By an ID of both a device that is to be kept from all memory would reach the host's.
        if from_guest && (device.sticky || twins.any(|(_, twin)| twin.is_blocked())) {
            return Some((Owner::Quarantine, false));
        }
        if let Some(Group::Platform(group)) = device.group {
            let alone = self.devices.values().filter(|other| other.group == device.group).count() == 1;
            if !alone || self.open.contains(&group) {
                return Some((Owner::Quarantine, true));
            }
        }
        Some((Owner::Host, false))
    }

    /// What waits in this device's group goes to the host, if nobody stands in the way.
    pub(super) fn give_back(&mut self, at: Sbdf) {
        let Some(Group::Platform(group)) = self.devices.get(&at).and_then(|device| device.group) else {
            return;
        };
        let members: Vec<_> = self
            .devices
            .iter()
            .filter(|(_, device)| device.group == Some(Group::Platform(group)))
            .map(|(at, _)| *at)
            .collect();
        if self.open.contains(&group) || members.iter().any(|at| self.devices[at].owner.guest().is_some()) {
            return;
        }
        let waits = |at: &Sbdf| {
            let device = &self.devices[at];
            device.deferred && device.owner == Owner::Quarantine && !device.removing && !device.broken
        };
        let waiting: Vec<_> = members.into_iter().filter(waits).collect();
        if self.resets(&waiting).is_empty() && self.apart(&waiting, |_| Owner::Host).is_empty() {
            for at in waiting {
                self.settle(at, Owner::Host, None);
                self.devices.get_mut(&at).expect("a member").sticky = false;
            }
        }
    }

    pub(super) fn run_deferred(&mut self) -> usize {
        self.teardown.clear();
        self.leftover.clear();
        let waiting: Vec<_> = self.waiting().collect();
        for at in waiting {
            self.give_back(at);
        }
        self.waiting().count()
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = Sbdf> + '_ {
        self.with_owner(Owner::Quarantine).filter(|at| self.devices[at].deferred)
    }

    pub(super) fn release_domain(&mut self, id: DomainId) -> Verdict {
        let Some(guest) = self.guests.get_mut(&id) else { return no(Reason::NoDomain) };
        guest.dying = true;
        let from = Owner::Guest(id);
        let devices: Vec<_> = self.with_owner(from).collect();
        let mut first = None;
        for at in devices {
            if self.devices[&at].owner != from {
                continue;
            }
            let alone = self.deassign(&Set(vec![(at, None)]), from);
            let apart = [Reason::Inseparable, Reason::OthersInReset];
            let verdict = match alone {
                Verdict::Refused(reasons) if reasons.iter().any(|reason| apart.contains(reason)) => {
                    let together = self.deassign(&Set(self.inseparable(at, from)), from);
                    match together {
                        Verdict::Refused(more) => Verdict::Refused(reasons.union(&more).copied().collect()),
                        done => done,
                    }
                }
                verdict => verdict,
            };
            if let Verdict::Refused(reasons) = verdict {
                first.get_or_insert(Verdict::Refused(reasons));
            }
        }
        if let Some(refused) = first {
            return refused;
        }
        self.guests.remove(&id);
        DONE
    }

    pub(super) fn acknowledge(&mut self, guest: DomainId, at: Sbdf) -> Verdict {
        let Some(state) = self.guests.get(&guest) else { return no(Reason::NoDomain) };
        let stale = state.slots.get(&at).is_some_and(|(device, instance)| {
            let seen = self.devices.get(device).filter(|device| device.instance == *instance);
            seen.is_none_or(|device| (device.owner, device.seen_at) != (Owner::Guest(guest), Some(at)))
        });
        if stale && let Some(state) = self.guests.get_mut(&guest) {
            state.slots.remove(&at);
        }
        Verdict::Is(Outcome::Flag(stale))
    }

    pub(super) fn unplug_answered(&mut self, at: Sbdf, guest: DomainId, answer: Unplug) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if !device.asked {
            return no(Reason::NotAsked);
        }
        if device.owner != Owner::Guest(guest) {
            return no(Reason::NotOwned);
        }
        match answer {
            Unplug::Acked => {
                let owner = device.owner;
                self.deassign(&Set(vec![(at, None)]), owner)
            }
            Unplug::Rejected => {
                device.asked = false;
                DONE
            }
            Unplug::TimedOut => DONE,
        }
    }
}
