//! The steps of transitions, and the lists that are the transitions.
//!
//! A step does one thing to one device, in as many items as there are things to do it to (requester IDs,
//! attachments): one item, one hook. Each item can be undone by itself, so a transition that fails at any hook
//! undoes exactly what was done. To write a new transition, write its list.

use super::hand::Work;
use super::registers;
use crate::Sbdf;
use crate::owner::Owner;
use crate::platform::{HookError, Platform, Switch};
use crate::sync::{Site, weakened};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The old owner's attachments end, the last first; its vPCI last of all.
    Unbind,
    /// MSI and bus mastering are switched off.
    Quiesce,
    /// The last of its requests are answered.
    AwaitIdle,
    /// Address translation services are off.
    AtsOff,
    /// What the device has cached of translations is flushed, if address translation services were on.
    AtsFlush,
    /// Address translation services are on again, if they were, after a reset.
    AtsOn,
    /// Its requests reach nobody, under any requester ID.
    Block,
    /// Its IOMMU entries are cleared: it leaves.
    Detach,
    /// Its requests reach the new owner, under every requester ID.
    Attach,
    /// What was changed in the IOMMU is in effect.
    Flush(Direction),
    /// It, and what its reset reaches, is reset.
    Reset,
    /// The new owner sees it.
    Bind,
    /// It is certain that its requests reach nobody.
    ConfirmBlocked,
    /// The host has its MSI-X table.
    PrepareMsix,
    /// The host gives its MSI-X table back.
    ReleaseMsix,
}

/// When something is flushed: after a change, or after a change was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Back,
    Both,
}

use Direction::{Back, Both, Forward};
use Step::{
    AtsFlush, AtsOff, AtsOn, Attach, AwaitIdle, Bind, Block, ConfirmBlocked, Detach, Flush, PrepareMsix,
    Quiesce, ReleaseMsix, Reset, Unbind,
};

/// The steps of a transition, and what follows from them.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing that follows from the steps")]
pub(super) struct Plan {
    pub(super) steps: &'static [Step],
    /// Whether the device has no owner before.
    pub(super) enters: bool,
    /// Whether requests are blocked on the way.
    pub(super) blocks: bool,
    /// Whether devices are reset.
    pub(super) resets: bool,
    /// Whether a device at which a step fails is broken even if all is undone.
    pub(super) failure_breaks: bool,
    /// How many of the steps have an item for each requester ID.
    per_requester: usize,
}

impl Plan {
    const fn of(steps: &'static [Step]) -> Self {
        let mut plan = Self {
            steps,
            enters: false,
            blocks: false,
            resets: false,
            failure_breaks: false,
            per_requester: 0,
        };
        let mut place = 0;
        while place < steps.len() {
            plan.blocks |= matches!(steps[place], Block);
            plan.resets |= matches!(steps[place], Reset);
            plan.per_requester += matches!(steps[place], Block | Detach | Attach) as usize;
            place += 1;
        }
        plan
    }

    /// At least as many as there are items for this device; see [`Step::items`].
    pub(super) fn most_items<P: Platform>(&self, work: &Work<'_, P>) -> usize {
        self.steps.len() + self.per_requester * work.known.requesters.len() + work.bound.len()
    }
}

/// A device becomes the host's: added, or adopted with what was attached to it while it was nobody's.
pub(super) const ENTER: &Plan =
    &Plan { enters: true, ..Plan::of(&[Unbind, Bind, Flush(Back), Attach, Flush(Forward)]) };

/// A device leaves.
pub(super) const LEAVE: &Plan = &Plan {
    failure_breaks: true,
    ..Plan::of(&[Unbind, Quiesce, ReleaseMsix, Flush(Back), Detach, Flush(Forward)])
};

/// A device goes from one owner to another; to quarantine, its requests stay blocked.
pub(super) const MOVE: &Plan = &Plan::of(&[
    Unbind,
    Quiesce,
    AwaitIdle,
    AtsOff,
    AtsFlush,
    Flush(Back),
    Block,
    Flush(Both),
    Reset,
    Attach,
    Flush(Forward),
    Bind,
]);

/// The steps of an assignment. A test-only build swaps the two that matter most.
pub(super) fn assign() -> &'static Plan {
    if weakened(Site::UnbindFirst) { UNBIND_LATE } else { MOVE }
}

/// What must never be: the old owner reaches the device after its DMA goes to the new one.
const UNBIND_LATE: &Plan = &Plan::of(&[
    Quiesce,
    AwaitIdle,
    AtsOff,
    AtsFlush,
    Flush(Back),
    Block,
    Flush(Both),
    Reset,
    Attach,
    Flush(Forward),
    Unbind,
    Bind,
]);

/// A device is hidden: nobody's, untouched.
pub(super) const HIDE: &Plan = &Plan::of(&[Unbind, Flush(Back), Block, Flush(Forward)]);

/// A device is reset and stays with its owner.
pub(super) const RESET: &Plan = &Plan::of(&[Unbind, Quiesce, AwaitIdle, AtsOff, Reset, AtsOn, Bind]);

/// The host has reset a device by itself: what its owner sees is made anew.
pub(super) const AFTER_RESET: &Plan = &Plan::of(&[Unbind, Bind]);

/// A broken device goes to quarantine.
pub(super) const REPAIR: &Plan = &Plan::of(&[ConfirmBlocked, Unbind]);

/// The host gets, or gives back, the MSI-X table.
pub(super) const PREPARE_MSIX: &Plan = &Plan::of(&[PrepareMsix]);
pub(super) const RELEASE_MSIX: &Plan = &Plan::of(&[ReleaseMsix]);

impl Step {
    /// The step's name in errors.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Unbind => "undo attachment",
            Quiesce => "switch MSI and bus mastering off",
            AwaitIdle => "await pending transactions",
            AtsOff => "switch ATS off",
            AtsFlush => "flush ATS",
            AtsOn => "switch ATS on",
            Block => "block DMA",
            Detach => "clear IOMMU entry",
            Attach => "attach to IOMMU tables",
            Flush(_) => "flush IOMMU",
            Reset => "reset",
            Bind => "bind to owner",
            ConfirmBlocked => "confirm that DMA is blocked",
            PrepareMsix => "prepare MSI-X",
            ReleaseMsix => "release MSI-X",
        }
    }

    /// How many items the step has for this device. The same number before and after it was run.
    pub(super) fn items<P: Platform>(self, work: &Work<'_, P>) -> usize {
        match self {
            Unbind => work.bound.len(),
            AtsOff | AtsOn => usize::from(work.known.ats.is_some()),
            // Found by the step before, so that a device without ATS pays nothing.
            AtsFlush => usize::from(work.had_ats),
            // What never had an owner has no entries.
            Detach if work.from == Owner::Unowned && !work.was_broken => 0,
            Block | Detach => work.known.requesters.len(),
            ReleaseMsix => usize::from(work.msix_table),
            // Without an owner to attach to there is nothing to do: blocked it is already.
            Attach if has_tables(work.to) => work.known.requesters.len(),
            Attach => 0,
            Reset => usize::from(work.reset.is_some()),
            _ => 1,
        }
    }

    /// Does one item.
    pub(super) fn run<P: Platform>(
        self,
        platform: &P,
        work: &mut Work<'_, P>,
        item: usize,
    ) -> Result<(), HookError> {
        let (at, requester) = (work.address, work.known.requesters.get(item).copied());
        match (self, requester) {
            (Unbind, _) => work.undo_attachment(item),
            (Quiesce, _) => {
                work.with_config(|known, quiesced| {
                    registers::quiesce(platform, at, known, quiesced);
                });
                Ok(())
            }
            (AwaitIdle, _) => platform.await_idle(at),
            (AtsOff, _) => {
                let mut on = false;
                work.with_config(|known, _| {
                    on = known.ats.is_some_and(|ats| registers::is_ats_on(platform, at, ats));
                });
                work.had_ats = on;
                platform.set_ats(at, Switch::Off)
            }
            (AtsOn, _) => restore_ats(platform, work),
            (Block, Some(requester)) => platform.iommu_block(at, requester),
            (Detach, Some(requester)) if work.keeps.contains(&requester) => Ok(()),
            (Detach, Some(requester)) => platform.iommu_detach(at, requester),
            (Attach, Some(requester)) => {
                // Before the hook: if that panics it is not known what it did.
                work.attached += 1;
                work.reached = true;
                let attached = platform.iommu_attach(at, requester, work.to);
                if attached.is_err() {
                    work.attached -= 1;
                }
                attached
            }
            (AtsFlush | Flush(Forward | Both), _) => platform.iommu_flush(at),
            (Reset, _) => match work.reset {
                Some(scope) => platform.reset(at, scope, work.reset_kind),
                None => Ok(()),
            },
            (Bind, _) => {
                work.view = platform.bind(work.hand, work.to)?;
                Ok(())
            }
            (ConfirmBlocked, _) => {
                if platform.dma_blocked(at)? {
                    Ok(())
                } else {
                    Err(HookError::NOT_BLOCKED)
                }
            }
            (PrepareMsix, _) => map_msix(platform, work, true),
            (ReleaseMsix, _) => map_msix(platform, work, false),
            (Flush(Back), _) | (Block | Detach | Attach, None) => Ok(()),
        }
    }

    /// The requester ID whose entry in the IOMMU an item changes.
    pub(super) fn entry<P: Platform>(self, work: &Work<'_, P>, item: usize) -> Option<Sbdf> {
        let changes = matches!(self, Block | Detach | Attach);
        work.known.requesters.get(item).copied().filter(|_| changes)
    }

    /// Brings back what an entry in the IOMMU was before this step.
    pub(super) fn restore<P: Platform>(
        self,
        platform: &P,
        work: &Work<'_, P>,
        requester: Sbdf,
    ) -> Result<(), HookError> {
        let at = work.address;
        match (self, work.from) {
            (Detach, _) | (Attach, Owner::Unowned) if work.keeps.contains(&requester) => Ok(()),
            (_, Owner::Unowned) => platform.iommu_detach(at, requester),
            (Block | Detach, owner) if has_tables(owner) => platform.iommu_attach(at, requester, owner),
            _ => platform.iommu_block(at, requester),
        }
    }

    /// Undoes one item.
    pub(super) fn undo<P: Platform>(
        self,
        platform: &P,
        work: &mut Work<'_, P>,
        item: usize,
    ) -> Result<(), HookError> {
        let (at, requester) = (work.address, work.known.requesters.get(item).copied());
        match (self, requester) {
            // Whoever had it must not reach the memory of whoever was to have it: it stays quiet, and unseen.
            (Unbind | Quiesce, _) if work.is_exposed() => Ok(()),
            (Unbind, _) => work.redo_attachment(item),
            (Quiesce, _) => {
                let mut before = core::mem::take(&mut work.quiesced);
                work.hand.with_condition(&mut |condition| {
                    if condition.silenced {
                        before.forget_mastering();
                    }
                    registers::resume(platform, at, before);
                });
                Ok(())
            }
            (AtsOff, _) => restore_ats(platform, work),
            (Block | Detach, Some(requester)) => self.restore(platform, work, requester),
            (Attach, Some(requester)) => {
                let undone = self.restore(platform, work, requester);
                if undone.is_ok() {
                    work.attached -= 1;
                }
                undone
            }
            (Flush(Back | Both), _) => {
                // Before the hook, which may panic. One that succeeds covers all that was undone before.
                work.unflushed = true;
                let flushed = platform.iommu_flush(at);
                work.unflushed = flushed.is_err();
                flushed
            }
            (Bind, _) => work.undo_bind(),
            (PrepareMsix, _) => map_msix(platform, work, false),
            (ReleaseMsix, _) => map_msix(platform, work, true),
            // What cannot be undone, and what has nothing to undo: a reset stays, waiting and asking did nothing.
            (Reset | AtsFlush | AtsOn | AwaitIdle | ConfirmBlocked | Flush(Forward), _)
            | (Block | Detach | Attach, None) => Ok(()),
        }
    }

    /// Whether a failure of this step makes its device broken even if all else is undone: how much of an attachment
    /// is undone is not known (R11), unless the attachment knows.
    pub(super) const fn breaks_its_device(self) -> bool {
        matches!(self, Unbind)
    }

    /// Whether an item that panicked is undone as if it had been done: then it is not known what it did.
    pub(super) const fn is_undone_after_panic(self) -> bool {
        matches!(self, AtsOff | Attach | Block | Detach | Quiesce)
    }
}

/// Switches address translation services on if they were, and no invalidation has timed out since.
fn restore_ats<P: Platform>(platform: &P, work: &Work<'_, P>) -> Result<(), HookError> {
    let failed = || work.is(|condition| condition.ats_failed);
    if !work.had_ats || failed() {
        return Ok(());
    }
    platform.set_ats(work.address, Switch::On)?;
    // Whoever reports a time-out marks the device and then switches them off: after this, or the mark is seen here.
    if failed() { platform.set_ats(work.address, Switch::Off) } else { Ok(()) }
}

/// Gives the host the MSI-X table, or takes it back.
fn map_msix<P: Platform>(platform: &P, work: &mut Work<'_, P>, mapped: bool) -> Result<(), HookError> {
    let at = work.address;
    if mapped { platform.msix_prepare(at) } else { platform.msix_release(at) }?;
    work.msix_mapped = Some(mapped);
    Ok(())
}

/// Whether an owner has IOMMU tables of its own.
fn has_tables(owner: Owner) -> bool {
    matches!(owner, Owner::Host | Owner::Guest(_))
}
