//! Requester IDs that several devices have: an entry of the IOMMU that outlives one of them.
//!
//! Devices behind one bridge to conventional PCI have its alias in common, and the alias may be the bridge's own ID.
//! When one of them comes, or leaves, the entry is the others' as well: a failed add does not clear it, nor does a
//! removal, nor clearing up after one that is gone. Only the last one does.

use alloc::vec::Vec;

use super::Lifecycle;
use super::error::TransitionError;
use super::group::GroupClaim;
use super::hand::Work;
use super::known::Known;
use super::transaction::guarded;
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::{HookError, Platform};

const GROUP_CLAIMED: HookError =
    HookError::new(Errno::EBUSY, "a transition is under way in the group of a device that is gone");

impl<P: Platform> Lifecycle<P> {
    /// Finds the entries that devices outside the set need too. Whoever has an alias claims its group, so that the
    /// answer stays, and nobody else who has it comes or leaves meanwhile.
    pub(super) fn keep_shared(
        &self,
        work: &mut [Work<'_, P>],
    ) -> Result<Vec<GroupClaim<P::Lock>>, TransitionError> {
        let has_alias = work.iter().any(|member| member.known.has_alias(member.address));
        let claims = if has_alias { Self::claim_groups(work)? } else { Vec::new() };
        self.find_shared(work)?;
        Ok(claims)
    }

    pub(super) fn find_shared(&self, work: &mut [Work<'_, P>]) -> Result<(), NoMemory> {
        for place in 0..work.len() {
            work[place].keeps = self.shared_by(&work[place], work)?;
        }
        Ok(())
    }

    /// Whether a device that is there has this requester ID of one that is gone. Needs no memory.
    fn is_shared(&self, gone: Sbdf, known: &Known<P::Lock>, id: Sbdf) -> bool {
        let has_entries = |other: Sbdf, owns: fn(&Known<P::Lock>, Sbdf) -> bool| {
            let device = self.registry().lock(other);
            device.is_ok_and(|device| device.owner() != Owner::Unowned && owns(&device.known, id))
        };
        if id != gone && has_entries(id, |_, _| true) {
            return true;
        }
        let Some(group) = &known.group else { return false };
        let members =
            core::iter::successors(group.member_after(None), |last| group.member_after(Some(*last)));
        members.into_iter().any(|other| has_entries(other, |known, id| known.requesters.contains(&id)))
    }

    /// Clears the entry of a device that is gone, unless another one needs it. Who moves that one, or adds one,
    /// claims the group: then this has to be tried again.
    pub(super) fn clear_entry(&self, gone: Sbdf, known: &Known<P::Lock>, id: Sbdf) -> Result<(), HookError> {
        let group = known.group.as_ref().filter(|_| id != gone);
        let _claim = match group {
            Some(group) => Some(GroupClaim::take(group).ok_or(GROUP_CLAIMED)?),
            None => None,
        };
        if self.is_shared(gone, known, id) {
            return Ok(());
        }
        guarded(|| self.platform().iommu_detach(gone, id))
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
