//! A second way to slots: by the address under which a guest sees them.
//!
//! The same idea as the main table, flatter, since a guest has few buses and each is likely full. An entry is
//! only a hint where to look: the guest owns the device if the device, under its own lock, says so. Entries
//! therefore may appear before a move is committed and disappear after, and no lookup waits for either.

use core::array;
use core::ptr::{self, NonNull};

use super::arena::Arena;
use super::memo::Memo;
use super::slot::Slot;
use super::table::{Apart, Digits, Entry};
use crate::Sbdf;
use crate::address::{DevFn, Segment};
use crate::memory::{NoMemory, Shared};
use crate::sync::{AtomicPtr, Ordering, RawLock, Site, load_to_write_ptr, ordering};

const HALF_BUS: usize = if cfg!(loom) { 1 } else { 16 };
const DEVFNS: usize = if cfg!(loom) { 2 } else { 256 };

/// Guest addresses of one domain. Writers hold the domain's list lock.
///
/// # Invariants
///
/// Every pointer is to a slot of `arena`, which the directory keeps.
pub(crate) struct Directory<T, L: RawLock> {
    arena: Shared<Arena<T, L>>,
    /// Apart from the list and its lock, which every arrival and departure writes.
    first: Apart<SegmentDirectory<Slot<T, L>>>,
    others: Apart<Digits<SegmentDirectory<Slot<T, L>>>>,
}

/// Bus 0, which nearly every guest has and most have only; for the others two steps of four bits each over the bus
/// number, so that a guest pays for those it has.
struct SegmentDirectory<S> {
    number: Segment,
    first_bus: Entry<BusDirectory<S>>,
    buses: [Entry<BusesDirectory<S>>; HALF_BUS],
}
struct BusesDirectory<S>([Entry<BusDirectory<S>>; HALF_BUS]);
struct BusDirectory<S>([AtomicPtr<S>; DEVFNS]);

impl<S> SegmentDirectory<S> {
    fn new(number: Segment) -> Self {
        Self { number, first_bus: Entry::empty(), buses: array::from_fn(|_| Entry::empty()) }
    }

    #[inline]
    fn bus(&self, number: usize) -> Option<&BusDirectory<S>> {
        match number {
            0 => self.first_bus.get(),
            number => self.buses.get(number >> 4)?.get()?.0.get(number & 0xf)?.get(),
        }
    }

    #[inline]
    fn place(&self, address: Sbdf) -> Option<&AtomicPtr<S>> {
        let (bus, place) = split(address);
        self.bus(bus)?.0.get(place)
    }

    fn place_or_make(&self, address: Sbdf) -> Result<&AtomicPtr<S>, NoMemory> {
        let (number, place) = split(address);
        let bus = if number == 0 {
            &self.first_bus
        } else {
            let buses = self.buses.get(number >> 4).ok_or(NoMemory)?;
            let buses = buses.get_or_make(|| BusesDirectory(array::from_fn(|_| Entry::empty())))?;
            buses.0.get(number & 0xf).ok_or(NoMemory)?
        };
        let bus = bus.get_or_make(|| BusDirectory(array::from_fn(|_| AtomicPtr::new(ptr::null_mut()))))?;
        bus.0.get(place).ok_or(NoMemory)
    }
}

impl<S> SegmentDirectory<S> {
    /// The first address at `from` or after it, in this segment, that points at a slot.
    fn first_taken(&self, from: Sbdf) -> Option<Sbdf> {
        let mut next = Some(if from.segment() < self.number { Sbdf::from_bdf(self.number, 0) } else { from });
        while let Some(at) = next.filter(|at| at.segment() == self.number) {
            match self.bus(split(at).0) {
                // Relaxed: the caller looks the address up.
                Some(_) if self.place(at).is_some_and(|slot| !slot.load(Ordering::Relaxed).is_null()) => {
                    return Some(at);
                }
                Some(_) => next = at.successor(),
                // A whole bus without addresses.
                None => next = at.with_devfn(DevFn::from_bits(0xff)).successor(),
            }
        }
        None
    }
}

/// The bus, and the place on it.
#[inline]
fn split(address: Sbdf) -> (usize, usize) {
    // By function, then by device: a guest's devices have function 0 nearly always, and so eight of them share a line.
    let place = address.devfn().bits().rotate_left(5);
    // loom's directories have one bus of two functions: device 0 and device 1.
    let place = if cfg!(loom) { address.device() } else { place };
    (address.bus().number().into(), place.into())
}

impl<T, L: RawLock> Directory<T, L> {
    pub(crate) fn new(arena: Shared<Arena<T, L>>) -> Self {
        Self { arena, first: Apart(SegmentDirectory::new(Segment::new(0))), others: Apart(Digits::new()) }
    }

    #[inline]
    fn segment(&self, address: Sbdf) -> Option<&SegmentDirectory<Slot<T, L>>> {
        match address.segment().number() {
            0 => Some(&self.first.0),
            segment => self.others.0.get(segment),
        }
    }

    /// The first guest address at `from` or after it that points at a slot.
    pub(crate) fn first_taken(&self, from: Sbdf) -> Option<Sbdf> {
        if from.segment().number() == 0
            && let Some(taken) = self.first.0.first_taken(from)
        {
            return Some(taken);
        }
        let mut number = from.segment().number().max(1);
        while let Some(segment) = self.others.0.next(number) {
            if let Some(taken) = segment.first_taken(from) {
                return Some(taken);
            }
            number = segment.number.number().checked_add(1)?;
        }
        None
    }

    /// The slot that a guest address points at.
    #[inline]
    pub(crate) fn find(&self, address: Sbdf) -> Option<&Slot<T, L>> {
        // Acquire: pairs with the Release in `set`.
        let slot =
            self.segment(address)?.place(address)?.load(ordering(Site::TableAcquire, Ordering::Acquire));
        // SAFETY: by the invariant.
        unsafe { slot.as_ref() }
    }

    /// For one thread to remember what it finds.
    pub(crate) fn memo<const PLACES: usize>(&self) -> Memo<T, L, PLACES> {
        Memo::new(self.arena.clone())
    }

    /// The slot that a guest address points at, for a writer.
    pub(crate) fn find_to_write(&self, address: Sbdf) -> Option<&Slot<T, L>> {
        let place = self.segment(address)?.place(address)?;
        // SAFETY: by the invariant.
        unsafe { load_to_write_ptr(place, ordering(Site::TableAcquire, Ordering::Acquire)).as_ref() }
    }

    /// Points a guest address at a slot.
    pub(crate) fn set(&self, address: Sbdf, slot: &Slot<T, L>) -> Result<(), NoMemory> {
        assert!(slot.belongs_to(&self.arena), "a slot and the registry of its guest");
        let segment = match address.segment().number() {
            0 => &self.first.0,
            segment => self.others.0.get_or_make(segment, || SegmentDirectory::new(Segment::new(segment)))?,
        };
        // INVARIANT: asserted above. Release: pairs with the Acquire in `find`.
        let slot = NonNull::from(slot).as_ptr();
        segment.place_or_make(address)?.swap(slot, ordering(Site::TableRelease, Ordering::Release));
        Ok(())
    }

    /// Empties a guest address, if it still points at this slot.
    pub(crate) fn clear(&self, address: Sbdf, slot: &Slot<T, L>) {
        if self.find_to_write(address).is_some_and(|found| ptr::eq(found, slot))
            && let Some(place) = self.segment(address).and_then(|segment| segment.place(address))
        {
            // Relaxed: nothing is published by an empty place.
            place.swap(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
