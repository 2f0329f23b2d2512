//! Carrying out what accesses ask for: one thread at a time for a device, in order, without its lock.
//!
//! An access that asks for something takes a use of the device under the lock, unlocks, and tries to be the executor.
//! If somebody is it already, that one will come to this access's effects too, and the access waits until they are done
//! or superseded.

use super::mapper::{Mapper, NOT_UNMAPPED, Outcome};
use super::waiting::{Waits, guarded, report};
use super::wiring::{Target, Wiring};
use crate::memory::Shared;
use crate::platform::HookError;
use crate::sync::RawLock;
use crate::vpci::capability::{Level, VectorWork};
use crate::vpci::function::{BarSet, Bond, Function, Work};

/// A way to a function under its device's lock.
pub(super) trait Reach {
    /// Runs `step` under the lock; nothing if there is no function any more.
    fn with(&self, step: &mut dyn FnMut(&mut Function));
}

/// What a step under the lock answers; `None` if there is no function any more.
pub(super) fn under_lock<R>(reach: &impl Reach, step: impl FnOnce(&mut Function) -> R) -> Option<R> {
    let (mut step, mut answer) = (Some(step), None);
    reach.with(&mut |function| answer = step.take().map(|step| step(function)));
    answer
}

/// Carries out what waits, until nothing does or somebody else is at it.
pub(super) fn drive<L: RawLock>(
    reach: &impl Reach,
    mapper: &Mapper<L>,
    wiring: &impl Wiring,
    target: Target,
) {
    let by = L::current();
    while let Some(work) = under_lock(reach, |function| function.begin(by)).flatten() {
        let turn = Turn { reach, mapper };
        let mut next = Some(work);
        while let Some(work) = next {
            carry_out(reach, mapper, wiring, target, work);
            next = under_lock(reach, |function| function.more(by)).flatten();
        }
        drop(turn);
    }
    // Effects that had nothing to do any more have ended without a turn, and somebody may wait for them.
    mapper.wake();
}

/// One effect being carried out, which ends in any case.
struct Turn<'a, R: Reach, L: RawLock> {
    reach: &'a R,
    mapper: &'a Mapper<L>,
}

impl<R: Reach, L: RawLock> Drop for Turn<'_, R, L> {
    fn drop(&mut self) {
        under_lock(self.reach, |function| function.end(L::current()));
        self.mapper.wake();
    }
}

fn carry_out<L: RawLock>(
    reach: &impl Reach,
    mapper: &Mapper<L>,
    wiring: &impl Wiring,
    target: Target,
    work: Work,
) {
    let done = match work {
        Work::Decode { disable } => {
            let mappings = under_lock(reach, |function| function.mappings()).unwrap_or_default();
            decode(reach, wiring, target, disable, mapper.change(wiring, target, disable, &mappings))
        }
        Work::Vector(vector, work) => set_vector(reach, wiring, target, vector, work),
        Work::Intx(level) => set_pin(reach, wiring, target, level),
        Work::BusMaster(to) => guarded(|| wiring.bus_master(target, to)),
        Work::Power(to) => guarded(|| wiring.power(target, to)),
        Work::Reset => reset(reach, mapper, wiring, target),
        Work::Buses(numbers) => {
            mapper.program_port(target.seen_at, numbers);
            Ok(())
        }
        Work::VirtualFunctions(count) => guarded(|| wiring.virtual_functions(target, count)),
        Work::Device(wishes) => guarded(|| wiring.wishes(target, wishes)),
    };
    if let Err(error) = done {
        report(wiring, target, error);
    }
}

fn decode(
    reach: &impl Reach,
    wiring: &impl Wiring,
    target: Target,
    disable: BarSet,
    outcome: Outcome,
) -> Result<(), HookError> {
    let Outcome { stuck, enabled, refused } = outcome;
    for refusal in &refused {
        // A panic in a report is nothing to undo for.
        let _reported = guarded(|| {
            wiring.bar_refused(target, refusal);
            Ok(())
        });
    }
    let result = enabled.map(|_| ());
    under_lock(reach, |function| function.decoded(disable & !stuck, enabled.map_err(|_| ())));
    if stuck != 0 {
        report(wiring, target, NOT_UNMAPPED);
    }
    result
}

/// A function-level reset. With a life cycle the platform's binding makes the function anew meanwhile.
fn reset<L: RawLock>(
    reach: &impl Reach,
    mapper: &Mapper<L>,
    wiring: &impl Wiring,
    target: Target,
) -> Result<(), HookError> {
    let part = Part(under_lock(reach, |function| function.bond()).flatten());
    let done = guarded(|| wiring.reset(target));
    drop(part);
    let begins = |function: &mut Function| function.begin_reset(L::current(), done.is_ok());
    if !under_lock(reach, begins).unwrap_or(false) {
        return done;
    }
    let silenced = silence(reach, mapper, wiring, target);
    under_lock(reach, Function::reset);
    silenced
}

/// The embedder's part of a reset, which ends in any case.
struct Part(Option<Shared<Bond>>);

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(bond) = &self.0 {
            bond.end_reset();
        }
    }
}

/// Takes back everything that is mapped, routed or asserted for a function that does not answer any more. What could
/// not be taken back the function knows, so it can be tried again.
pub(super) fn silence<L: RawLock>(
    reach: &impl Reach,
    mapper: &Mapper<L>,
    wiring: &impl Wiring,
    target: Target,
) -> Result<(), HookError> {
    // If it is a port no number leads through it any more.
    mapper.buses.program(target.seen_at, [0; 3]);
    let mut result = mapper.disable_all(wiring, target.device);
    if result.is_ok() {
        under_lock(reach, |function| function.unmapped(BarSet::MAX));
    }
    let mut from = 0;
    while let Some((vector, after)) = under_lock(reach, |function| function.unroute_next(from)).flatten() {
        result = result.and(set_vector(reach, wiring, target, vector, VectorWork::Unroute));
        from = after;
    }
    if under_lock(reach, Function::lower_pin).unwrap_or(false) {
        result = result.and(set_pin(reach, wiring, target, Level::Low));
    }
    result
}

fn set_vector(
    reach: &impl Reach,
    wiring: &impl Wiring,
    target: Target,
    vector: u16,
    work: VectorWork,
) -> Result<(), HookError> {
    let done = guarded(|| wiring.vector(target, vector, work));
    if done.is_err() {
        under_lock(reach, |function| function.vector_failed(vector, work));
    }
    done
}

fn set_pin(reach: &impl Reach, wiring: &impl Wiring, target: Target, level: Level) -> Result<(), HookError> {
    let done = guarded(|| wiring.intx(target, level));
    if done.is_err() {
        under_lock(reach, |function| function.pin_failed(level));
    }
    done
}
