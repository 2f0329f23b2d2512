//! The transaction: steps, one hook at a time, and the undo of exactly those that were done.
//!
//! ```text
//!            member 0        member 1        ...
//! step 0    item 0, 1, 2    item 0          ...      the order of doing
//! step 1    item 0          item 0, 1       ...      the reverse is the order of undoing
//! ```
//!
//! Steps run over the whole set before the next one begins: no device of a set is reset before all of them are
//! quiet and blocked. Nothing here allocates once the first hook has run: room for every error an undo can have is
//! made before.

use alloc::vec::Vec;

use super::error::{Failure, TransitionError, UndoError};
use super::hand::Work;
use super::steps::{Plan, Step};
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::platform::{HookError, Platform};
use crate::registry::{Journey, with_room};
use crate::sync::{Site, weakened};

/// One transaction over one set.
pub(super) struct Transaction<'t, 'a, P: Platform> {
    platform: &'t P,
    plan: &'static Plan,
    pub(super) work: &'t mut [Work<'a, P>],
    /// The item that comes next.
    at: At,
    /// The item that comes next is being done; also after its hook has panicked.
    is_doing: bool,
    /// What is being undone; also after its hook has panicked.
    undoing: Option<(Step, Option<Sbdf>, Sbdf)>,
    /// Room for the errors of an undo.
    errors: Vec<UndoError>,
}

/// A place in the table of steps, members and items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    step: usize,
    member: usize,
    item: usize,
}

/// Why it stopped.
enum Stopped {
    /// The device of the next item was reported gone.
    Gone,
    /// The item failed.
    Failed(HookError),
}

impl From<HookError> for Stopped {
    fn from(error: HookError) -> Self {
        Self::Failed(error)
    }
}

impl<'t, 'a, P: Platform> Transaction<'t, 'a, P> {
    /// Everything that is needed to the end, or nothing.
    pub(super) fn new(
        platform: &'t P,
        plan: &'static Plan,
        work: &'t mut [Work<'a, P>],
    ) -> Result<Self, NoMemory> {
        let items = work.iter().map(|member| plan.most_items(member)).sum();
        Ok(Self {
            platform,
            plan,
            errors: with_room(items)?,
            work,
            at: At::default(),
            is_doing: false,
            undoing: None,
        })
    }

    /// Runs all steps, and then what must hold at the end; undoes them if something fails, or panics and nobody catches
    /// it.
    pub(super) fn run_or_undo(
        &mut self,
        check: impl FnOnce() -> Result<(), TransitionError>,
    ) -> Result<(), TransitionError> {
        struct Undo<'u, 't, 'a, P: Platform>(&'u mut Transaction<'t, 'a, P>);

        impl<P: Platform> Drop for Undo<'_, '_, '_, P> {
            fn drop(&mut self) {
                self.0.roll_back();
            }
        }

        let undo = Undo(self);
        match undo.0.run().and_then(|()| check()) {
            Ok(()) => {
                core::mem::forget(undo);
                Ok(())
            }
            Err(error) => {
                drop(undo);
                Err(self.explain(error))
            }
        }
    }

    /// Runs all steps.
    pub(super) fn run(&mut self) -> Result<(), TransitionError> {
        // One guard for all hooks, not one for each: where it was when a hook panicked is in `at`.
        let Err(stopped) = caught(|| self.advance()) else { return Ok(()) };
        let (Some(step), Some(work)) = (self.plan.steps.get(self.at.step), self.work.get_mut(self.at.member))
        else {
            unreachable!("what stopped is an item of a step")
        };
        match stopped {
            Stopped::Gone => Err(TransitionError::Gone(work.address)),
            Stopped::Failed(error) => {
                if step.breaks_its_device() && !work.is_intact || self.plan.failure_breaks {
                    work.broken = Some(error);
                }
                let (device, step) = (work.address, step.name());
                Err(TransitionError::Failed(Failure { device, step, error, undo: Vec::new() }))
            }
        }
    }

    /// Runs all items, or those before one that fails: then `at` is there.
    fn advance(&mut self) -> Result<(), Stopped> {
        for (place, step) in self.plan.steps.iter().enumerate() {
            for (member, work) in self.work.iter_mut().enumerate() {
                for item in 0..step.items(work) {
                    self.at = At { step: place, member, item };
                    if work.hand.is_gone() && !weakened(Site::StepChecksGone) {
                        return Err(Stopped::Gone);
                    }
                    self.is_doing = true;
                    let done = step.run(self.platform, work, item);
                    self.is_doing = false;
                    done?;
                }
            }
        }
        self.at = At { step: self.plan.steps.len(), member: 0, item: 0 };
        Ok(())
    }

    /// Undoes what was run, in reverse. Errors are kept, their devices are broken, and the rest is undone all the
    /// same. What is gone is left alone, but for entries of the IOMMU that others have as well.
    pub(super) fn roll_back(&mut self) {
        struct GoOn<'u, 't, 'a, P: Platform>(&'u mut Transaction<'t, 'a, P>);

        impl<P: Platform> Drop for GoOn<'_, '_, '_, P> {
            fn drop(&mut self) {
                // Nothing is left, unless a panic has left it.
                self.0.undo_the_rest();
            }
        }

        GoOn(self).0.undo_the_rest();
    }

    fn undo_the_rest(&mut self) {
        if core::mem::take(&mut self.is_doing) {
            self.took_a_panic();
        }
        if let Some((step, entry, device)) = self.undoing.take() {
            self.blame(step, entry, device, HookError::PANICKED);
        }
        while let Some((step, item)) = self.step_back() {
            let Some(work) = self.work.get_mut(self.at.member) else { continue };
            let entry = step.entry(work, item);
            self.undoing = Some((step, entry, work.address));
            let undone = if !work.hand.is_gone() {
                guarded(|| step.undo(self.platform, work, item)).map_err(|error| (work.address, error))
            } else if let Some(entry) = entry {
                self.restore_for_others(step, entry)
            } else {
                Ok(())
            };
            self.undoing = None;
            if let Err((device, error)) = undone {
                self.blame(step, entry, device, error);
            }
        }
    }

    /// The hook of an item panicked: where it is not known what that did, it is undone as if it had been done.
    fn took_a_panic(&mut self) {
        let Some(step) = self.plan.steps.get(self.at.step).copied() else { return };
        self.at.item += usize::from(step.is_undone_after_panic());
        if let Some(work) = self.work.get_mut(self.at.member)
            && (step.breaks_its_device() || self.plan.failure_breaks)
        {
            work.broken.get_or_insert(HookError::PANICKED);
        }
    }

    /// An undo failed: its device is broken, and with it every other one that has the same entry in the IOMMU.
    fn blame(&mut self, step: Step, entry: Option<Sbdf>, device: Sbdf, error: HookError) {
        for work in self.work.iter_mut() {
            let has_entry = entry.is_some_and(|entry| work.known.requesters.contains(&entry));
            if work.address == device || has_entry {
                work.broken.get_or_insert(error);
                // It has the entry that is still attached, whoever's item that was.
                work.attached += usize::from(step == Step::Attach && work.address != device);
            }
        }
        // INVARIANT: there is room for one error an item.
        debug_assert!(self.errors.len() < self.errors.capacity(), "room for every error");
        self.errors.push(UndoError { device, step: step.name(), error });
    }

    /// Undoes a step at an entry of a device that is gone, if another member has it too and is still there.
    fn restore_for_others(&self, step: Step, entry: Sbdf) -> Result<(), (Sbdf, HookError)> {
        let has_it = |work: &&Work<'_, P>| !work.hand.is_gone() && work.known.requesters.contains(&entry);
        let Some(other) = self.work.iter().find(has_it) else { return Ok(()) };
        guarded(|| step.restore(self.platform, other, entry)).map_err(|error| (other.address, error))
    }

    /// The item before the current one; `None` at the beginning.
    fn step_back(&mut self) -> Option<(Step, usize)> {
        loop {
            if let Some(item) = self.at.item.checked_sub(1) {
                self.at.item = item;
                return Some((*self.plan.steps.get(self.at.step)?, item));
            }
            if let Some(member) = self.at.member.checked_sub(1) {
                self.at.member = member;
            } else {
                self.at = At { step: self.at.step.checked_sub(1)?, member: self.work.len(), item: 0 };
                continue;
            }
            let step = *self.plan.steps.get(self.at.step)?;
            self.at.item = self.work.get(self.at.member).map_or(0, |work| step.items(work));
        }
    }

    /// The error of this transaction, with what went wrong in its undo.
    pub(super) fn explain(&mut self, error: TransitionError) -> TransitionError {
        match error {
            TransitionError::Failed(mut failure) => {
                failure.undo = core::mem::take(&mut self.errors);
                TransitionError::Failed(failure)
            }
            error => match self.errors.first().copied() {
                // It was not a hook that failed, but an undo did: that is what the caller must know.
                Some(UndoError { device, step, error }) => {
                    let undo = core::mem::take(&mut self.errors);
                    TransitionError::Failed(Failure { device, step, error, undo })
                }
                None => error,
            },
        }
    }
}

impl<P: Platform> Journey<TransitionError> for Transaction<'_, '_, P> {
    fn has_steps(&self) -> bool {
        true
    }

    fn steps(&mut self) -> Result<(), TransitionError> {
        self.run()
    }

    fn undo(&mut self) {
        self.roll_back();
    }

    fn is_stranded(&self, member: usize) -> bool {
        self.work.get(member).is_some_and(Work::is_stranded)
    }
}

/// Calls a hook; a panic is its failure.
pub(super) fn guarded<R>(hook: impl FnOnce() -> Result<R, HookError>) -> Result<R, HookError> {
    caught(hook)
}

/// Calls hooks; a panic is a failure. Without `std` there is nothing to catch a panic with: it unwinds through the
/// transaction, which undoes itself on the way, or ends the machine. In a model nothing is caught either: there a
/// panic is the model's verdict, or the model checker taking its threads down.
fn caught<R, E: From<HookError>>(hooks: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(hooks))
            .unwrap_or(Err(HookError::PANICKED.into()))
    }
    #[cfg(not(all(feature = "std", not(any(loom, shuttle)))))]
    hooks()
}

/// Asks the platform something that has no error of its own; that it panics is one.
pub(super) fn ask<R>(device: Sbdf, question: impl FnOnce() -> R) -> Result<R, TransitionError> {
    guarded(|| Ok(question())).map_err(|error| TransitionError::failed(device, "ask the platform", error))
}
