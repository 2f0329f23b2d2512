//! The arena: all slots of one registry, and the table that finds them.
//!
//! *What frees slot memory, and when.* Nothing frees a slot by itself. The arena goes as a whole, tables and
//! slots together, when the last share of it does. Shares are held by the registry value and its domain
//! handles, by weak handles and snapshots, by tickets, and by every device from its add to its destructor. So
//! a handle that outlives the registry keeps the memory through its device's share, at no cost to get and put.
//!
//! *Which slot a device gets.* One address keeps one slot, whatever comes and goes there, so a remove and
//! re-add writes no leaf. Only when the slot cannot be used, because its device is gone but still held, or
//! because its generations are used up, does the leaf swing to another slot of the same address.

use core::ptr::NonNull;

use super::slot::{ARRIVING, Slot};
use super::table::Table;
use super::word::{LAST_GENERATION, Seen, State};
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::sync::{RawLock, Site, weakened};

/// All slots of one registry. Lives in a [`Shared`] only.
pub(crate) struct Arena<T, L: RawLock> {
    table: Table<Slot<T, L>, L>,
}

/// Why no device can be added at an address.
#[derive(Debug)]
pub(crate) enum Occupied {
    /// A device is there.
    Present,
    /// Its removal has been asked for.
    Removing,
    /// It is closed, its teardown still runs.
    Closing,
    /// It is still being added.
    Arriving,
    /// It is gone, and what could still reach memory by its address is not cleared yet.
    Teardown,
}

/// Why `reserve` gave nothing.
#[derive(Debug)]
pub(crate) enum CannotPrepare {
    Occupied(Occupied),
    NoMemory,
}

impl From<NoMemory> for CannotPrepare {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl<T, L: RawLock> Arena<T, L> {
    pub(crate) fn try_new() -> Result<Shared<Self>, NoMemory> {
        Shared::try_new(Self { table: Table::new() })
    }

    /// The slot of an address, if a device was ever added there. Loads only.
    #[inline]
    pub(crate) fn find(&self, address: Sbdf) -> Option<&Slot<T, L>> {
        self.table.find(address)
    }

    /// Every slot whose device is present, in address order; a walk that sees what comes and goes meanwhile.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Slot<T, L>> {
        self.present_from(Sbdf::default())
    }

    /// The same from an address on.
    pub(crate) fn present_from(&self, from: Sbdf) -> impl Iterator<Item = &Slot<T, L>> {
        let mut from = Some(from);
        core::iter::from_fn(move || {
            let slot = self.table.first_from(from?)?;
            from = slot.address().successor();
            Some(slot)
        })
        .filter(|slot| slot.glance().is_present())
    }
}

impl<T, L: RawLock> Shared<Arena<T, L>> {
    /// Takes the slot for a new device at this address: from now on it is the caller's, and for everyone else there
    /// is nothing. Dropping the reservation leaves nothing behind but empty tables.
    pub(crate) fn reserve(&self, address: Sbdf) -> Result<Reserved<'_, T, L>, CannotPrepare> {
        let mut leaf = self.table.segment_or_make(address.segment())?.write(address)?;
        let new = || Slot::new(address, self.as_ptr());
        let slot = match leaf.current() {
            None => leaf.swing(|_| false, new)?,
            Some(slot) => {
                let seen = slot.word.look(Site::VacantAcquire);
                if let Some(occupied) = slot.occupied_as(seen) {
                    return Err(CannotPrepare::Occupied(occupied));
                }
                match seen.state() {
                    State::Closed if usable(seen) => slot,
                    State::Gone if weakened(Site::GoneTakesAnotherSlot) => slot,
                    _ => {
                        let fits = |slot: &Slot<T, L>| {
                            slot.address() == address && usable(slot.word.look(Site::VacantAcquire))
                        };
                        leaf.swing(fits, new)?
                    }
                }
            }
        };
        slot.set_marks(ARRIVING);
        slot.word.reserve();
        Ok(Reserved { arena: self, slot })
    }
}

impl<T, L: RawLock> Slot<T, L> {
    /// Why no device could be added here at this moment.
    pub(crate) fn occupied(&self) -> Option<Occupied> {
        self.occupied_as(self.word.look(Site::VacantAcquire))
    }

    fn occupied_as(&self, seen: Seen) -> Option<Occupied> {
        match seen.state() {
            State::Live => Some(Occupied::Present),
            State::Removing => Some(Occupied::Removing),
            State::Closed if seen.is_vacant() => None,
            State::Closed if self.marks() & ARRIVING != 0 => Some(Occupied::Arriving),
            State::Closed => Some(Occupied::Closing),
            State::Gone if weakened(Site::ReserveChecksKept) => None,
            State::Gone => self.keeps_address().then_some(Occupied::Teardown),
        }
    }
}

fn usable(seen: Seen) -> bool {
    seen.is_vacant() && seen.generation() < LAST_GENERATION
}

/// A slot that is this caller's to fill.
#[must_use]
pub(crate) struct Reserved<'a, T, L: RawLock> {
    arena: &'a Shared<Arena<T, L>>,
    slot: &'a Slot<T, L>,
}

impl<'a, T, L: RawLock> Reserved<'a, T, L> {
    pub(crate) fn slot(&self) -> &'a Slot<T, L> {
        self.slot
    }

    /// The device is there, live, with its creation reference (R1).
    pub(crate) fn open(self, value: T, marks: u8) {
        let Self { arena, slot } = self;
        core::mem::forget(self);
        // SAFETY: the slot is reserved by this caller alone; whoever locks the device meanwhile finds it closed and
        // does not touch the value.
        unsafe { slot.value.get_mut().deref().write(value) };
        slot.set_marks(marks);
        if !weakened(Site::DeviceHoldsMemory) {
            // The device's own share of the arena; `Slot::destroy` takes it back.
            let _: NonNull<Arena<T, L>> = arena.clone().into_raw();
        }
        slot.word.open();
    }
}

impl<T, L: RawLock> Drop for Reserved<'_, T, L> {
    fn drop(&mut self) {
        self.slot.set_marks(0);
        self.slot.word.vacate();
    }
}
