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
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::Platform;

impl<P: Platform> Lifecycle<P> {
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
