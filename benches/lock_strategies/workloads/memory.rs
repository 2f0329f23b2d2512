//! Bytes asked of the allocator for each device, over the device's own.

use std::mem::size_of;

use pcidevs::Sbdf;
use pcidevs::address::Segment;

use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::device::{Device, addresses};
use crate::measured::{Measured, Unit};
use crate::measuring::allocation::bytes_kept;
use crate::measuring::rounds::Series;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

pub(crate) const MEMORY: &str = "memory";

/// So many rounds of the epochs' collector leave it nothing to do.
const COLLECTIONS: usize = 4096;

struct Counted<'a> {
    asked: &'a Asked,
    measured: &'a mut Measured,
    column: String,
    addresses: Vec<Sbdf>,
}

impl ForEach for Counted<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        // What was put off by strategies measured before is freed now, and not while bytes are counted.
        for _ in 0..COLLECTIONS {
            crossbeam_epoch::pin().flush();
        }
        let (registry, bytes) = bytes_kept(|| filled::<S>(&self.addresses));
        drop(registry);
        let n = self.addresses.len();
        let each = bytes as f64 / n as f64 - size_of::<Device>() as f64;
        let title = "a device, over its own 128 bytes";
        let column = (self.column.as_str(), 1);
        self.measured.record(MEMORY, title, Unit::Bytes, n, column, S::NAME, Series(vec![each]));
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    let counts: &[usize] = match run.asked.extent {
        Extent::Full => &[64, 4096, 65536],
        Extent::Quick => &[64, 4096],
        Extent::Smoke => &[64],
    };
    let mut all: Vec<(String, Vec<Sbdf>)> =
        counts.iter().map(|n| (format!("n = {n}"), addresses(*n))).collect();
    let one_a_bus = (0..=255).map(|bus: u16| Sbdf::from_bdf(Segment::new(0), bus << 8)).collect();
    all.push(("n = 256, one on each bus".to_owned(), one_a_bus));
    for (column, addresses) in all {
        for_each(&mut Counted { asked: run.asked, measured: run.measured, column, addresses });
    }
}
