//! One script, played on the life cycle and on the model side by side.

use std::fmt::Write as _;

use pcidevs::platform::{Entry, Hook};
use pcidevs::{Owner, Sbdf};

use super::aftermath::{self, Met};
use super::compare;
use super::model::{Device, Model, Verdict};
use super::operations::{Operation, Start, Step};
use super::stage::{Outcome, Reason, Registers, Stage};

/// Plays a script to its end, or to where machine and model differ.
pub(crate) fn play(start: Start, script: &[Step]) -> Result<(), String> {
    let (mut stage, mut model) = (Stage::new(start), Model::new(start));
    compare::agree(&model, &stage).map_err(|why| format!("at the start, {why}"))?;
    for (number, step) in script.iter().enumerate() {
        let mut history = String::new();
        step_of(&mut stage, &mut model, step, &mut history)
            .and_then(|()| compare::agree(&model, &stage))
            .map_err(|why| format!("step {number}, {step:?}: {history}\n{why}"))?;
    }
    compare::ends_well(&mut stage)
}

fn step_of(stage: &mut Stage, model: &mut Model, step: &Step, history: &mut String) -> Result<(), String> {
    let operation = &step.operation;
    let before = model.clone();
    let registers = registers(stage, model);
    let blocked = is_blocked(stage, model, operation);
    stage.machine().take_stopped();
    let injected = stage.machine().injected();
    if !operation.is_the_embedders() {
        stage.arm(&step.troubles);
    }
    stage.machine().record(true);
    let outcome = stage.perform(operation);
    let (hooks, attachments) = stage.disarm(injected);
    let met = Met { hooks, attachments };
    stage.machine().record(false);
    // What went wrong, for who reads the failure.
    let journal = stage.machine().take_journal();
    for call in journal.iter().filter(|call| call.fault.is_some()) {
        let _ = write!(history, "\n  {call}");
    }
    let _ = write!(history, "\n  -> {outcome:?}");
    let verdict = model.perform(operation);
    let verdict = match (operation, verdict) {
        (Operation::Repair(at), Verdict::Any) => repair(model, at.0, blocked, &outcome),
        (Operation::ReportFault(at), Verdict::Any) => {
            if let Outcome::Count(count) = outcome {
                model.counted(at.0, u32::try_from(count).unwrap_or(u32::MAX));
            }
            Verdict::Any
        }
        (Operation::Detach(at, kind), Verdict::Any) => {
            if outcome == Outcome::Flag(true) {
                model.detached(at.0, *kind);
            }
            Verdict::Any
        }
        (_, verdict) => verdict,
    };
    if met.any() {
        if matches!(outcome, Outcome::Refused(Reason::Impossible)) {
            return Err("no operation ends so".to_owned());
        }
        *model = aftermath::settle(operation, &outcome, met, &before, model, stage)?;
    } else {
        if !verdict.admits(&outcome) {
            return Err(format!("the model says {verdict:?}"));
        }
        in_the_way(operation, &before, stage)?;
    }
    if matches!(outcome, Outcome::Refused(_)) {
        restored(&registers, &before, model, stage)?;
    }
    if *operation == Operation::RunDeferred {
        silenced(model, stage)?;
    }
    // There is nobody to tell of a platform that panics when it is asked to stop a guest.
    let asked = journal.iter().any(|call| call.hook == Hook::StopGuest && call.fault.is_some());
    if asked { Ok(()) } else { stops(&before, model, stage) }
}

impl Operation {
    /// Nothing of it is a transition, so nothing goes wrong.
    fn is_the_embedders(&self) -> bool {
        matches!(self, Self::Isolate(_) | Self::Enable(_) | Self::Detach(..) | Self::Attach(..))
    }
}

/// Whether the machine confirms that a device that is to be repaired reaches nobody; `None` if that depends on an ID
/// that another device has as well: the machine knows only of IDs that were changed for this one.
fn is_blocked(stage: &Stage, model: &Model, operation: &Operation) -> Option<bool> {
    let Operation::Repair(at) = operation else { return Some(false) };
    let machine = stage.machine();
    let attached = |entry| matches!(entry, Entry::Attached(_));
    let reaches = |id| attached(machine.entry(id)) || machine.cached_entry(id).is_some_and(attached);
    let is_others =
        |id| model.devices.iter().any(|(other, device)| *other != at.0 && device.requesters.contains(&id));
    let ids = model.devices.get(&at.0).map(|device| device.requesters.clone()).unwrap_or_default();
    match ids.into_iter().filter(|id| reaches(*id)).map(is_others).min() {
        None => Some(true),
        Some(true) => None,
        Some(false) => Some(false),
    }
}

fn repair(model: &mut Model, at: Sbdf, blocked: Option<bool>, outcome: &Outcome) -> Verdict {
    if !blocked.unwrap_or(*outcome == Outcome::Done) {
        return Verdict::Refused([Reason::DmaNotBlocked].into());
    }
    model.repaired(at);
    Verdict::Is(Outcome::Done)
}

/// A `Busy` names exactly who is in the way.
fn in_the_way(operation: &Operation, before: &Model, stage: &Stage) -> Result<(), String> {
    let (Operation::Remove(at), Some((device, busy))) = (operation, &stage.busy) else { return Ok(()) };
    let removing = before.devices.get(device).is_some_and(|device| device.removing);
    let mut holders = busy.holders.clone();
    if removing {
        holders.retain(|holder| *holder != pcidevs::Holder::Transition(pcidevs::Transition::Remove));
    }
    let mut expected = before.holders(*device, &[]);
    let by_name = |one: &pcidevs::Holder| one.to_string();
    holders.sort_by_key(by_name);
    expected.sort_by_key(by_name);
    let unnamed = before.unnamed(*device);
    if *device != at.0 || holders != expected || busy.unnamed != unnamed {
        return Err(format!("{device} is {busy}, and should be held by {expected:?} and {unnamed} unnamed"));
    }
    Ok(())
}

type AllRegisters = Vec<(Sbdf, Registers)>;

fn registers(stage: &Stage, model: &Model) -> AllRegisters {
    model.devices.keys().map(|at| (*at, stage.registers(*at))).collect()
}

/// An operation that was refused, or failed, has left the registers of whole devices as they were. Those in
/// quarantine, and bridges, may have been hit by somebody else's reset.
fn restored(registers: &AllRegisters, before: &Model, after: &Model, stage: &Stage) -> Result<(), String> {
    for (at, was) in registers {
        let same = before.devices.get(at).filter(|device| after.devices.get(at) == Some(device));
        let is = stage.registers(*at);
        let spared = same.is_some_and(|device| !device.broken && device.owner != Owner::Quarantine);
        if spared && !Device::is_bridge(*at) && is != *was {
            return Err(format!("the registers of {at} were {was:?} and are {is:?}"));
        }
    }
    Ok(())
}

/// Devices that fault too often do not master the bus any more.
fn silenced(model: &Model, stage: &Stage) -> Result<(), String> {
    match model.noisy().find(|at| stage.registers(*at).masters() && stage.machine().functions().contains(at))
    {
        Some(at) => Err(format!("{at} faults too often and is still mastering the bus")),
        None => Ok(()),
    }
}

/// A guest that a device may reach after an undo has failed is stopped.
fn stops(before: &Model, after: &Model, stage: &Stage) -> Result<(), String> {
    let stops = stage.machine().take_stopped();
    for (at, device) in after.devices.iter().filter(|(_, device)| device.broken) {
        let was_broken = before.devices.get(at).is_some_and(|device| device.broken);
        if let Some(guest) = device.owner.guest()
            && !was_broken
            && !stops.iter().any(|stop| (stop.guest, stop.device) == (guest, *at))
        {
            return Err(format!("{at} broke, and domain {guest} goes on"));
        }
    }
    Ok(())
}
