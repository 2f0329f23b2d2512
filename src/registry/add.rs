//! A device becomes known.

use core::fmt;

use super::Core;
use super::binding::{Binding, Record};
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::owner::Owner;
use crate::refcount::{Busy, CannotPrepare, Holder, Occupied};
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

pub(super) fn add<D, L: RawLock>(
    core: &Shared<Core<D, L>>,
    address: Sbdf,
    data: D,
) -> Result<(), AddError<D>> {
    let prepared = match core.arena.prepare(address) {
        Ok(prepared) => prepared,
        Err(error) => {
            let reason = match error {
                CannotPrepare::NoMemory => AddRefused::NoMemory(NoMemory),
                CannotPrepare::Occupied(Occupied::Present) => AddRefused::Exists(address),
                CannotPrepare::Occupied(Occupied::Removing | Occupied::Closing) => {
                    AddRefused::Busy(Busy::because(Holder::Transition(Transition::Remove)))
                }
            };
            return Err(AddError { data, reason });
        }
    };
    // The host's list is locked inside the segment's writer lock, here only: a device is found and is listed
    // from one instant on, so whoever removes it or reports it gone finds it on the list.
    let mut host = core.host.members.lock();
    if let Err(no_memory) = host.promise(1) {
        return Err(AddError { data, reason: no_memory.into() });
    }
    let slot = prepared.slot();
    prepared.open(Record { binding: Binding::Host, data });
    host.arrive(slot);
    debug_assert_eq!(core.host.owner, Owner::Host);
    Ok(())
}
