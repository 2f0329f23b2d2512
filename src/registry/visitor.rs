//! One thread's way to the devices of a guest.

use super::AccessError;
use super::binding::Record;
use super::domain::Domain;
use super::handle::Locked;
use crate::Sbdf;
use crate::refcount::{Memo, Slot};
use crate::sync::RawLock;

/// One vCPU's way to the devices of its guest: a [`Domain`] that remembers where the last ones were, in places that its
/// user counts.
///
/// Nothing that it remembers is believed: whose a device is, and whether it is there, is looked at under its lock, as
/// in [`Domain::lock`], which answers the same.
pub(crate) struct Visitor<D, L: RawLock, const PLACES: usize> {
    domain: Domain<D, L>,
    memo: Memo<Record<D>, L, PLACES>,
}

impl<D, L: RawLock, const PLACES: usize> Visitor<D, L, PLACES> {
    pub(super) fn new(domain: Domain<D, L>, memo: Memo<Record<D>, L, PLACES>) -> Self {
        Self { domain, memo }
    }

    /// Locked access to the device that the guest sees at this address (R6), as [`Domain::lock`]. It is remembered in
    /// this place.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `Domain::lock`")]
    pub(crate) fn lock(&self, at: Sbdf, place: usize) -> Result<Locked<'_, D, L>, AccessError> {
        let mut slot = match self.memo.get(place) {
            Some(slot) => slot,
            None => self.search(at, place, None)?,
        };
        loop {
            if let Some(locked) = slot.lock()?
                && self.domain.has(&locked, at)
            {
                return Ok(Locked::new(locked));
            }
            slot = self.search(at, place, Some(slot))?;
        }
    }

    /// The place is for something else from now on.
    pub(crate) fn forget(&self, place: usize) {
        self.memo.set(place, None);
    }

    /// Another slot than the one in which the device was not.
    #[cold]
    #[inline(never)]
    fn search(
        &self,
        at: Sbdf,
        place: usize,
        other_than: Option<&Slot<Record<D>, L>>,
    ) -> Result<&Slot<Record<D>, L>, AccessError> {
        let found = self.domain.find(at);
        // If there is none the lock of what was there is not to be taken again: it is somebody else's device.
        self.memo.set(place, found);
        found
            .filter(|slot| !other_than.is_some_and(|other| core::ptr::eq(*slot, other)))
            .ok_or(AccessError::NotFound)
    }
}
