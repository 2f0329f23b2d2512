//! After trouble: which states of a device are allowed, and which of them it is.
//!
//! A call went wrong, so the model cannot say what must have happened, but it can say what may have: each device is
//! as before, or as if nothing had gone wrong, or broken where its DMA may reach. The model goes on from the one that
//! is seen.

use pcidevs::{Owner, Sbdf};

use super::compare::Seen;
use super::machine;
use super::model::{Device, Group, Model};
use super::operations::Operation;
use super::stage::{Outcome, Stage, locked};

/// How much went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub(crate) hooks: u64,
    pub(crate) attachments: usize,
}

impl Met {
    pub(crate) const fn any(self) -> bool {
        self.hooks > 0 || self.attachments > 0
    }
}

/// What kind of thing an operation is, for what may be left of it.
struct Nature {
    /// It consists of several transitions, of which some may have happened.
    many: bool,
    /// Devices that leave a guest, or quarantine, may wait for their group.
    returns: bool,
    /// A device at which it fails is broken, without an undo that failed.
    breaks: bool,
    /// It happens, whatever fails: devices leave, or break.
    leaves: bool,
    /// The guest to which devices go.
    to: Option<Owner>,
}

fn nature(operation: &Operation) -> Nature {
    let many = matches!(operation, Operation::ReleaseDomain(_) | Operation::RunDeferred | Operation::Scan);
    let returns = matches!(
        operation,
        Operation::ReleaseDomain(_)
            | Operation::RunDeferred
            | Operation::Deassign { .. }
            | Operation::UnplugAnswered(..)
            | Operation::Repair(_)
    );
    let breaks = matches!(
        operation,
        Operation::Remove(_)
            | Operation::RemoveSlot(_)
            | Operation::RemoveSubtree(_)
            | Operation::TryComplete(_)
    );
    let leaves = matches!(operation, Operation::ReportGone { .. } | Operation::ReportFlushTimeout(_));
    let to = match operation {
        Operation::Assign { guest, .. } | Operation::AssignGroup { guest, .. } => Some(Owner::Guest(*guest)),
        _ => None,
    };
    Nature { many, returns, breaks, leaves, to }
}

/// Finds the state that every device is in, after an operation in which something went wrong. `before` and `after`
/// are the model's states without the operation, and with it.
pub(crate) fn settle(
    operation: &Operation,
    outcome: &Outcome,
    met: Met,
    before: &Model,
    after: &Model,
    stage: &Stage,
) -> Result<Model, String> {
    let nature = nature(operation);
    let failed = matches!(outcome, Outcome::Refused(_));
    if matches!(operation, Operation::ReportGone { .. })
        && failed
        && before.devices.len() != after.devices.len()
    {
        return Err(format!("what is gone is gone, and not {outcome:?}"));
    }
    let mut model = if failed && !nature.leaves { before.clone() } else { after.clone() };
    model.plugged.clone_from(&after.plugged);
    if let Operation::ReleaseDomain(guest) = operation {
        // It is released, or dying.
        if failed && let Some(guest) = model.guests.get_mut(guest) {
            guest.dying = true;
        } else if !failed {
            model.guests.remove(guest);
        }
    }
    if matches!(operation, Operation::TryComplete(_)) {
        model.tickets.clone_from(if *outcome == Outcome::Pending { &before.tickets } else { &after.tickets });
    }
    for function in machine::FUNCTIONS {
        let at = function.at();
        let seen = Seen::of_stage(stage, at)?;
        let states = candidates(&nature, failed, met, at, before, after);
        let fits = |state: &Option<Device>| {
            let expected = state.as_ref().map(|device| {
                let mut model = model.clone();
                put(&mut model, at, Some(device.clone()));
                Seen::of_model(&model, at, device)
            });
            match (&seen, &expected) {
                (Some(seen), Some(expected)) => seen.is_like(expected),
                (seen, expected) => seen.is_none() == expected.is_none(),
            }
        };
        let Some(state) = states.iter().find(|state| fits(state)) else {
            let states =
                states.iter().map(|state| state.as_ref().map(|device| Seen::of_model(&model, at, device)));
            let states: String = states.map(|state| format!("\n  {state:?}")).collect();
            return Err(format!("after trouble {at} is\n  {seen:?}\nand may be{states}"));
        };
        let (was, is) = (before.devices.get(&at), after.devices.get(&at));
        if state.is_some() && state.as_ref() == is && (was != is || !failed) {
            copy_faults(&mut model, after, at);
        } else if state.as_ref().map(|device| device.owner)
            != before.devices.get(&at).map(|device| device.owner)
        {
            model.faults.insert(at, (0, 0));
        } else {
            copy_faults(&mut model, before, at);
        }
        put(&mut model, at, state.clone());
    }
    if !matches!(operation, Operation::ReportFlushTimeout(_)) {
        slots(&mut model, before);
    }
    leavings(&mut model, before, stage);
    model.leftover.clone_from(&before.leftover);
    leftover(&mut model, operation, met);
    Ok(model)
}

fn copy_faults(model: &mut Model, from: &Model, at: Sbdf) {
    match from.faults.get(&at) {
        Some(faults) => model.faults.insert(at, *faults),
        None => model.faults.remove(&at),
    };
}

fn put(model: &mut Model, at: Sbdf, state: Option<Device>) {
    match state {
        Some(device) => model.devices.insert(at, device),
        None => model.devices.remove(&at),
    };
}

/// Every state in which a device may be found.
fn candidates(
    nature: &Nature,
    failed: bool,
    met: Met,
    at: Sbdf,
    before: &Model,
    after: &Model,
) -> Vec<Option<Device>> {
    let (was, is) = (before.devices.get(&at).cloned(), after.devices.get(&at).cloned());
    let mut states = Vec::new();
    let may_have_happened = !failed || nature.many || nature.leaves;
    let may_have_failed = failed || nature.many || was == is;
    if may_have_happened {
        states.push(is.clone());
    }
    if may_have_failed {
        states.push(was.clone());
    }
    let waits = |device: &Device| {
        let mut waits = device.clone();
        waits.settle(Owner::Quarantine, None);
        waits.deferred = true;
        waits
    };
    let in_group = |device: &&Device| matches!(device.group, Some(Group::Platform(_)));
    if nature.returns && may_have_happened {
        // Whether a group is in use could not be said, or giving it back failed.
        if let Some(device) = was.as_ref().filter(in_group)
            && device.owner.guest().is_some_and(|_| is.as_ref().is_none_or(|is| is.owner != device.owner))
        {
            states.push(Some(waits(device)));
        }
        // One that shares a requester ID broke on the way, and this one must not take the host's tables there.
        if let Some(device) = was.as_ref().filter(|device| nature.many && device.owner.guest().is_some()) {
            states.push(Some(Device { deferred: false, ..waits(device) }));
        }
        if let Some(device) = was.as_ref().filter(|device| device.owner == Owner::Quarantine) {
            states.push(Some(Device { deferred: true, ..device.clone() }));
            // Repaired, but its group waits on.
            let whole = Device { broken: is.as_ref().is_some_and(|is| is.broken), ..waits(device) };
            states.push(Some(Device { deferred: device.deferred, ..whole }));
        }
    }
    // An undo can fail only after something else has, and what it is undone of is a transition.
    let undo_may_fail = met.hooks >= 2 || met.attachments >= 1 || nature.breaks;
    if undo_may_fail && !nature.leaves {
        let whole: Vec<_> =
            states.iter().flatten().chain(&was).filter(|device| !device.broken).cloned().collect();
        for device in whole {
            let broken =
                Device { broken: true, removing: device.removing && !nature.breaks, ..device.clone() };
            for guest in [device.owner, nature.to.unwrap_or(device.owner)] {
                let dma = guest.guest().is_some();
                let listed = Device { owner: guest, seen_at: None, dma_of: dma, ..broken.clone() };
                states.push(Some(if dma { listed } else { broken.clone() }));
            }
            states.push(Some(broken));
        }
        if met.attachments > 0 {
            let broken: Vec<_> = states.iter().flatten().filter(|device| device.broken).cloned().collect();
            states.extend(broken.into_iter().map(|device| Some(Device { stuck: true, ..device })));
        }
        // Broken it was before, but its removal is over.
        states.extend(
            was.filter(|device| device.broken && nature.breaks)
                .map(|device| Some(Device { removing: false, ..device })),
        );
    }
    states
}

/// Guests' addresses follow the devices: one that left has freed its own, one that is gone has not.
fn slots(model: &mut Model, before: &Model) {
    for (id, guest) in &mut model.guests {
        let old = before.guests.get(id).map(|guest| guest.slots.clone()).unwrap_or_default();
        guest.slots = old;
        guest.slots.retain(|slot, (at, instance)| {
            let was = before.devices.get(at).filter(|device| device.instance == *instance);
            let was_seen =
                was.is_some_and(|device| device.owner == Owner::Guest(*id) && device.seen_at == Some(*slot));
            let still_known = model.devices.get(at).filter(|device| device.instance == *instance);
            let is_seen = still_known
                .is_some_and(|device| device.owner == Owner::Guest(*id) && device.seen_at == Some(*slot));
            !was_seen || is_seen || still_known.is_none()
        });
        for (at, device) in &model.devices {
            if let Some(slot) = device.seen_at.filter(|_| device.owner == Owner::Guest(*id)) {
                guest.slots.insert(slot, (*at, device.instance));
            }
        }
    }
}

/// What is left of devices that are gone, by what was reported of it.
fn leavings(model: &mut Model, before: &Model, stage: &Stage) {
    model.teardown.clone_from(&before.teardown);
    let mut reports = locked(&stage.reports);
    for (at, cleared) in core::mem::take(&mut reports.cleared) {
        match (cleared, before.devices.get(&at)) {
            (true, _) => {
                model.teardown.remove(&at);
            }
            (false, Some(device)) if !model.is_live((at, device.instance)) => {
                model.teardown.insert(at, device.clone());
            }
            (false, _) => {}
        }
    }
}

/// What could be neither added nor undone is unknown, and what the IOMMU holds of it, and what the host sees, remains
/// until it is cleared up.
fn leftover(model: &mut Model, operation: &Operation, met: Met) {
    let Operation::Add { at, .. } = operation else { return };
    let undo_may_fail = met.hooks >= 2 || met.attachments >= 1;
    if undo_may_fail && !model.devices.contains_key(&at.0) {
        model.leftover.extend(machine::requester_ids_of(at.0));
    }
}
