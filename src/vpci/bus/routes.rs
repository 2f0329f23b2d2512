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

use core::ops::RangeInclusive;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::address::{Sbdf, Segment};
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
    pub(super) fn find(&self, address: u64) -> Result<(u64, Option<Route>), BeingWritten> {
        for _ in 0..TRIES {
            let Ok(version) = self.version() else { continue };
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

    /// The version, unless the table is being written.
    pub(super) fn version(&self) -> Result<u64, BeingWritten> {
        // Acquire: pairs with the Release of the writer.
        let version = self.version.load(ordering(Site::RoutesAcquire, Ordering::Acquire));
        if version & 1 == 0 { Ok(version) } else { Err(BeingWritten) }
    }

    /// Whether what was found at this version is still so.
    #[inline]
    pub(super) fn is_still(&self, version: u64) -> bool {
        // Acquire: pairs with the Release of the writer, so that what the writer did before is seen by who goes on.
        let now = self.version.load(ordering(Site::RoutesAcquire, Ordering::Acquire));
        now == version || weakened(Site::RememberedChecksVersion)
    }

    fn search(&self, address: u64) -> Option<Route> {
        let table = self.tables.get(self.table.load(Ordering::Relaxed))?.get()?;
        let entries = table.get(..self.length.load(Ordering::Relaxed))?;
        let after = entries.partition_point(|entry| entry.last.load(Ordering::Relaxed) < address);
        let entry = entries.get(after)?;
        let addresses = entry.first.load(Ordering::Relaxed)..=entry.last.load(Ordering::Relaxed);
        let (seen_at, bar) = unpack(entry.target.load(Ordering::Relaxed));
        let offset = entry.offset.load(Ordering::Relaxed);
        addresses.contains(&address).then_some(Route { addresses, seen_at, bar, offset })
    }

    /// Whatever was found is to be looked up again. Under the map's lock.
    pub(super) fn renew(&self) {
        let version = self.version.load(Ordering::Relaxed);
        // Release: pairs with the Acquire of readers.
        self.version.store(version + 2, ordering(Site::RoutesRelease, Ordering::Release));
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
pub(super) struct BeingWritten;

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
