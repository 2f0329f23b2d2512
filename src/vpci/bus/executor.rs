//! Carrying out what accesses ask for: one thread at a time for a device, in order, without its lock.
//!
//! An access that asks for something takes a use of the device under the lock, unlocks, and tries to be the executor.
//! If somebody is it already, that one will come to this access's effects too, and the access waits until they are done
//! or superseded.

use core::marker::PhantomData;

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
            let unfinished = Unfinished { reach, mapper, target };
            let outcome = mapper.change(wiring, target, disable, &mappings);
            core::mem::forget(unfinished);
            decode(reach, wiring, target, disable, outcome)
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

/// A change of decoding, unless it is forgotten: a hook's panic goes by where there is no `std` to catch it. What was to be
/// mapped does not answer, and what was mapped still is, for all that is known.
struct Unfinished<'a, R: Reach, L: RawLock> {
    reach: &'a R,
    mapper: &'a Mapper<L>,
    target: Target,
}

impl<R: Reach, L: RawLock> Drop for Unfinished<'_, R, L> {
    fn drop(&mut self) {
        let coming = under_lock(self.reach, |function| {
            let coming = function.coming();
            function.decoded(0, Err(()));
            coming
        });
        self.mapper.forget(self.target.device, coming.unwrap_or_default());
    }
}

/// A function-level reset. With a life cycle the platform's binding makes the function anew meanwhile.
fn reset<L: RawLock>(
    reach: &impl Reach,
    mapper: &Mapper<L>,
    wiring: &impl Wiring,
    target: Target,
) -> Result<(), HookError> {
    let bond = under_lock(reach, |function| function.bond()).flatten();
    let mut part = Part::<_, L> { reach, bond, is_open: true, lock: PhantomData };
    let done = guarded(|| wiring.reset(target));
    if !part.end(done.is_ok()) {
        return done;
    }
    let silenced = silence(reach, mapper, wiring, target);
    under_lock(reach, Function::reset);
    silenced
}

/// The embedder's part of a reset, which ends in any case; if by a panic, it has failed.
struct Part<'a, R: Reach, L: RawLock> {
    reach: &'a R,
    bond: Option<Shared<Bond>>,
    is_open: bool,
    lock: PhantomData<fn() -> L>,
}

impl<R: Reach, L: RawLock> Part<'_, R, L> {
    /// It is done, or not. Whether what is left is to be done now.
    fn end(&mut self, is_done: bool) -> bool {
        self.is_open = false;
        if let Some(bond) = &self.bond {
            bond.end_reset();
        }
        under_lock(self.reach, |function| function.begin_reset(L::current(), is_done)).unwrap_or(false)
    }
}

impl<R: Reach, L: RawLock> Drop for Part<'_, R, L> {
    fn drop(&mut self) {
        if self.is_open {
            self.end(false);
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
    if under_lock(reach, |function| function.is_port()).unwrap_or(false) {
        // No number leads through it any more.
        mapper.program_port(target.seen_at, [0; 3]);
    }
    let (stuck, mut result) = mapper.disable_all(wiring, target.device);
    under_lock(reach, |function| function.unmapped(!stuck));
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
