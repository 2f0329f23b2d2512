//! A set of devices changes its owner: the one path that assign, deassign, quarantine, hide, adopt and repair are.
//!
//! ```text
//! claim every device, in address order    -> the transition's own checks, under each device's lock
//!   claim the groups                      -> is each group viable?
//!     policy, the scope of resets         -> claim whoever a reset would hit as well
//!       room for all that follows
//!         steps, commit or undo           (`transaction`, and the registry's `relocation`)
//!       events, while everything is claimed
//! release
//! ```
//!
//! Whatever fails before the steps has changed nothing; whatever fails later has been undone.

use alloc::vec::Vec;

use super::Lifecycle;
use super::claims::{Claims, DeviceClaim, Way};
use super::device::{Bound, Condition, Device};
use super::error::TransitionError;
use super::event::Span;
use super::group::{GroupClaim, Key};
use super::hand::{Rest, Work, Works};
use super::scope;
use super::steps::{Plan, Step};
use super::transaction::{Transaction, ask, guarded};
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::{HookError, Platform, Request, ResetScope};
use crate::registry::{Candidate, Member, Traveller, in_order};
use crate::transition::Transition;

/// A device that could be claimed, as a transition's checks see it.
pub(super) type Admission<'a, P> = Candidate<'a, Device<P>, <P as Platform>::Lock>;
/// What is claimed beside the set: its groups, and whom its resets hit.
type Claimed<'a, P> = (Vec<GroupClaim<<P as Platform>::Lock>>, Claims<'a, P>);

/// Where a device goes, or is to stay, or why not.
type Destination = Result<Option<Owner>, TransitionError>;

/// Where a claimed device goes, or why not.
type Redirected = Result<Way, TransitionError>;

/// What distinguishes one change of owner from another.
pub(super) struct Change<'a, P: Platform> {
    pub(super) kind: Transition,
    pub(super) steps: &'static Plan,
    /// Where the set goes. Single members may be sent to quarantine instead.
    pub(super) to: Owner,
    /// Looks at each device under its lock: where it goes, `None` if it stays as it is, or why not.
    pub(super) admit: &'a dyn Fn(&mut Admission<'_, P>, Sbdf) -> Destination,
    /// Where a claimed device goes, with what only the platform knows.
    pub(super) redirect: &'a dyn Fn(&DeviceClaim<P>, Owner) -> Redirected,
    /// What the device is afterwards. Nothing of it may change before.
    pub(super) settle: &'a dyn Fn(&mut Condition, Owner),
}

impl<P: Platform> Lifecycle<P> {
    pub(super) fn transfer(&self, set: &[Member], change: &Change<'_, P>) -> Result<(), TransitionError> {
        let span = Span::begin(self, change.kind);
        let mut claims = Claims::new(self);
        claims.reserve(set.len())?;
        let order;
        let members = if let [_] = set {
            set
        } else {
            order = in_order(set)?;
            &order
        };
        for member in members {
            let at = member.address();
            let claimed = self.registry().claim(at, change.kind, |device| (change.admit)(device, at));
            match claimed {
                Ok(Some((claim, to))) => claims.push(claim, to, member.wanted()),
                Ok(None) => {}
                Err(error) => {
                    span.report(at, None, Some(change.to), Some(&error));
                    return Err(error);
                }
            }
        }
        let refuse = |claims: &Claims<'_, P>, refused: &TransitionError| {
            for Traveller { claim, to, .. } in claims.iter() {
                span.report(claim.address(), Some(claim.owner()), Some(*to), Some(refused));
            }
        };
        let sent = claims.redirect(change.redirect).and_then(|()| self.keep_together(&mut claims, change.to));
        if let Err(refused) = sent {
            refuse(&claims, &refused);
            return Err(refused);
        }
        while !claims.is_empty() {
            let refused = match self.carry_out(&claims, change, &span) {
                Ok(result) => {
                    result?;
                    break;
                }
                Err(refused) => refused,
            };
            // Nothing has happened yet, so what its guest can be rid of in another way goes that way.
            if !self.detour(&mut claims, &refused) {
                refuse(&claims, &refused);
                return Err(refused);
            }
            self.keep_together(&mut claims, change.to)?;
        }
        claims.settle(change.settle);
        Ok(())
    }

    /// Sends to quarantine what a guest gives back and the host cannot have without a reset of somebody else's device.
    fn detour(&self, claims: &mut Claims<'_, P>, refused: &TransitionError) -> bool {
        let TransitionError::OthersInReset { device, other, owner } = *refused else { return false };
        let place = claims.binary_search_by_key(&device, |member| member.claim.address());
        let Some(member) = place.ok().map(|place| &claims[place]) else { return false };
        let may = member.to == Owner::Host && self.may_leave_unreset(member.claim.owner(), other, owner);
        if let (true, Ok(place)) = (may, place) {
            claims.divert(place, Owner::Quarantine);
        }
        may
    }

    /// Whether a guest's device may go to quarantine without the reset that would hit `other`: its requests are blocked
    /// there, so the guest's memory may be freed. What is the same guest's, and whole, can come along instead.
    fn may_leave_unreset(&self, from: Owner, other: Sbdf, others: Owner) -> bool {
        let is_whole = || self.lock(other).is_ok_and(|device| device.broken().is_none());
        from.guest().is_some() && !(others == from && is_whole())
    }

    /// The transition of devices that are claimed; then the claims are released. An error is a refusal: nothing has
    /// happened, and they are still claimed.
    fn carry_out(
        &self,
        claims: &Claims<'_, P>,
        change: &Change<'_, P>,
        span: &Span<'_, P>,
    ) -> Result<Result<(), TransitionError>, TransitionError> {
        let mut work = Works::new();
        work.reserve(claims.len())?;
        for Traveller { claim, to, .. } in claims.iter() {
            let taken = claim.with(|device, _| {
                (device.known.clone(), core::mem::take(&mut device.bound), device.condition.unreset)
            });
            let (known, bound, unreset) = taken?;
            work.push(Work::new(claim, known, bound, claim.owner(), *to));
            if let Some(member) = work.last_mut() {
                member.unreset = unreset;
            }
        }
        let (groups, bystanders) = self.check(&mut work, claims, change)?;
        let mut transaction = Transaction::new(self.platform(), change.steps, &mut work)?;
        let result = self.registry().relocate(claims, change.to, &mut transaction);
        let result = result.map_err(|error| transaction.explain(error));
        for member in &*transaction.work {
            span.ended(member, result.as_ref().err());
        }
        for (member, traveller) in transaction.work.iter_mut().zip(claims.iter()) {
            self.release(&traveller.claim, member, result.is_ok(), change.settle);
        }
        if result.is_ok() {
            bystanders.were_reset();
        }
        drop((bystanders, groups));
        self.stop_endangered(transaction.work);
        Ok(result)
    }

    /// Asks the platform to stop the guests whose memory a broken device may still reach.
    pub(super) fn stop_endangered(&self, work: &[Work<'_, P>]) {
        for member in work {
            if let (Some(guest), Some(because)) = (member.endangered(), member.broken) {
                self.stop_guest(guest, member.address, because);
            }
        }
    }

    pub(super) fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        // A platform that fails here has told its panic hook; there is nobody else to tell.
        let _asked = guarded(|| {
            self.platform().stop_guest(guest, device, because);
            Ok(())
        });
    }

    /// The checks that need more than one device, and the claims that keep their answers true.
    fn check(
        &self,
        work: &mut [Work<'_, P>],
        claims: &Claims<'_, P>,
        change: &Change<'_, P>,
    ) -> Result<Claimed<'_, P>, TransitionError> {
        let groups = Self::claim_groups(work)?;
        self.check_separable(work, change.steps)?;
        self.check_groups(work, &groups, change.steps, change.to)?;
        if change.steps.enters {
            self.find_shared(work)?;
        }
        for member in work.iter() {
            self.check_policy(change.kind, member)?;
        }
        let bystanders = self.plan_resets(work, claims, change)?;
        Ok((groups, bystanders))
    }

    /// Gives a member back: with its new binding, or with what it had.
    pub(super) fn release(
        &self,
        claim: &DeviceClaim<P>,
        work: &mut Work<'_, P>,
        moved: bool,
        settle: &dyn Fn(&mut Condition, Owner),
    ) {
        let (old, view) = (core::mem::take(&mut work.bound), work.view.take());
        work.is_settled = true;
        let (broken, from, to) = (work.broken, work.from, work.to);
        let mut rest = Some((old, view));
        let released = claim.release(|device, gone| {
            if gone {
                return device.depart();
            }
            if let Some((old, view)) = rest.take() {
                if moved {
                    self.forget_faults(work.address);
                    device.condition.silenced = false;
                    device.bound = Bound::seen(view);
                    device.condition.unreset = work.unreset;
                    if from != to {
                        // The question was its old owner's, and its group waits for it in quarantine only.
                        device.condition.asked = false;
                        device.condition.ats_failed = false;
                        device.condition.to_give_back &= to == Owner::Quarantine;
                    }
                    settle(&mut device.condition, to);
                    rest = Some((old, None));
                } else {
                    Rest { bound: old, view, broken }.settle(&mut device.bound, &mut device.condition);
                    device.condition.will_wait = false;
                }
            }
            None
        });
        // What the old binding set up has been undone, and goes without a lock held.
        if let (Ok((Some(mut departure), Some(departed))), Some((old, view))) = (released, rest.take()) {
            departure.bound = old;
            departure.msix_table = work.msix_mapped.unwrap_or(departure.msix_table);
            self.clear_up(departure, departed, view);
        }
    }

    pub(super) fn claim_groups(work: &[Work<'_, P>]) -> Result<Vec<GroupClaim<P::Lock>>, TransitionError> {
        let mut claims: Vec<GroupClaim<P::Lock>> = Vec::new();
        for member in work {
            if let Some(group) = &member.known.group
                && claims.iter().all(|claim| claim.group().key != group.key)
            {
                claims.try_reserve(1).map_err(NoMemory::from)?;
                claims.push(GroupClaim::take(group).ok_or(TransitionError::GroupBusy(member.address))?);
            }
        }
        Ok(claims)
    }

    /// Whether the other members of the groups allow this (see `group`).
    pub(super) fn check_groups(
        &self,
        work: &[Work<'_, P>],
        groups: &[GroupClaim<P::Lock>],
        steps: &Plan,
        to: Owner,
    ) -> Result<(), TransitionError> {
        let enters = steps.enters;
        if !enters && !steps.blocks {
            // Nobody is kept from anything by these steps.
            return Ok(());
        }
        for claim in groups.iter().filter(|claim| claim.group().len() > 1) {
            let mut in_the_way = Vec::new();
            for other in claim.group().members()? {
                if work.binary_search_by_key(&other, |member| member.address).is_ok() {
                    continue;
                }
                // Not there any more, or not yet: then it is in nobody's way.
                let Ok(device) = self.registry().lock(other) else { continue };
                let (owner, known, broken) = (device.owner(), device.known.clone(), device.broken());
                drop(device);
                // Bridges only forward. Who enters joins the host's devices; what is broken cannot come along, and
                // waits for its repair.
                let is_apart = if enters {
                    matches!(owner, Owner::Host | Owner::Unowned)
                } else {
                    broken.is_some() && to.guest().is_none()
                };
                if known.behind.is_some() || is_apart {
                    continue;
                }
                let allowed = match owner {
                    Owner::Guest(_) => to == owner,
                    Owner::Host => !ask(other, || self.platform().has_driver(other))?,
                    _ => true,
                };
                // Whatever a member of a group does in a guest, the host's driver of another one would suffer for it.
                let returns = !enters
                    && owner.guest().is_some()
                    && work.iter().any(|member| member.to == Owner::Host && member.is_of(claim.group()));
                if !allowed && to.guest().is_some() || returns {
                    in_the_way.try_reserve(1).map_err(NoMemory::from)?;
                    in_the_way.push((other, owner));
                }
            }
            if let (false, Key::Platform(group)) = (in_the_way.is_empty(), claim.group().key) {
                return Err(TransitionError::GroupNotViable { group, in_the_way });
            }
        }
        Ok(())
    }

    fn check_policy(&self, transition: Transition, member: &Work<'_, P>) -> Result<(), TransitionError> {
        let request = Request { transition, device: member.address, from: Some(member.from), to: member.to };
        self.permit(&request)
    }

    /// Asks what each member's reset would reach and claims the others there. Of several members that share a
    /// reset, the first is reset.
    fn plan_resets(
        &self,
        work: &mut [Work<'_, P>],
        claims: &Claims<'_, P>,
        change: &Change<'_, P>,
    ) -> Result<Claims<'_, P>, TransitionError> {
        let mut bystanders = Claims::new(self);
        if !change.steps.resets {
            return Ok(bystanders);
        }
        for place in 0..work.len() {
            let device = work[place].address;
            let scope = guarded(|| self.platform().reset_scope(device, change.kind))
                .map_err(|error| TransitionError::failed(device, Step::Reset.name(), error))?;
            // What was due when a guest gave the device back is due now, also where this transition needs none.
            let Some(scope) = scope.or(work[place].unreset.take()) else { continue };
            work[place].unreset = None;
            if scope == ResetScope::Function {
                // It reaches nobody else, however large the set is.
                work[place].reset = Some(scope);
                continue;
            }
            let reaches = |other: Sbdf| scope::reaches(self, device, scope, other);
            if work[..place].iter().any(|earlier| earlier.reset == Some(scope) && reaches(earlier.address)) {
                continue;
            }
            let others_before = bystanders.len();
            match self.claim_reached(device, scope, claims, change.kind, &mut bystanders) {
                Ok(()) => work[place].reset = Some(scope),
                Err(TransitionError::OthersInReset { other, owner, .. })
                    if work[place].to == Owner::Quarantine
                        && self.may_leave_unreset(work[place].from, other, owner) =>
                {
                    bystanders.truncate(others_before);
                    work[place].unreset = Some(scope);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(bystanders)
    }

    /// Claims those that a reset hits beside the set.
    fn claim_reached(
        &self,
        device: Sbdf,
        scope: ResetScope,
        claims: &Claims<'_, P>,
        kind: Transition,
        bystanders: &mut Claims<'_, P>,
    ) -> Result<(), TransitionError> {
        for other in scope::others(self, device, scope) {
            if !claims.have(other) && bystanders.iter().all(|bystander| bystander.claim.address() != other) {
                scope::claim_bystander(self, device, other, kind, bystanders)?;
            }
        }
        Ok(())
    }
}
