//! Requester IDs that several devices have: an entry of the IOMMU that outlives one of them.
//!
//! Devices behind one bridge to conventional PCI have its alias in common, and the alias may be the bridge's own ID.
//! When one of them comes, or leaves, the entry is the others' as well: a failed add does not clear it, nor does a
//! removal. Only the last one does.

use alloc::vec::Vec;

use super::Lifecycle;
use super::error::TransitionError;
use super::group::GroupClaim;
use super::hand::Work;
use super::known::Known;
use super::steps::{Plan, has_tables};
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::Platform;
use crate::refcount::{Busy, Holder};
use crate::transition::Transition;

impl<P: Platform> Lifecycle<P> {
    /// Whether every device that shares a requester ID with a member comes along.
    ///
    /// Bridges need not: they only forward. Who enters joins the host's devices. What is broken cannot come along,
    /// and waits for its repair while the others go to quarantine.
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
                    self.check_sharers(work, member.address, id, users - inside, plan.enters)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a device, none of a set, needs the entry of this ID. Allocates nothing.
    pub(super) fn is_needed(&self, id: Sbdf) -> bool {
        let users = self.users(id);
        let mut met = 0;
        let mut next = Some(Sbdf::default()).filter(|_| users > 0);
        while let Some(other) = next.and_then(|from| self.registry().next_device(from)) {
            next = other.successor();
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

    /// Whether a device that shares a requester ID with this one is broken.
    pub(super) fn shares_with_broken(&self, device: Sbdf, known: &Known<P::Lock>) -> bool {
        let shares = |other: &Known<P::Lock>| known.requesters.iter().any(|id| other.requesters.contains(id));
        let mut next =
            Some(Sbdf::default()).filter(|_| known.requesters.iter().any(|id| self.users(*id) > 1));
        while let Some(other) = next.and_then(|from| self.registry().next_device(from)) {
            next = other.successor();
            let Ok(sharer) = self.registry().lock(other) else { continue };
            if other != device && sharer.broken().is_some() && shares(&sharer.known) {
                return true;
            }
        }
        false
    }

    /// Looks at those outside the set that have this ID; so many are counted.
    fn check_sharers(
        &self,
        work: &[Work<'_, P>],
        device: Sbdf,
        id: Sbdf,
        counted: usize,
        enters: bool,
    ) -> Result<(), TransitionError> {
        let mut met = 0;
        // What a broken device may still do under this ID must reach nobody.
        let mut members = work.iter().filter(|member| member.known.requesters.contains(&id));
        let goes_nowhere = members.all(|member| !has_tables(member.to));
        let mut next = Some(Sbdf::default());
        while let Some(other) = next.and_then(|from| self.registry().next_device(from)) {
            next = other.successor();
            if work.iter().any(|member| member.address == other) {
                continue;
            }
            let Ok(sharer) = self.registry().lock(other) else { continue };
            if !sharer.known.requesters.contains(&id) {
                continue;
            }
            met += 1;
            let comes_apart = sharer.known.behind.is_some()
                || if enters {
                    matches!(sharer.owner(), Owner::Host | Owner::Unowned) && !sharer.is_claimed()
                } else {
                    sharer.broken().is_some() && goes_nowhere
                };
            if !comes_apart {
                return Err(TransitionError::Inseparable { device, other });
            }
        }
        if met < counted && !enters {
            // One of them is on its way here, or away.
            return Err(TransitionError::Busy(device, Busy::because(Holder::Transition(Transition::Add))));
        }
        Ok(())
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

    fn shared_by(&self, member: &Work<'_, P>, work: &[Work<'_, P>]) -> Result<Vec<Sbdf>, NoMemory> {
        let mut keeps = Vec::new();
        let is_outside = |other: Sbdf| work.iter().all(|member| member.address != other);
        // What has no owner has no entries.
        let has_entries = |other: Sbdf| {
            let device = self.registry().lock(other).ok()?;
            (device.owner() != Owner::Unowned).then(|| device.known.clone())
        };
        let mut keep = |id: Sbdf| {
            keeps.try_reserve(1)?;
            keeps.push(id);
            Ok::<(), NoMemory>(())
        };
        for id in member.known.requesters.iter().filter(|id| **id != member.address && is_outside(**id)) {
            if has_entries(*id).is_some() {
                keep(*id)?;
            }
        }
        let Some(group) = member.known.group.as_ref().filter(|group| group.len() > 1) else {
            return Ok(keeps);
        };
        for other in group.members()?.into_iter().filter(|other| is_outside(*other)) {
            let Some(known) = has_entries(other) else { continue };
            for id in member.known.requesters.iter().filter(|id| known.requesters.contains(id)) {
                keep(*id)?;
            }
        }
        Ok(keeps)
    }
}
