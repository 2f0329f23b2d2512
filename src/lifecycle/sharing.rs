//! Requester IDs that several devices have: an entry of the IOMMU that outlives one of them.
//!
//! Devices behind one bridge to conventional PCI have its alias in common, and the alias may be the bridge's own ID.
//! When one of them comes, or leaves, the entry is the others' as well: a failed add does not clear it, nor does a
//! removal. Only the last one does.

use alloc::vec::Vec;

use super::claims::Claims;
use super::error::TransitionError;
use super::group::GroupClaim;
use super::hand::Work;
use super::known::Known;
use super::steps::Plan;
use super::{Lifecycle, LockedDevice};
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::owner::Owner;
use crate::platform::Platform;
use crate::refcount::{Busy, Holder};
use crate::transition::Transition;

impl<P: Platform> Lifecycle<P> {
    /// Whether every device that shares a requester ID with a member comes along.
    ///
    /// Bridges need not: they only forward. Who goes to the host joins the devices that are there. Who goes where
    /// nothing reaches memory joins those that are there, and leaves a broken one behind, which cannot come along.
    pub(super) fn check_separable(&self, work: &[Work<'_, P>], plan: &Plan) -> Result<(), TransitionError> {
        if !plan.enters && !plan.blocks {
            // These steps leave every requester ID as it is.
            return Ok(());
        }
        for member in work {
            for id in member.known.requesters.iter().copied() {
                let users = self.users(id);
                if users <= 1 {
                    continue;
                }
                let inside = work.iter().filter(|other| other.known.requesters.contains(&id)).count();
                if users > inside {
                    self.check_sharers(work, member, id, users - inside, plan.enters)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a device, none of a set, needs the entry of this ID. Allocates nothing.
    pub(super) fn is_needed(&self, id: Sbdf) -> bool {
        let users = self.users(id);
        let mut met = 0;
        if users == 0 {
            return false;
        }
        for other in self.registry().addresses_from(Sbdf::default()) {
            let Ok(sharer) = self.registry().lock(other) else { continue };
            if sharer.known.requesters.contains(&id) {
                // What has no owner has no entries.
                if sharer.owner() != Owner::Unowned {
                    return true;
                }
                met += 1;
            }
        }
        // Or one that is on its way here.
        met < users
    }

    /// Looks at those outside the set that have this ID; so many are counted.
    fn check_sharers(
        &self,
        work: &[Work<'_, P>],
        member: &Work<'_, P>,
        id: Sbdf,
        counted: usize,
        enters: bool,
    ) -> Result<(), TransitionError> {
        let mut met = 0;
        for other in self.registry().addresses_from(Sbdf::default()) {
            if work.iter().any(|member| member.address == other) {
                continue;
            }
            let Ok(sharer) = self.registry().lock(other) else { continue };
            if !sharer.known.requesters.contains(&id) {
                continue;
            }
            met += 1;
            let comes_apart = match member.to {
                Owner::Host => matches!(sharer.owner(), Owner::Host | Owner::Unowned) && !sharer.is_claimed(),
                Owner::Quarantine | Owner::Hidden => is_blocked(&sharer),
                Owner::Guest(_) | Owner::Unowned => false,
            };
            if sharer.known.behind.is_none() && !comes_apart {
                return Err(TransitionError::Inseparable { device: member.address, other });
            }
        }
        if met < counted && !enters {
            // One of them is on its way here, or away.
            return Err(TransitionError::Busy(
                member.address,
                Busy::because(Holder::Transition(Transition::Add)),
            ));
        }
        Ok(())
    }

    /// Members that share a requester ID go to one place: if one of them is sent to quarantine, all of them are.
    pub(super) fn keep_together(&self, claims: &mut Claims<'_, P>, to: Owner) -> Result<(), TransitionError> {
        if claims.iter().all(|member| member.to == to) {
            return Ok(());
        }
        let mut sharers: Vec<(usize, Shared<Known<P::Lock>>)> = Vec::new();
        for (place, member) in claims.iter().enumerate() {
            let known = member.claim.with(|device, _| device.known.clone())?;
            if known.requesters.iter().any(|id| self.users(*id) > 1) {
                sharers.try_reserve(1).map_err(NoMemory::from)?;
                sharers.push((place, known));
            }
        }
        let diverted = |claims: &Claims<'_, P>, place: usize| claims[place].to != to;
        loop {
            let follows = |(place, known): &&(usize, Shared<Known<P::Lock>>)| {
                let shares = |(_, other): &(usize, Shared<Known<P::Lock>>)| known.shares_requester(other);
                let leads = |other: &(usize, _)| diverted(claims, other.0) && shares(other);
                !diverted(claims, *place) && sharers.iter().any(leads)
            };
            let Some((place, _)) = sharers.iter().find(follows) else { return Ok(()) };
            claims.divert(*place, Owner::Quarantine);
        }
    }

    /// Whether somebody who shares a requester ID with this device cannot go to the host with it: broken, or kept from
    /// reaching memory.
    pub(super) fn has_blocked_sharer(&self, device: Sbdf, known: &Known<P::Lock>) -> bool {
        if known.requesters.iter().all(|id| self.users(*id) <= 1) {
            return false;
        }
        for other in self.registry().addresses_from(Sbdf::default()) {
            let is_blocked = |sharer: LockedDevice<'_, P>| {
                sharer.known.behind.is_none() && sharer.known.shares_requester(known) && is_blocked(&sharer)
            };
            if other != device && self.lock(other).is_ok_and(is_blocked) {
                return true;
            }
        }
        false
    }

    /// Finds the entries that devices outside the set need too, and claims their groups so that the answer stays.
    pub(super) fn keep_shared(
        &self,
        work: &mut [Work<'_, P>],
    ) -> Result<Vec<GroupClaim<P::Lock>>, TransitionError> {
        if !self.find_shared(work)? {
            return Ok(Vec::new());
        }
        let claims = Self::claim_groups(work)?;
        self.find_shared(work)?;
        Ok(claims)
    }

    /// Whether there are any.
    pub(super) fn find_shared(&self, work: &mut [Work<'_, P>]) -> Result<bool, TransitionError> {
        let mut found = false;
        for place in 0..work.len() {
            let keeps = self.shared_by(&work[place], work)?;
            found |= !keeps.is_empty();
            work[place].keeps = keeps;
        }
        Ok(found)
    }

    fn shared_by(&self, member: &Work<'_, P>, work: &[Work<'_, P>]) -> Result<Vec<Sbdf>, TransitionError> {
        let mut keeps = Vec::new();
        for id in member.known.requesters.iter().copied() {
            let users = self.users(id);
            if users <= 1 {
                continue;
            }
            let inside = work.iter().filter(|member| member.known.requesters.contains(&id)).count();
            let Some(outside) = users.checked_sub(inside).filter(|outside| *outside > 0) else { continue };
            let mut sharers = Sharers { id, met: 0, is_needed: false };
            if let Some(group) = &member.known.group {
                for other in group.members()? {
                    self.meet(&mut sharers, work, other);
                }
            }
            if sharers.met < outside {
                sharers = Sharers { id, met: 0, is_needed: false };
                for other in self.registry().addresses_from(Sbdf::default()) {
                    self.meet(&mut sharers, work, other);
                }
            }
            if sharers.met < outside {
                // One is closed, and may be open again: nobody knows whether it needs the entry.
                return Err(TransitionError::GroupBusy(member.address));
            }
            if sharers.is_needed {
                keeps.try_reserve(1).map_err(NoMemory::from)?;
                keeps.push(id);
            }
        }
        Ok(keeps)
    }

    /// Counts a device among those who share an ID, if it is one of them and none of the set.
    fn meet(&self, sharers: &mut Sharers, work: &[Work<'_, P>], other: Sbdf) {
        if work.iter().any(|member| member.address == other) {
            return;
        }
        let Ok(device) = self.registry().lock(other) else { return };
        if device.known.requesters.contains(&sharers.id) {
            sharers.met += 1;
            // What has no owner has no entries.
            sharers.is_needed |= device.owner() != Owner::Unowned;
        }
    }
}

/// Those outside a set who have a requester ID.
struct Sharers {
    id: Sbdf,
    met: usize,
    is_needed: bool,
}

/// Whether a device reaches no memory, or ought not to.
fn is_blocked<P: Platform>(device: &LockedDevice<'_, P>) -> bool {
    device.broken().is_some() || matches!(device.owner(), Owner::Quarantine | Owner::Hidden)
}
