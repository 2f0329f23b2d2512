//! What must be so between two operations, whatever came before: the machine and the model agree.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pcidevs::address::Segment;
use pcidevs::platform::{AttachmentKind, Dma, Entry};
use pcidevs::{Holder, Owner, Phase, Sbdf};

use super::machine;
use super::model::{Device, Model};
use super::operations::{GUESTS, WANTED};
use super::stage::Stage;

/// Everything of a device that can be seen.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    owner: Owner,
    guest_address: Option<Sbdf>,
    broken: bool,
    removing: bool,
    deferred: bool,
    read_only: bool,
    extended: bool,
    uses: u32,
    unnamed: u32,
    holders: Vec<Holder>,
    attachments: Vec<AttachmentKind>,
    requesters: Vec<Sbdf>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.owner)?;
        if let Some(at) = self.guest_address {
            write!(f, " at {at}")?;
        }
        let flags = [
            (self.broken, "broken"),
            (self.removing, "removing"),
            (self.deferred, "deferred"),
            (self.read_only, "read-only"),
            (self.extended, "extended"),
        ];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, flag)| write!(f, ", {flag}"))?;
        let list = |things: Vec<String>| things.join(", ");
        let holders = list(self.holders.iter().map(ToString::to_string).collect());
        let attachments = list(self.attachments.iter().map(ToString::to_string).collect());
        let requesters = list(self.requesters.iter().map(ToString::to_string).collect());
        write!(f, "; {} uses, {} unnamed: [{holders}]", self.uses, self.unnamed)?;
        write!(f, "; attachments [{attachments}]; requester IDs [{requesters}]")
    }
}

fn sorted(mut holders: Vec<Holder>) -> Vec<Holder> {
    holders.sort_unstable_by_key(ToString::to_string);
    holders
}

impl Seen {
    /// What the machine shows.
    pub(crate) fn of_stage(stage: &Stage, at: Sbdf) -> Result<Option<Self>, String> {
        let Some(status) = stage.lifecycle.status(at) else { return Ok(None) };
        let device =
            stage.lifecycle.lock(at).map_err(|error| format!("{at} is present and not reached: {error}"))?;
        if device.is_claimed() {
            return Err(format!("{at} is claimed between operations"));
        }
        let seen = Self {
            owner: device.owner(),
            guest_address: device.guest_address(),
            broken: device.broken().is_some(),
            removing: device.is_removing(),
            deferred: device.is_deferred(),
            read_only: device.is_read_only(),
            extended: device.is_extended_function(),
            requesters: device.requesters().to_vec(),
            uses: status.status.uses,
            unnamed: status.status.unnamed,
            holders: sorted(status.status.holders),
            attachments: status.attachments,
        };
        drop(device);
        let phase = if seen.removing { Phase::Removing } else { Phase::Live };
        let named = u32::try_from(seen.holders.len()).map_err(|error| error.to_string())?;
        if status.status.owner != Some(seen.owner)
            || status.status.phase != phase
            || seen.uses != seen.unnamed + named
        {
            return Err(format!("{at} is shown as {:?} and seen as {seen:?}", status.status.phase));
        }
        Ok(Some(seen))
    }

    /// What the model expects to be shown of a device with this state.
    pub(crate) fn of_model(model: &Model, at: Sbdf, device: &Device) -> Self {
        let holders = sorted(model.holders(at, &[]));
        let unnamed = model.unnamed(at);
        Self {
            owner: device.owner,
            guest_address: device.seen_at,
            broken: device.broken,
            removing: device.removing,
            deferred: device.deferred,
            read_only: device.read_only,
            extended: device.extended,
            uses: unnamed + u32::try_from(holders.len()).expect("few"),
            unnamed,
            holders,
            attachments: device.attachments(),
            requesters: device.requesters.clone(),
        }
    }
}

impl Seen {
    /// The holders that the device's own state makes.
    fn own_holders(&self) -> Vec<Holder> {
        let own = |holder: &&Holder| matches!(holder, Holder::Domain(_) | Holder::DmaOf(_));
        self.holders.iter().filter(own).copied().collect()
    }

    /// The same, but for uses by other devices, whose state may not be settled yet.
    pub(crate) fn is_like(&self, expected: &Self) -> bool {
        let alone = |seen: &Self| Self { uses: 0, unnamed: 0, holders: seen.own_holders(), ..seen.clone() };
        alone(self) == alone(expected)
    }
}

/// Machine and model agree in everything.
pub(crate) fn agree(model: &Model, stage: &Stage) -> Result<(), String> {
    devices(model, stage)?;
    lists(model, stage)?;
    guests(model, stage)?;
    iommu(model, stage)?;
    attachments(model, stage)?;
    let alive = stage.alive.load(Ordering::Relaxed);
    if alive != model.objects() {
        return Err(format!("{alive} objects are alive, {} should be", model.objects()));
    }
    match stage.gone_wrong().first() {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(()),
    }
}

fn devices(model: &Model, stage: &Stage) -> Result<(), String> {
    for function in machine::FUNCTIONS {
        let at = function.at();
        let seen = Seen::of_stage(stage, at)?;
        let expected = model.devices.get(&at).map(|device| Seen::of_model(model, at, device));
        if seen != expected {
            return Err(format!("{at} is\n  {seen:?}\nand should be\n  {expected:?}"));
        }
    }
    Ok(())
}

/// Each known device is on its owner's list and on no other, in address order, and no stranger is on any.
fn lists(model: &Model, stage: &Stage) -> Result<(), String> {
    let guests = GUESTS.iter().map(|guest| Owner::Guest(*guest));
    let owners = [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden];
    for owner in owners.into_iter().chain(guests) {
        let devices = stage.lifecycle.devices_of(owner).map_err(|error| error.to_string())?;
        let listed = devices.map(|devices| devices.iter().map(|device| device.address()).collect::<Vec<_>>());
        let exists = owner.guest().is_none_or(|guest| model.guests.contains_key(&guest));
        let expected = exists.then(|| model.with_owner(owner).collect::<Vec<_>>());
        if listed != expected {
            return Err(format!("the list of {owner} is {listed:?} and should be {expected:?}"));
        }
    }
    let walked: Vec<_> = stage.lifecycle.devices().map(|device| device.status.address).collect();
    if !walked.iter().eq(model.devices.keys()) {
        return Err(format!("a walk finds {walked:?}"));
    }
    Ok(())
}

/// A guest reaches its devices by the addresses that it sees, and nothing else; a guest that was released nothing.
fn guests(model: &Model, stage: &Stage) -> Result<(), String> {
    let mut current = BTreeMap::new();
    for guest in &stage.guests {
        current.insert(guest.id(), current.get(&guest.id()).map_or(1, |count| count + 1));
    }
    let places = (0..12).map(|place| Sbdf::from_bdf(Segment::new(0), place << 3));
    let places: Vec<_> = places.chain(WANTED.iter().map(|at| machine::at(at))).collect();
    for guest in &stage.guests {
        let id = guest.id();
        let left = current.get_mut(&id).map_or(0, |count| {
            *count -= 1;
            *count
        });
        let is_current = left == 0 && model.guests.contains_key(&id);
        for at in &places {
            let reached = guest.lock(*at).ok().map(|device| device.address());
            let seen = |(_, device): &(&Sbdf, &Device)| {
                device.owner == Owner::Guest(id) && device.seen_at == Some(*at)
            };
            let expected = model.devices.iter().find(seen).map(|(at, _)| *at).filter(|_| is_current);
            if reached != expected {
                return Err(format!("domain {id} finds {reached:?} at {at}, and should find {expected:?}"));
            }
        }
    }
    Ok(())
}

/// Under each requester ID the IOMMU lets requests reach their device's owner and nobody else.
fn iommu(model: &Model, stage: &Stage) -> Result<(), String> {
    let machine = stage.machine();
    for id in machine::requester_ids() {
        let (entry, dma) = (machine.entry(id), machine.dma_raw(id));
        let named: Vec<_> =
            model.devices.iter().filter(|(_, device)| device.requesters.contains(&id)).collect();
        let in_teardown = model.teardown.values().any(|device| device.requesters.contains(&id));
        if named.iter().any(|(_, device)| device.broken) {
            // Nobody knows what a broken device reaches, but its list must say which guest it may be.
            let listed = |guest| named.iter().any(|(_, device)| device.owner == Owner::Guest(guest));
            if let Some(guest) = dma.reaches().and_then(Owner::guest)
                && !listed(guest)
            {
                return Err(format!("broken {id} reaches domain {guest} and is not on its list"));
            }
            continue;
        }
        if in_teardown {
            continue;
        }
        let mut owners: Vec<_> = named.iter().map(|(_, device)| device.owner).collect();
        owners.retain(|owner| *owner != Owner::Unowned);
        owners.dedup();
        let right = match owners[..] {
            [] => entry == Entry::Absent && dma == Dma::NoEntry || model.leftover.contains(&id),
            [owner @ (Owner::Host | Owner::Guest(_))] => {
                entry == Entry::Attached(owner) && dma == Dma::Reaches(owner)
            }
            // What was repaired had its DMA blocked by other means.
            [_] => !matches!(entry, Entry::Attached(_)) && dma.reaches().is_none(),
            // Several have the ID, and one of them was repaired while the others stayed where they are.
            _ => dma.reaches().is_none_or(|owner| owners.contains(&owner)),
        };
        if !right {
            let devices: Vec<_> =
                named.iter().map(|(at, device)| format!("{at} of {}", device.owner)).collect();
            return Err(format!("requests of {id} reach {dma}, its entry is {entry:?}; it is {devices:?}"));
        }
    }
    Ok(())
}

/// As many attachments are in effect as are registered, and the platform has the MSI-X tables it was given.
fn attachments(model: &Model, stage: &Stage) -> Result<(), String> {
    let certain = model.teardown.is_empty()
        && model.leftover.is_empty()
        && model.devices.values().all(|device| !device.broken);
    let registered: usize =
        model.devices.values().map(|device| usize::from(device.viewed) + device.attached.len()).sum();
    let in_effect = stage.ledger.in_effect();
    if certain && registered != in_effect {
        return Err(format!("{registered} attachments are registered, {in_effect} are in effect"));
    }
    for function in machine::FUNCTIONS {
        let at = function.at();
        let device = model.devices.get(&at);
        let unclear = model.teardown.contains_key(&at) || device.is_some_and(|device| device.broken);
        let mapped = device.is_some_and(|device| device.msix_table);
        if !unclear && mapped != stage.machine().msix_prepared(at) {
            return Err(format!(
                "the MSI-X table of {at} should be {}",
                if mapped { "mapped" } else { "unmapped" }
            ));
        }
    }
    Ok(())
}

/// Every address is free again once everything is let go: a new device can come to each.
pub(crate) fn ends_well(stage: &mut Stage) -> Result<(), String> {
    stage.let_go();
    // A device that is broken on a guest's list, or hidden, is not removed: the hardware goes.
    stage.lifecycle.shut_down();
    let left = stage.lifecycle.run_deferred();
    let entries = stage.machine().entries();
    let devices: Vec<_> = stage.lifecycle.devices().map(|device| device.status.address).collect();
    let alive = stage.alive.load(Ordering::Relaxed);
    if left != 0 || !entries.is_empty() || !devices.is_empty() || alive != 0 || stage.ledger.in_effect() != 0
    {
        return Err(format!(
            "after the end {left} wait, {entries:?} are in the IOMMU, {devices:?} are known, {alive} objects alive"
        ));
    }
    for function in machine::FUNCTIONS {
        let at = super::operations::At(function.at());
        let added = stage.perform(&super::operations::Operation::Add { at, extended: false });
        if added != super::stage::Outcome::Done {
            return Err(format!("{at:?} cannot come again: {added:?}"));
        }
    }
    match stage.gone_wrong().first() {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(()),
    }
}
