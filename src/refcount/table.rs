//! The lazy radix table: from an address to the pointer at its leaf, with loads only.
//!
//! Tables are made when the first address below them is, and freed with the whole arena, never earlier: a
//! reader may be anywhere in them without a lock, a count or an epoch. The segment number is 32 bits wide but
//! small in practice, so its part of the tree is as deep as the number is long: segments 0 to f are found at
//! once, `10000` (the first VMD domain) through five nodes of sixteen.

use alloc::boxed::Box;
use core::array;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::chunk::Chunks;
use crate::Sbdf;
use crate::address::{Bus, DevFn, Segment};
use crate::memory::{NoMemory, try_box};
use crate::sync::{AtomicPtr, Guard, Lock, Ordering, RawLock, Site, load_to_write_ptr, ordering};

// The widths of the tree. loom tracks every atomic, so its trees are as small as a model needs.
const DIGIT: u32 = if cfg!(loom) { 2 } else { 16 };
const MORE_DIGITS: usize = if cfg!(loom) { 0 } else { 7 };
const BUSES: usize = if cfg!(loom) { 1 } else { 256 };
const GROUPS: usize = if cfg!(loom) { 2 } else { 8 };
const FUNCTIONS: usize = if cfg!(loom) { 1 } else { 32 };

/// A pointer that is empty until something is published there, once.
pub(super) struct Entry<C> {
    child: AtomicPtr<C>,
    owns: PhantomData<Box<C>>,
}

impl<C> Entry<C> {
    pub(super) fn empty() -> Self {
        Self { child: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    #[inline]
    pub(super) fn get(&self) -> Option<&C> {
        // Acquire: pairs with the Release in `publish`, so that the child is seen as it was made.
        let child = self.child.load(ordering(Site::TableAcquire, Ordering::Acquire));
        // SAFETY: published children are owned by their entry and live as long.
        unsafe { child.as_ref() }
    }

    /// The child, made by `make` if there is none. Only under the lock of the table's writers.
    pub(super) fn get_or_make(&self, make: impl FnOnce() -> C) -> Result<&C, NoMemory> {
        let present = load_to_write_ptr(&self.child, ordering(Site::TableAcquire, Ordering::Acquire));
        // SAFETY: as in `get`.
        match unsafe { present.as_ref() } {
            Some(child) => Ok(child),
            None => {
                let child = Box::into_raw(try_box(make())?);
                self.publish(child);
                // SAFETY: just published, and owned by this entry.
                Ok(unsafe { &*child })
            }
        }
    }

    fn publish(&self, child: *mut C) -> *mut C {
        // Release: pairs with the Acquire in `get`.
        self.child.swap(child, ordering(Site::TableRelease, Ordering::Release))
    }
}

impl<C> Drop for Entry<C> {
    fn drop(&mut self) {
        if let Some(child) = NonNull::new(self.child.load(Ordering::Relaxed)) {
            // SAFETY: owned by this entry; `&mut self` says that no reader is left.
            drop(unsafe { Box::from_raw(child.as_ptr()) });
        }
    }
}

/// A pointer to a slot, which its segment's [`Chunks`] own.
struct Leaf<S>(AtomicPtr<S>);

impl<S> Leaf<S> {
    #[inline]
    fn get(&self) -> Option<&S> {
        // Acquire: pairs with the Release in `publish`, so that the slot is seen as it was made.
        let slot = self.0.load(ordering(Site::TableAcquire, Ordering::Acquire));
        // SAFETY: only slots of the segment's chunks are published, and those live as long as the segment.
        unsafe { slot.as_ref() }
    }

    /// The same for somebody who may publish another one.
    fn get_to_write(&self) -> Option<&S> {
        let slot = load_to_write_ptr(&self.0, ordering(Site::TableAcquire, Ordering::Acquire));
        // SAFETY: as in `get`.
        unsafe { slot.as_ref() }
    }

    fn publish(&self, slot: NonNull<S>) -> Option<NonNull<S>> {
        // Release: pairs with the Acquire in `get`.
        NonNull::new(self.0.swap(slot.as_ptr(), ordering(Site::TableRelease, Ordering::Release)))
    }
}

/// A tree over segment numbers, as deep as the number has digits.
pub(super) struct Digits<V> {
    short: [Entry<V>; DIGIT as usize],
    longer: [Entry<Digit<V>>; MORE_DIGITS],
}

pub(super) enum Digit<V> {
    Inner([Entry<Digit<V>>; DIGIT as usize]),
    Last([Entry<V>; DIGIT as usize]),
}

impl<V> Digits<V> {
    pub(super) fn new() -> Self {
        Self { short: empty(), longer: empty() }
    }

    /// The entry of the tree for numbers of this many digits, and how many digits follow the first.
    fn root(number: u32) -> u32 {
        number.checked_ilog(DIGIT).unwrap_or(0)
    }

    fn digit(number: u32, place: u32) -> usize {
        (number / DIGIT.pow(place) % DIGIT) as usize
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&V> {
        if number < DIGIT { self.short[number as usize].get() } else { self.get_longer(number) }
    }

    #[inline(never)]
    fn get_longer(&self, number: u32) -> Option<&V> {
        let mut place = Self::root(number);
        let mut node = self.longer.get(place as usize - 1)?.get()?;
        loop {
            match node {
                Digit::Inner(nodes) => node = nodes[Self::digit(number, place)].get()?,
                Digit::Last(values) => return values[Self::digit(number, place)].get(),
            }
            place -= 1;
        }
    }

    pub(super) fn get_or_make(&self, number: u32, make: impl FnOnce() -> V) -> Result<&V, NoMemory> {
        if number < DIGIT {
            return self.short[number as usize].get_or_make(make);
        }
        let mut place = Self::root(number);
        let mut entry = self.longer.get(place as usize - 1).ok_or(NoMemory)?;
        loop {
            let level = place;
            let new = || if level == 0 { Digit::Last(empty()) } else { Digit::Inner(empty()) };
            match entry.get_or_make(new)? {
                Digit::Inner(nodes) => entry = &nodes[Self::digit(number, place)],
                Digit::Last(values) => return values[Self::digit(number, place)].get_or_make(make),
            }
            place -= 1;
        }
    }

    /// The first value at `from` or after it.
    pub(super) fn next(&self, from: u32) -> Option<&V> {
        let short = self.short.iter().skip(from as usize).find_map(Entry::get);
        short.or_else(|| {
            self.longer.iter().zip(1..).skip(Self::root(from).saturating_sub(1) as usize).find_map(
                |(entry, place)| {
                    let from = if Self::root(from) == place { from } else { 0 };
                    entry.get()?.next(from, place)
                },
            )
        })
    }
}

impl<V> Digit<V> {
    fn next(&self, from: u32, place: u32) -> Option<&V> {
        let first = Digits::<V>::digit(from, place);
        match self {
            Self::Last(values) => values.iter().skip(first).find_map(Entry::get),
            Self::Inner(nodes) => nodes.iter().enumerate().skip(first).find_map(|(digit, node)| {
                // Only the first digit's subtree is entered in its middle.
                let from = if digit == first { from } else { 0 };
                node.get()?.next(from, place - 1)
            }),
        }
    }
}

fn empty<C, const N: usize>() -> [Entry<C>; N] {
    array::from_fn(|_| Entry::empty())
}

/// One segment's tables and its writer lock.
pub(super) struct SegmentTable<S, L> {
    number: Segment,
    /// The writer lock of the segment: who changes which slots are live holds it. Lookups never do.
    slots: Lock<Chunks<S>, L>,
    buses: Apart<[Entry<BusTable<S>>; BUSES]>,
}

/// What lookups read, on cache lines that nothing else writes: a neighbour that is added or removed takes
/// locks and counts shares, and must not take these lines from the readers.
#[cfg_attr(not(loom), repr(align(64)))]
pub(super) struct Apart<T>(pub(super) T);

/// A bus, one cache line: the bus tables of a full segment fit the first-level cache, so that a lookup misses
/// at the leaf and the slot only.
#[cfg_attr(not(loom), repr(align(64)))]
struct BusTable<S>([Entry<GroupTable<S>>; GROUPS]);
/// Four devices of eight functions.
#[cfg_attr(not(loom), repr(align(64)))]
struct GroupTable<S>([Leaf<S>; FUNCTIONS]);

impl<S> GroupTable<S> {
    fn new() -> Self {
        Self(array::from_fn(|_| Leaf(AtomicPtr::new(ptr::null_mut()))))
    }
}

/// Which group of its bus a function is in, and its place there.
#[inline]
fn split(devfn: DevFn) -> (usize, usize) {
    // loom's buses have two devices of one function; what follows that function is in the next device.
    let number = usize::from(if cfg!(loom) { devfn.bits().div_ceil(8) } else { devfn.bits() });
    (number / FUNCTIONS, number % FUNCTIONS)
}

impl<S, L: RawLock> SegmentTable<S, L> {
    fn new(number: Segment) -> Self {
        Self { number, slots: Lock::new(Chunks::new()), buses: Apart(empty()) }
    }

    #[inline]
    fn leaf(&self, bus: Bus, devfn: DevFn) -> Option<&Leaf<S>> {
        let (group, function) = split(devfn);
        let groups = self.buses.0.get(usize::from(bus.number()))?.get()?;
        groups.0.get(group)?.get()?.0.get(function)
    }

    fn first(&self, from: Sbdf) -> Option<&S> {
        let first_bus = usize::from(from.bus().number());
        let (first_group, first_function) = split(from.devfn());
        self.buses.0.iter().enumerate().skip(first_bus).find_map(|(bus, groups)| {
            // Only the first bus, and its first group, are entered in their middle.
            let first_group = if bus == first_bus { first_group } else { 0 };
            groups.get()?.0.iter().enumerate().skip(first_group).find_map(|(group, functions)| {
                let within = bus == first_bus && group == first_group;
                let first = if within { first_function } else { 0 };
                functions.get()?.0.iter().skip(first).find_map(Leaf::get)
            })
        })
    }

    /// Takes the writer lock, and makes the tables down to this address.
    pub(super) fn write(&self, address: Sbdf) -> Result<WriteAt<'_, S, L>, NoMemory> {
        let slots = self.slots.lock();
        let bus = self.buses.0.get(usize::from(address.bus().number())).ok_or(NoMemory)?;
        let (group, function) = split(address.devfn());
        let groups = bus.get_or_make(|| BusTable(empty()))?;
        let functions = groups.0.get(group).ok_or(NoMemory)?.get_or_make(GroupTable::new)?;
        let leaf = functions.0.get(function).ok_or(NoMemory)?;
        Ok(WriteAt { leaf, slots })
    }
}

/// One leaf, under the writer lock of its segment.
pub(super) struct WriteAt<'a, S, L: RawLock> {
    leaf: &'a Leaf<S>,
    slots: Guard<'a, Chunks<S>, L>,
}

impl<'a, S, L: RawLock> WriteAt<'a, S, L> {
    pub(super) fn current(&self) -> Option<&'a S> {
        self.leaf.get_to_write()
    }

    /// Publishes another slot at the leaf, either one that stood there before and that `fits`, or a new one.
    /// The present one is kept for later.
    pub(super) fn swing(
        &mut self,
        fits: impl Fn(&S) -> bool,
        make: impl FnOnce() -> S,
    ) -> Result<&'a S, NoMemory> {
        self.slots.reserve_former()?;
        let slot = match self.slots.take_former(fits) {
            Some(former) => former,
            None => self.slots.make(make)?,
        };
        if let Some(present) = self.leaf.publish(slot) {
            // SAFETY: what stands at a leaf of this segment was made by its chunks.
            unsafe { self.slots.keep_former(present) };
        }
        // SAFETY: the chunks keep their slots as long as the table, which `'a` does not outlive.
        Ok(unsafe { slot.as_ref() })
    }
}

/// The tables of all segments.
pub(super) struct Table<S, L> {
    /// Segment 0, where nearly every device is, without a pointer to follow.
    first: SegmentTable<S, L>,
    others: Apart<Digits<SegmentTable<S, L>>>,
    grow: Lock<(), L>,
}

impl<S, L: RawLock> Table<S, L> {
    pub(super) fn new() -> Self {
        Self { first: SegmentTable::new(Segment::new(0)), others: Apart(Digits::new()), grow: Lock::new(()) }
    }

    #[inline(always)]
    pub(super) fn find(&self, address: Sbdf) -> Option<&S> {
        self.segment(address.segment())?.leaf(address.bus(), address.devfn())?.get()
    }

    #[inline]
    fn segment(&self, segment: Segment) -> Option<&SegmentTable<S, L>> {
        if segment.number() == 0 { Some(&self.first) } else { self.others.0.get(segment.number()) }
    }

    pub(super) fn segment_or_make(&self, segment: Segment) -> Result<&SegmentTable<S, L>, NoMemory> {
        if let Some(table) = self.segment(segment) {
            return Ok(table);
        }
        let _grow = self.grow.lock();
        self.others.0.get_or_make(segment.number(), || SegmentTable::new(segment))
    }

    /// The first leaf at this address or after it.
    pub(super) fn first_from(&self, from: Sbdf) -> Option<&S> {
        let mut from = from;
        let mut segment = self.segment(from.segment()).or_else(|| self.next_segment(from.segment()))?;
        loop {
            if segment.number != from.segment() {
                from = Sbdf::from_bdf(segment.number, 0);
            }
            if let Some(leaf) = segment.first(from) {
                return Some(leaf);
            }
            segment = self.next_segment(segment.number)?;
        }
    }

    fn next_segment(&self, after: Segment) -> Option<&SegmentTable<S, L>> {
        self.others.0.next(after.number().checked_add(1)?)
    }
}

#[cfg(all(test, not(loom), feature = "std"))]
mod tests {
    use super::*;
    use crate::sync::DefaultLock;

    fn table(addresses: &[Sbdf]) -> Table<Sbdf, DefaultLock> {
        let table = Table::new();
        for address in addresses {
            let segment = table.segment_or_make(address.segment()).unwrap();
            segment.write(*address).unwrap().swing(|_| false, || *address).unwrap();
        }
        table
    }

    fn everything(table: &Table<Sbdf, DefaultLock>) -> Vec<Sbdf> {
        let mut all = Vec::new();
        let mut from = Some(Sbdf::default());
        while let Some(found) = from.and_then(|from| table.first_from(from)) {
            all.push(*found);
            from = found.successor();
        }
        all
    }

    #[test]
    fn segments_of_every_length_are_found_and_walked_in_order() {
        let mut numbers: Vec<u32> =
            (0..32).flat_map(|bit| [1 << bit, (1 << bit) - 1, u32::MAX >> bit]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let addresses: Vec<_> = numbers
            .iter()
            .flat_map(|number| {
                [0, 0x1f, 0x8000, 0xffff].map(|bdf| Sbdf::from_bdf(Segment::new(*number), bdf))
            })
            .collect();
        let table = table(&addresses);
        for address in &addresses {
            assert_eq!(table.find(*address), Some(address));
            assert_eq!(table.find(address.with_devfn(DevFn::from_bits(0x55))), None);
        }
        assert_eq!(everything(&table), addresses);
    }

    #[test]
    fn every_address_of_a_segment_is_told_from_every_other() {
        let addresses: Vec<_> = (0..=u16::MAX).map(|bdf| Sbdf::from_bdf(Segment::new(0), bdf)).collect();
        let table = table(&addresses);
        assert!(addresses.iter().all(|address| table.find(*address) == Some(address)));
        assert_eq!(everything(&table), addresses);
    }
}
