//! Whom else it concerns when devices move: those who share a requester ID, and those whom a reset hits.

use pcidevs::address::Segment;
use pcidevs::platform::ResetSupport;
use pcidevs::{Owner, Sbdf};

use super::Model;
use super::device::Device;
use super::verdict::Reasons;
use crate::machine::{FUNCTIONS, Function, Kind, at};
use crate::stage::Reason;

impl Model {
    /// Why these devices cannot leave those that share a requester ID with them.
    pub(super) fn apart(&self, moved: &[Sbdf], to: impl Fn(Sbdf) -> Owner) -> Reasons {
        let twins = |at: &Sbdf| {
            let device = &self.devices[at];
            let others = self
                .devices
                .iter()
                .filter(|(other, _)| !moved.contains(other) && !Device::is_bridge(**other));
            others.filter(|(_, other)| other.shares_requester(device)).any(|(_, twin)| match to(*at) {
                Owner::Host => !matches!(twin.owner, Owner::Host | Owner::Unowned),
                Owner::Quarantine | Owner::Hidden => !twin.is_blocked(),
                _ => true,
            })
        };
        if moved.iter().any(twins) { [Reason::Inseparable].into() } else { Reasons::new() }
    }

    /// The device and those of the same owner that it cannot leave without.
    pub(super) fn inseparable(&self, at: Sbdf, from: Owner) -> Vec<(Sbdf, Option<Sbdf>)> {
        let mut all = vec![at];
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            let hit = self.reset_reaches(at);
            for (other, device) in &self.devices {
                let tied = hit.contains(other) || device.shares_requester(&self.devices[&at]);
                if tied && device.owner == from && !all.contains(other) {
                    all.push(*other);
                }
            }
        }
        all.into_iter().map(|at| (at, None)).collect()
    }

    /// Whom a reset of the device hits besides.
    pub(super) fn reset_reaches(&self, at: Sbdf) -> Vec<Sbdf> {
        let same_bus = |other: &Sbdf| other.bus() == at.bus();
        let hit = |other: &Sbdf| match Function::find(at).reset {
            ResetSupport::Slot => same_bus(other) && other.device() == at.device(),
            ResetSupport::Bus => {
                same_bus(other) || {
                    let mut below = *other;
                    loop {
                        match self.parent(below) {
                            None => break false,
                            Some(bridge) if bridge.bus() == at.bus() => break true,
                            Some(bridge) => below = bridge,
                        }
                    }
                }
            }
            _ => false,
        };
        self.devices.keys().copied().filter(|other| *other != at && hit(other)).collect()
    }

    /// The first that is in the way of the reset of this device, which moves with the others.
    pub(super) fn first_in_reset(&self, at: Sbdf, moved: &[Sbdf]) -> Option<&Device> {
        let is_hit = |other: &Sbdf| !moved.contains(other) && !Device::is_bridge(*other);
        let hit = self.reset_reaches(at).into_iter().filter(is_hit).map(|other| &self.devices[&other]);
        hit.into_iter().find(|other| other.owner != Owner::Quarantine)
    }

    /// Why the resets of these devices cannot be.
    pub(super) fn resets(&self, moved: &[Sbdf]) -> Reasons {
        let mut reasons = Reasons::new();
        for at in moved {
            if Function::find(*at).reset == ResetSupport::Missing {
                reasons.insert(Reason::Failed);
            }
            let in_the_way = |other: &Sbdf| {
                !moved.contains(other)
                    && !Device::is_bridge(*other)
                    && self.devices[other].owner != Owner::Quarantine
            };
            if self.reset_reaches(*at).iter().any(in_the_way) {
                reasons.insert(Reason::OthersInReset);
            }
        }
        reasons
    }

    /// The known bridge right above.
    pub(super) fn parent(&self, at: Sbdf) -> Option<Sbdf> {
        let range = |bridge: &Sbdf| Function::find(*bridge).behind();
        let above = self.devices.keys().filter(|bridge| {
            **bridge != at
                && range(bridge).is_some_and(|(first, last)| (first..=last).contains(&at.bus().number()))
        });
        above.max_by_key(|bridge| range(bridge)).copied()
    }

    /// The name that the known bridge to conventional PCI above a device gives to its requests.
    pub(super) fn alias(&self, at: Sbdf) -> Option<Sbdf> {
        let bridge = self.parent(at)?;
        match Function::find(bridge).kind {
            Kind::ToPci(bus) => Some(Sbdf::from_bdf(Segment::new(0), u16::from(bus) << 8)),
            _ => None,
        }
    }

    pub(super) fn requesters(&self, device: Sbdf) -> Vec<Sbdf> {
        let own = FUNCTIONS.iter().find(|function| function.at() == device);
        let more = own.into_iter().flat_map(|function| function.more_requesters).map(|id| at(id));
        let alias = self.alias(device).filter(|alias| *alias != device);
        core::iter::once(device).chain(more).chain(alias).collect()
    }
}
