//! IOMMU groups: devices that cannot be kept apart, and the claim that keeps two transitions out of one group.
//!
//! Assigning one member is possible only while every other one is with the same owner, in quarantine, without a
//! driver, or a bridge. That check and the move it allows are one step over the group, so a transition claims the
//! group as well as its devices; by try, like every claim.

use alloc::vec::Vec;

use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::platform::GroupId;
use crate::sync::{Lock, RawLock};

/// What makes devices a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The platform says so.
    Platform(GroupId),
    /// They have this requester ID in common, and the platform has no groups.
    Requester(Sbdf),
}

/// One group.
pub(super) struct Group<L: RawLock> {
    pub(super) key: Key,
    state: Lock<State, L>,
}

struct State {
    /// In address order.
    members: Vec<Sbdf>,
    claimed: bool,
}

impl<L: RawLock> Group<L> {
    fn new(key: Key) -> Self {
        Self { key, state: Lock::new(State { members: Vec::new(), claimed: false }) }
    }

    /// The members at this moment, in address order.
    pub(super) fn members(&self) -> Result<Vec<Sbdf>, NoMemory> {
        let state = self.state.lock();
        let mut members = Vec::new();
        members.try_reserve_exact(state.members.len())?;
        members.extend_from_slice(&state.members);
        Ok(members)
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.state.lock().members.len()
    }

    pub(super) fn join(&self, at: Sbdf) -> Result<(), NoMemory> {
        let mut state = self.state.lock();
        if let Err(place) = state.members.binary_search(&at) {
            state.members.try_reserve(1)?;
            state.members.insert(place, at);
        }
        Ok(())
    }

    pub(super) fn leave(&self, at: Sbdf) {
        let mut state = self.state.lock();
        if let Ok(place) = state.members.binary_search(&at) {
            state.members.remove(place);
        }
    }
}

/// A group, kept from every other transition.
pub(super) struct GroupClaim<L: RawLock>(Shared<Group<L>>);

impl<L: RawLock> GroupClaim<L> {
    pub(super) fn take(group: &Shared<Group<L>>) -> Option<Self> {
        let mut state = group.state.lock();
        if core::mem::replace(&mut state.claimed, true) {
            return None;
        }
        drop(state);
        Some(Self(group.clone()))
    }

    pub(super) fn group(&self) -> &Shared<Group<L>> {
        &self.0
    }
}

impl<L: RawLock> Drop for GroupClaim<L> {
    fn drop(&mut self) {
        self.0.state.lock().claimed = false;
    }
}

/// All groups of a machine.
pub(super) struct Groups<L: RawLock>(Lock<Vec<Shared<Group<L>>>, L>);

impl<L: RawLock> Groups<L> {
    pub(super) fn new() -> Self {
        Self(Lock::new(Vec::new()))
    }

    pub(super) fn find_or_make(&self, key: Key) -> Result<Shared<Group<L>>, NoMemory> {
        let mut groups = self.0.lock();
        match groups.binary_search_by_key(&key, |group| group.key) {
            Ok(place) => Ok(groups[place].clone()),
            Err(place) => {
                groups.try_reserve(1)?;
                let group = Shared::try_new(Group::new(key))?;
                groups.insert(place, group.clone());
                Ok(group)
            }
        }
    }
}
