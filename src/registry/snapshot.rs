//! Iteration: what an owner had at one moment.

use core::fmt;

use super::binding::Record;
use super::domain::DomainState;
use super::handle::{Handle, Weak};
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::refcount::{Snapshot, SnapshotEntry};
use crate::sync::{RawLock, with_default_lock};

with_default_lock! {
    /// The devices an owner had at one moment, in address order.
    ///
    /// A set that was moved as one is in it whole or not at all (L16). It holds weak handles only: no device is
    /// kept from being removed, and one that was removed since fails to upgrade.
    pub struct Devices<D; L>(Snapshot<Record<D>, L>);
}

impl<D, L: RawLock> Devices<D, L> {
    pub(super) fn of(domain: &DomainState<D, L>) -> Result<Self, NoMemory> {
        domain.members.lock().list.snapshot().map(Self)
    }

    /// How many devices there were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There was none.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The devices, one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Listed<'_, D, L>> {
        (0..self.0.len()).map(|place| {
            let entry = self.0.entry(place);
            // A snapshot does not change, so every place below its length has an entry.
            Listed(entry.unwrap_or_else(|| unreachable!("place {place} of an immutable snapshot")))
        })
    }
}

impl<D, L: RawLock> Clone for Devices<D, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D, L: RawLock> fmt::Debug for Devices<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|device| device.address())).finish()
    }
}

with_default_lock! {
    /// One device of [`Devices`]: a weak handle that borrows the snapshot.
    pub struct Listed<'a, D; L>(SnapshotEntry<'a, Record<D>, L>);
}

impl<D, L: RawLock> Listed<'_, D, L> {
    /// The device's address.
    pub fn address(&self) -> Sbdf {
        self.0.address()
    }

    /// A use of the device, if it is still the one that was listed and live.
    pub fn upgrade(&self) -> Option<Handle<D, L>> {
        self.0.upgrade().map(Handle)
    }

    /// A weak handle of its own.
    pub fn to_weak(&self) -> Weak<D, L> {
        Weak(self.0.to_weak())
    }
}

impl<D, L: RawLock> fmt::Debug for Listed<'_, D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listed").field(&format_args!("{}", self.address())).finish()
    }
}
