//! Slots that one thread has found, so that it need not search for them again.
//!
//! A search is a chain of loads, each of which waits for the one before it, and an access waits for them all before it
//! has the lock. What is remembered is as good as an entry of a [`Directory`](super::Directory): a hint where to look. The
//! slot's memory is there for as long as the arena is; whose the device is, and whether there is one, is said under
//! its lock.

use core::cell::Cell;
use core::ptr::NonNull;

use super::arena::Arena;
use super::slot::Slot;
use crate::memory::Shared;
use crate::sync::RawLock;

/// What one thread remembers, in places that its user counts. `PLACES` is a power of two.
///
/// # Invariants
///
/// Every pointer is to a slot of `arena`, which the memo keeps.
pub(crate) struct Memo<T, L: RawLock, const PLACES: usize> {
    arena: Shared<Arena<T, L>>,
    places: [Place<T, L>; PLACES],
}

type Place<T, L> = Cell<Option<NonNull<Slot<T, L>>>>;

// SAFETY: a memo is a share of an arena and pointers into it, which say nothing of the thread that made them. (It is not
// `Sync`, because of its cells.)
unsafe impl<T, L: RawLock, const PLACES: usize> Send for Memo<T, L, PLACES> where Shared<Arena<T, L>>: Send {}

impl<T, L: RawLock, const PLACES: usize> Memo<T, L, PLACES> {
    pub(super) fn new(arena: Shared<Arena<T, L>>) -> Self {
        Self { arena, places: [const { Cell::new(None) }; PLACES] }
    }

    /// The slot that was remembered here last.
    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&Slot<T, L>> {
        // SAFETY: by the invariant; slots are freed with their arena only.
        self.place(place).get().map(|slot| unsafe { slot.as_ref() })
    }

    /// Remembers a slot, or that there is none.
    pub(crate) fn set(&self, place: usize, slot: Option<&Slot<T, L>>) {
        assert!(slot.is_none_or(|slot| slot.belongs_to(&self.arena)), "a slot and the registry of its guest");
        // INVARIANT: asserted above.
        self.place(place).set(slot.map(NonNull::from));
    }

    #[inline]
    fn place(&self, place: usize) -> &Place<T, L> {
        &self.places[place & (PLACES - 1)]
    }
}
