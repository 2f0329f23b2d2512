//! Resets, and other transitions that leave a device with its owner.

use super::Lifecycle;
use super::claims::{Claims, DeviceTraveller};
use super::device::Condition;
use super::error::TransitionError;
use super::event::Span;
use super::hand::{Work, Works};
use super::scope;
use super::steps::{self, Plan, Step};
use super::transaction::{Transaction, guarded};
use crate::Sbdf;
use crate::owner::Owner;
use crate::platform::{Platform, Request, ResetKind, ResetScope};
use crate::registry::Traveller;
use crate::transition::Transition;

/// What a transition that moves nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebind {
    /// The binding stays; the host has the MSI-X table now, or has not.
    MsixTable(bool),
    /// It ended the binding and made a new one.
    Replace,
}

impl<P: Platform> Lifecycle<P> {
    /// Resets a device and all that its reset reaches. What their owners see of them is made anew.
    ///
    /// `OthersInReset` if it would reach a device of another owner that is not in quarantine.
    pub fn reset(&self, address: Sbdf, kind: ResetKind) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Reset);
        let mut claims = Claims::new(self);
        claims.reserve(1)?;
        let mut bystanders = Claims::new(self);
        let scope = self.plan_reset(address, &mut claims, &mut bystanders);
        let scope = span.refused(address, scope)?;
        let result = self.in_place(&claims, steps::RESET, Rebind::Replace, &span, |member| {
            if member.address == address {
                (member.reset, member.reset_kind) = (Some(scope), Some(kind));
            }
        });
        if result.is_ok() {
            bystanders.were_reset();
        }
        drop(bystanders);
        result
    }

    /// What a reset reaches, all of it claimed: those of the same owner, and those that are in nobody's way.
    fn plan_reset(
        &self,
        address: Sbdf,
        claims: &mut Claims<'_, P>,
        bystanders: &mut Claims<'_, P>,
    ) -> Result<ResetScope, TransitionError> {
        let owner = self.claim_to_reset(address, None, claims)?;
        self.permit_in_place(Transition::Reset, address, owner)?;
        let scope = guarded(|| self.platform().reset_scope(address, Transition::Reset))
            .map_err(|error| TransitionError::failed(address, Step::Reset.name(), error))?;
        let due = self.lock(address).ok().and_then(|device| device.condition.unreset);
        let scope = scope.or(due).unwrap_or(ResetScope::Function);
        for other in scope::others(self, address, scope) {
            let is_same_owners = self.lock(other).is_ok_and(|device| device.owner() == owner);
            let is_bridge = self.lock(other).is_ok_and(|device| device.known.behind.is_some());
            if is_same_owners && !is_bridge {
                claims.reserve(1)?;
                self.claim_to_reset(other, Some(owner), claims)?;
                self.permit_in_place(Transition::Reset, other, owner)?;
            } else {
                scope::claim_bystander(self, address, other, Transition::Reset, bystanders)?;
            }
        }
        Ok(scope)
    }

    /// The host has reset this device by itself: what its owner sees is made anew.
    pub fn report_reset(&self, address: Sbdf, kind: ResetKind) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Reset);
        let mut claims = Claims::new(self);
        claims.reserve(1)?;
        span.refused(address, self.claim_to_reset(address, None, &mut claims))?;
        self.in_place(&claims, steps::AFTER_RESET, Rebind::Replace, &span, |member| {
            member.reset_kind = Some(kind);
        })
    }

    /// Claims a device that is whole, and with `owner` if one is named. There is room for the claim.
    fn claim_to_reset(
        &self,
        address: Sbdf,
        owner: Option<Owner>,
        claims: &mut Claims<'_, P>,
    ) -> Result<Owner, TransitionError> {
        let claimed = self.registry().claim(address, Transition::Reset, |device| {
            let is = device.owner();
            if let Some(because) = device.data().condition.broken {
                return Err(TransitionError::Broken { device: address, because });
            }
            match is {
                Owner::Hidden => Err(TransitionError::Hidden(address)),
                is if owner.is_some_and(|owner| owner != is) => {
                    Err(TransitionError::NotOwned { device: address, owner: is })
                }
                is => Ok(Some(is)),
            }
        })?;
        let (claim, owner) = claimed.ok_or(TransitionError::NotFound(address))?;
        claims.push(claim, owner, None);
        Ok(owner)
    }

    /// Asks the policy about a transition that leaves the device with its owner.
    pub(super) fn permit_in_place(
        &self,
        transition: Transition,
        device: Sbdf,
        owner: Owner,
    ) -> Result<(), TransitionError> {
        self.permit(&Request { transition, device, from: Some(owner), to: owner })
    }

    /// Runs steps over claimed devices that stay where they are.
    pub(super) fn in_place(
        &self,
        claims: &[DeviceTraveller<P>],
        steps: &'static Plan,
        rebind: Rebind,
        span: &Span<'_, P>,
        prepare: impl Fn(&mut Work<'_, P>),
    ) -> Result<(), TransitionError> {
        let mut work = Works::new();
        work.reserve(claims.len())?;
        for Traveller { claim, .. } in claims {
            let taken = claim.with(|device, _| {
                let condition = &device.condition;
                let marks = (condition.msix_table, condition.unreset);
                (device.known.clone(), core::mem::take(&mut device.bound), marks)
            });
            let (known, bound, (msix_table, unreset)) = taken?;
            let mut member = Work::new(claim, known, bound, claim.owner(), claim.owner());
            member.msix_table = msix_table;
            // Whoever makes the binding anew has reset the device, or was told of its reset.
            member.unreset = unreset.filter(|_| rebind != Rebind::Replace);
            prepare(&mut member);
            work.push(member);
        }
        let mut transaction = Transaction::new(self.platform(), steps, &mut work)?;
        let result = transaction.run_or_undo(|| {
            let gone = claims.iter().map(|member| &member.claim).find(|claim| claim.is_gone_by_now());
            gone.map_or(Ok(()), |claim| Err(TransitionError::Gone(claim.address())))
        });
        for member in &*transaction.work {
            span.ended(member, result.as_ref().err());
        }
        let replaced = result.is_ok() && rebind == Rebind::Replace;
        for (member, Traveller { claim, .. }) in transaction.work.iter_mut().zip(claims) {
            if let (Ok(()), Rebind::MsixTable(mapped)) = (&result, rebind) {
                // Not with the lock held: see `release`, which fails in no other way.
                let _marked = claim.with(|device, _| device.condition.msix_table = mapped);
            }
            self.release(claim, member, replaced, &|_: &mut Condition, _| {});
        }
        self.stop_endangered(transaction.work);
        result
    }
}
