//! The table by which an address of a guest finds its BAR: read without a lock by every exit, written seldom.
//!
//! ```text
//! reader                                     writer, under the BAR map's lock
//!   version, even                 (Acquire)    version + 1, odd
//!   entries                                    fence                                (Release)
//!   fence                         (Acquire)    entries
//!   version: still the same?                   version + 2, even                    (Release)
//! ```
//!
//! A reader that finds any entry of a later writing has, by the fences, that writing's odd version, so its last look
//! differs. It does not try for ever: it asks the map itself, under its lock.
//!
//! A vCPU remembers what it found and the version it found it at. As long as the version is the same so is the answer,
//! and then one load of a line that hardly ever changes, and one line of its own, is all that dispatch costs.

use core::ops::RangeInclusive;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::address::{Bus, DevFn, Sbdf, Segment};
use crate::memory::{NoMemory, OnceBox};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, Site, fence, ordering, weakened};

/// Tables double from here.
const FIRST: usize = 8;
/// As many as could ever be needed: BARs of 65,536 functions, cut into pieces.
const TABLES: usize = 24;
/// How often a reader looks again before it asks under the lock.
const TRIES: usize = 3;

/// Where a guest's access goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) addresses: RangeInclusive<u64>,
    /// The device, as the guest sees it.
    pub(super) seen_at: Sbdf,
    pub(super) bar: u8,
    /// Of the first address, in the BAR.
    pub(super) offset: u64,
}

/// What of a device an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The device, as the guest sees it.
    pub(super) seen_at: Sbdf,
    pub(super) bar: u8,
    /// In the BAR.
    pub(super) offset: u64,
}

/// What a lookup found.
pub(super) enum Found {
    Place(Place),
    Nothing,
    /// The table is being written: ask under the lock.
    Unknown,
}

#[derive(Debug, Default)]
struct Entry {
    first: AtomicU64,
    last: AtomicU64,
    offset: AtomicU64,
    /// Segment, bus, device and function, and the BAR.
    target: AtomicU64,
}

/// The published table of one address space.
pub(super) struct Routes {
    version: AtomicU64,
    /// Which of the tables is in use, and how much of it.
    table: AtomicUsize,
    length: AtomicUsize,
    tables: [OnceBox<Box<[Entry]>>; TABLES],
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            table: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            tables: [const { OnceBox::new() }; TABLES],
        }
    }

    /// The route of an address, and the version of the table that has it.
    fn find(&self, address: u64) -> Result<(u64, Option<Known>), BeingWritten> {
        for _ in 0..TRIES {
            // Acquire: pairs with the Release of the writer.
            let version = self.version.load(ordering(Site::RoutesAcquire, Ordering::Acquire));
            if version & 1 != 0 {
                continue;
            }
            let route = self.search(address);
            // Acquire: an entry of a later writing brings that writing's odd version with it.
            if !weakened(Site::RoutesFence) {
                fence(Ordering::Acquire);
            }
            if self.version.load(Ordering::Relaxed) == version || weakened(Site::RoutesLookAgain) {
                return Ok((version, route));
            }
        }
        Err(BeingWritten)
    }

    fn search(&self, address: u64) -> Option<Known> {
        let table = self.tables.get(self.table.load(Ordering::Relaxed))?.get()?;
        let entries = table.get(..self.length.load(Ordering::Relaxed))?;
        let after = entries.partition_point(|entry| entry.last.load(Ordering::Relaxed) < address);
        let entry = entries.get(after)?;
        let (first, offset) = (entry.first.load(Ordering::Relaxed), entry.offset.load(Ordering::Relaxed));
        let (at, bar) = unpack(entry.target.load(Ordering::Relaxed));
        let known = Known {
            first,
            last: entry.last.load(Ordering::Relaxed),
            base: first.wrapping_sub(offset),
            segment: at.segment(),
            bus: at.bus(),
            devfn: at.devfn(),
            bar,
        };
        known.has(address).then_some(known)
    }

    /// Makes room for so many routes, so that publishing them cannot fail. Under the map's lock.
    pub(super) fn reserve(&self, routes: usize) -> Result<(), NoMemory> {
        let place = self.tables.get(table_for(routes)).ok_or(NoMemory)?;
        if place.get().is_some() {
            return Ok(());
        }
        let mut entries = Vec::new();
        let length = FIRST << table_for(routes);
        entries.try_reserve_exact(length).map_err(NoMemory::from)?;
        entries.resize_with(length, Entry::default);
        place.get_or_make(|| entries.into_boxed_slice()).map(|_| ())
    }

    /// Shows these routes, in the order of their addresses, from now on. There is room for them. Under the map's lock.
    pub(super) fn publish(&self, routes: impl Iterator<Item = Route>, count: usize) {
        // The smallest that is there: room for many may have been made at once.
        let tables = self.tables.iter().enumerate().skip(table_for(count));
        let (number, table) = tables
            .map(|(number, table)| (number, table.get()))
            .find(|(_, table)| table.is_some())
            .unwrap_or_default();
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Release: whoever sees what is stored below sees the odd version.
        if !weakened(Site::RoutesOddFence) {
            fence(Ordering::Release);
        }
        let mut length = 0;
        if let Some(table) = table {
            for (entry, route) in table.iter().zip(routes) {
                entry.first.store(*route.addresses.start(), Ordering::Relaxed);
                entry.last.store(*route.addresses.end(), Ordering::Relaxed);
                entry.offset.store(route.offset, Ordering::Relaxed);
                entry.target.store(pack(route.seen_at, route.bar), Ordering::Relaxed);
                length += 1;
            }
        }
        self.table.store(number, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        // Release: pairs with the Acquire of readers.
        self.version.store(version + 2, ordering(Site::RoutesRelease, Ordering::Release));
    }
}

/// The table changed at every look.
struct BeingWritten;

/// A route as a vCPU remembers it: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Known {
    first: u64,
    last: u64,
    /// Where offset 0 of the BAR would be; around the end of the address space if a piece before it is cut away.
    base: u64,
    segment: Segment,
    bus: Bus,
    devfn: DevFn,
    bar: u8,
}

impl Known {
    /// No address is of it.
    const NOTHING: Self = Self {
        first: 1,
        last: 0,
        base: 0,
        segment: Segment::new(0),
        bus: Bus::new(0),
        devfn: DevFn::from_bits(0),
        bar: 0,
    };

    #[inline]
    fn has(&self, address: u64) -> bool {
        self.first <= address && address <= self.last
    }

    #[inline]
    fn place(&self, address: u64) -> Place {
        let seen_at = Sbdf::new(self.segment, self.bus, self.devfn);
        Place { seen_at, bar: self.bar, offset: address.wrapping_sub(self.base) }
    }
}

/// What one vCPU remembers of a table: `ROUTES` (a power of two) routes, each found by the page of `1 << PAGE` bytes that
/// was accessed last. A guest has more BARs than it uses at a time, so this holds what a search would find again.
#[derive(Debug)]
pub(super) struct Remembered<const ROUTES: usize, const PAGE: u32> {
    /// Of the table that all of them are in.
    version: u64,
    routes: [Known; ROUTES],
}

impl<const ROUTES: usize, const PAGE: u32> Remembered<ROUTES, PAGE> {
    pub(super) const fn nothing() -> Self {
        Self { version: 0, routes: [Known::NOTHING; ROUTES] }
    }

    /// What an address is, if that is remembered and still so.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "as a call it returns a structure through memory, which costs more than it"
    )]
    pub(super) fn find(&self, table: &Routes, address: u64) -> Option<Place> {
        let known = &self.routes[Self::at(address)];
        // Acquire: pairs with the Release of the writer, so that what the writer did before is seen by who goes on.
        let version = table.version.load(ordering(Site::RoutesAcquire, Ordering::Acquire));
        let is_still = version == self.version || weakened(Site::RememberedChecksVersion);
        (is_still && known.has(address)).then(|| known.place(address))
    }

    /// Looks an address up, and remembers where it leads.
    #[cold]
    pub(super) fn look_up(&mut self, table: &Routes, address: u64) -> Found {
        let Ok((version, found)) = table.find(address) else { return Found::Unknown };
        let Some(known) = found else { return Found::Nothing };
        if self.version != version {
            *self = Self { version, ..Self::nothing() };
        }
        self.routes[Self::at(address)] = known;
        Found::Place(known.place(address))
    }

    /// Where the route of an address is kept. Multiplied by the golden ratio, pages at any regular distance are spread.
    #[inline]
    fn at(address: u64) -> usize {
        let spread = (address >> PAGE).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper bits are the best spread. Fewer than `ROUTES`, which is a power of two.
        (spread >> 32) as usize >> (32 - ROUTES.ilog2()) & (ROUTES - 1)
    }
}

/// The smallest table with room for so many.
fn table_for(routes: usize) -> usize {
    routes.max(1).div_ceil(FIRST).next_power_of_two().ilog2() as usize
}

fn pack(at: Sbdf, bar: u8) -> u64 {
    u64::from(bar) << 48 | u64::from(at.segment().number()) << 16 | u64::from(at.bdf())
}

fn unpack(target: u64) -> (Sbdf, u8) {
    let [b0, b1, s0, s1, s2, s3, bar, _] = target.to_le_bytes();
    let segment = Segment::new(u32::from_le_bytes([s0, s1, s2, s3]));
    (Sbdf::from_bdf(segment, u16::from_le_bytes([b0, b1])), bar)
}
