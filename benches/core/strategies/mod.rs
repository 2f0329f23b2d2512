//! The same two operations under the locking others use, in the same rounds.
//!
//! Each strategy is written as its authors would write it at its best: no allocation on the way, the fastest
//! lock of its kind, a cheap hash. G is what a user must do to keep a device beyond a lock; L reads a register.

mod arc_swap_map;
mod epoch_radix;
mod global_list;
mod ours;
mod rwlock_map;

use std::hash::{BuildHasherDefault, Hasher};

use criterion::Criterion;
use pcidevs::Sbdf;

use crate::devices::{self, Orders};
use crate::measuring::rounds::{Candidate, Effort, Results};
use crate::measuring::statistics;

/// A way to find devices and to keep them from going.
trait Strategy: Sync {
    const NAME: &'static str;

    fn with(addresses: &[Sbdf]) -> Self;

    /// G: finds the device, keeps it, lets it go. `true` if it was there.
    fn keep(&self, address: Sbdf) -> bool;

    /// L: finds the device and reads a register under its lock.
    fn read(&self, address: Sbdf) -> u32;
}

/// A hash for addresses: one multiplication. The standard library's would cost more than the lookup.
#[derive(Default)]
struct OneMultiplication(u64);

impl Hasher for OneMultiplication {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // hashbrown takes its tag from the highest bits and the place from the lowest, so both must be mixed.
        let product = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

type FastHash = BuildHasherDefault<OneMultiplication>;

/// The key of a map: 32 bits, as Xen's interfaces pack an address. Segments here are small.
fn key(address: Sbdf) -> u32 {
    address.segment().number() << 16 | u32::from(address.bdf())
}

struct All {
    global_list: global_list::GlobalList,
    rwlock_map: rwlock_map::RwLockMap,
    arc_swap_map: arc_swap_map::ArcSwapMap,
    epoch_radix: epoch_radix::EpochRadix,
    ours: ours::Ours,
}

fn keep<'a, S: Strategy, const THREADS: usize>(
    strategy: &'a S,
    orders: &'a [Vec<Sbdf>; THREADS],
) -> Candidate<'a> {
    Candidate::visiting(S::NAME, orders, |address| strategy.keep(*address))
}

fn read<'a, S: Strategy, const THREADS: usize>(
    strategy: &'a S,
    orders: &'a [Vec<Sbdf>; THREADS],
) -> Candidate<'a> {
    Candidate::visiting(S::NAME, orders, |address| strategy.read(*address))
}

impl All {
    fn with(addresses: &[Sbdf]) -> Self {
        Self {
            global_list: Strategy::with(addresses),
            rwlock_map: Strategy::with(addresses),
            arc_swap_map: Strategy::with(addresses),
            epoch_radix: Strategy::with(addresses),
            ours: Strategy::with(addresses),
        }
    }

    fn keep<'a, const THREADS: usize>(&'a self, orders: &'a [Vec<Sbdf>; THREADS]) -> [Candidate<'a>; 5] {
        [
            keep(&self.global_list, orders),
            keep(&self.rwlock_map, orders),
            keep(&self.arc_swap_map, orders),
            keep(&self.epoch_radix, orders),
            keep(&self.ours, orders),
        ]
    }

    fn read<'a, const THREADS: usize>(&'a self, orders: &'a [Vec<Sbdf>; THREADS]) -> [Candidate<'a>; 5] {
        [
            read(&self.global_list, orders),
            read(&self.rwlock_map, orders),
            read(&self.arc_swap_map, orders),
            read(&self.epoch_radix, orders),
            read(&self.ours, orders),
        ]
    }
}

const SIZES: [usize; 2] = [64, 4096];

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let effort = effort.fewer(2);
    for n in SIZES {
        let addresses = devices::addresses(n);
        let (all, orders) = (All::with(&addresses), Orders::over(&addresses));
        let mut measure = |what: &str, candidates: [Candidate<'_>; 5]| {
            results.measure(&format!("{what} n={n}"), &candidates, &effort);
        };
        measure("G", all.keep(&orders.alone));
        measure("L", all.read(&orders.alone));
        if let Some(different) = &orders.different {
            measure("G 2t diff", all.keep(different));
            measure("L 2t diff", all.read(different));
        }
        measure("G 2t same", all.keep(&orders.same));
        measure("L 2t same", all.read(&orders.same));
    }
}

pub(crate) fn statistics(criterion: &mut Criterion) {
    for n in SIZES {
        let addresses = devices::addresses(n);
        let (all, orders) = (All::with(&addresses), Orders::over(&addresses));
        statistics::group(criterion, &format!("strategies, G, n={n}"), &all.keep(&orders.alone));
        statistics::group(criterion, &format!("strategies, L, n={n}"), &all.read(&orders.alone));
    }
}
