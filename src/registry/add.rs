//! A device becomes known.

use core::fmt;

use super::Core;
use super::binding::{Binding, Record};
use super::domain::DomainState;
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::refcount::{Busy, CannotPrepare, Holder, KEEPS_ADDRESS, Occupied, Reserved};
use crate::sync::RawLock;
use crate::transition::Transition;

/// A device was not added; its data comes back.
pub struct AddError<D> {
    /// What was to be added.
    pub data: D,
    /// Why it was not.
    pub reason: AddRefused,
}

/// Why a device was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddRefused {
    /// A device is known at this address. Remove it, or report it gone, before another one comes (EEXIST).
    #[error("a device is known at {0}: remove it or report it gone first")]
    Exists(Sbdf),
    /// The device that was there is on its way out; wait for that (EBUSY).
    #[error("the address is not free yet: {0}")]
    Busy(Busy),
    /// Nothing was added (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl<D> fmt::Debug for AddError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for AddError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<D> core::error::Error for AddError<D> {}

/// An address that is being filled: nobody else finds a device there, and none can come. Dropping it leaves
/// nothing behind.
#[must_use]
pub(crate) struct Arriving<'a, D, L: RawLock> {
    list: &'a DomainState<D, L>,
    /// `None` once the device is published.
    reserved: Option<Reserved<'a, Record<D>, L>>,
}

/// What becomes of an address when its device is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// The next device may come.
    Free,
    /// It stays taken until [`Departed::release_address`](super::gone::Departed::release_address).
    Kept,
}

impl<'a, D, L: RawLock> Arriving<'a, D, L> {
    pub(super) fn reserve(
        core: &'a Core<D, L>,
        address: Sbdf,
        list: &'a DomainState<D, L>,
    ) -> Result<Self, AddRefused> {
        let reserved = core.arena.reserve(address).map_err(|error| match error {
            CannotPrepare::NoMemory => AddRefused::NoMemory(NoMemory),
            CannotPrepare::Occupied(Occupied::Present) => AddRefused::Exists(address),
            CannotPrepare::Occupied(occupied) => AddRefused::Busy(Busy::because(match occupied {
                Occupied::Arriving => Holder::Transition(Transition::Add),
                Occupied::Teardown => Holder::DmaTeardown,
                _ => Holder::Transition(Transition::Remove),
            })),
        })?;
        list.members.lock().promise(1)?;
        Ok(Self { list, reserved: Some(reserved) })
    }

    /// The device is known: found and listed from one instant on, so whoever removes it or reports it gone finds
    /// it on the list.
    pub(crate) fn publish(mut self, data: D, afterwards: Afterwards) {
        let marks = if afterwards == Afterwards::Kept { KEEPS_ADDRESS } else { 0 };
        if let Some(reserved) = self.reserved.take() {
            let slot = reserved.slot();
            let binding = Binding::settled(self.list.place(slot.address()));
            let mut members = self.list.members.lock();
            reserved.open(Record { binding, data }, marks);
            members.arrive(slot);
        }
    }
}

impl<D, L: RawLock> Drop for Arriving<'_, D, L> {
    fn drop(&mut self) {
        if self.reserved.is_some() {
            self.list.members.lock().release(1);
        }
    }
}

pub(super) fn add<D, L: RawLock>(core: &Core<D, L>, address: Sbdf, data: D) -> Result<(), AddError<D>> {
    match Arriving::reserve(core, address, &core.host) {
        Ok(arriving) => {
            arriving.publish(data, Afterwards::Free);
            Ok(())
        }
        Err(reason) => Err(AddError { data, reason }),
    }
}

impl AddRefused {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Exists(_) => Errno::EEXIST,
            Self::Busy(_) => Errno::EBUSY,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
