//! A list of devices, for iteration; every device is on one.
//!
//! The list itself is an unordered vector, and each slot knows its place in it, so that joining and leaving are
//! constant-time and allocate nothing once room was reserved. Iteration is by *snapshot*: weak handles in
//! address order, cached until the list changes, shared by all who iterate. A snapshot never keeps a device
//! from being removed.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::arena::Arena;
use super::reference::{Ref, WeakRef};
use super::slot::Slot;
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::sync::RawLock;

/// Slots of one arena, each at the place it has noted. Reached only under the list's lock.
///
/// # Invariants
///
/// Every pointer is to a slot of `arena`, which the list keeps.
pub(crate) struct List<T, L: RawLock> {
    arena: Shared<Arena<T, L>>,
    slots: Vec<NonNull<Slot<T, L>>>,
    snapshot: Option<Snapshot<T, L>>,
}

// SAFETY: lends `&Slot`, which is `Sync` for `T: Send`.
unsafe impl<T: Send, L: RawLock> Send for List<T, L> {}

impl<T, L: RawLock> List<T, L> {
    pub(crate) fn new(arena: Shared<Arena<T, L>>) -> Self {
        Self { arena, slots: Vec::new(), snapshot: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Makes room, so that `more` calls of [`push`](Self::push) cannot fail.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        Ok(self.slots.try_reserve(more)?)
    }

    /// The slot joins. Room must have been reserved.
    pub(crate) fn push(&mut self, slot: &Slot<T, L>) {
        assert!(slot.belongs_to(&self.arena), "a slot and the registry of its list");
        slot.set_position(self.slots.len());
        // INVARIANT: asserted above.
        self.slots.push(NonNull::from(slot));
        self.snapshot = None;
    }

    /// The slot leaves; `false` if it is not on this list.
    pub(crate) fn remove(&mut self, slot: &Slot<T, L>) -> bool {
        let place = slot.position();
        if self.slots.get(place) != Some(&NonNull::from(slot)) {
            return false;
        }
        self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            // SAFETY: by the invariant.
            unsafe { moved.as_ref() }.set_position(place);
        }
        self.snapshot = None;
        true
    }

    /// Who is on the list at this moment.
    pub(crate) fn snapshot(&mut self) -> Result<Snapshot<T, L>, NoMemory> {
        if let Some(snapshot) = &self.snapshot {
            return Ok(snapshot.clone());
        }
        let mut entries = Vec::new();
        entries.try_reserve_exact(self.slots.len())?;
        // SAFETY: by the invariant.
        entries.extend(self.slots.iter().map(|slot| (*slot, unsafe { slot.as_ref() }.glance().generation())));
        // SAFETY: by the invariant.
        entries.sort_unstable_by_key(|(slot, _)| unsafe { slot.as_ref() }.address());
        let snapshot = Snapshot(Shared::try_new(Entries { arena: self.arena.clone(), entries })?);
        self.snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }
}

/// What a list held at one moment, in address order.
pub(crate) struct Snapshot<T, L: RawLock>(Shared<Entries<T, L>>);

/// # Invariants
///
/// Every pointer is to a slot of `arena`.
struct Entries<T, L: RawLock> {
    arena: Shared<Arena<T, L>>,
    entries: Vec<(NonNull<Slot<T, L>>, u32)>,
}

// SAFETY: lends `&Slot`, which is `Sync` for `T: Send`.
unsafe impl<T: Send, L: RawLock> Send for Entries<T, L> {}
// SAFETY: as above.
unsafe impl<T: Send, L: RawLock> Sync for Entries<T, L> {}

impl<T, L: RawLock> Clone for Snapshot<T, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, L: RawLock> Snapshot<T, L> {
    pub(crate) fn len(&self) -> usize {
        self.0.entries.len()
    }

    pub(crate) fn entry(&self, place: usize) -> Option<SnapshotEntry<'_, T, L>> {
        self.0.entries.get(place).map(|(slot, generation)| SnapshotEntry {
            arena: &self.0.arena,
            // SAFETY: by the invariant; the snapshot keeps the arena.
            slot: unsafe { slot.as_ref() },
            generation: *generation,
        })
    }
}

/// One device of a snapshot: a weak handle that borrows the snapshot's share of the memory.
pub(crate) struct SnapshotEntry<'a, T, L: RawLock> {
    arena: &'a Shared<Arena<T, L>>,
    slot: &'a Slot<T, L>,
    generation: u32,
}

impl<T, L: RawLock> SnapshotEntry<'_, T, L> {
    pub(crate) fn address(&self) -> Sbdf {
        self.slot.address()
    }

    pub(crate) fn upgrade(&self) -> Option<Ref<T, L>> {
        // SAFETY: counted by the upgrade.
        self.slot
            .word
            .upgrade(self.generation)
            .then(|| unsafe { Ref::from_counted(NonNull::from(self.slot)) })
    }

    pub(crate) fn to_weak(&self) -> WeakRef<T, L> {
        WeakRef::new(self.arena.clone(), self.slot, self.generation)
    }
}
