//! How long single reads take while neighbours come and go.
//!
//! As in `churn`, but each read is timed by itself, and the figures are percentiles of the reads alone. The clock is
//! part of every sample: what it takes is in the table, too.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pcidevs::Sbdf;

use super::churn::{Operation, PER_MILLE, Present, orders, share};
use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::{Cell, Visits};
use crate::device::addresses;
use crate::measured::Unit;
use crate::measuring::processors::pin;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;
use crate::trial::{Trial, interleaved};

pub(crate) const TAIL: &str = "single reads";

/// Shares of adds and removes, in thousandths.
pub(crate) const SHARES: [u32; 4] = PER_MILLE;

pub(crate) const PERCENTILES: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// Operations before the first that is timed.
pub(super) const WARM_UP: usize = 4096;

/// The row of the clock.
const CLOCK: &str = "the clock alone";

/// Times of single operations. The room is made before.
pub(super) struct Samples(Vec<u32>);

impl Samples {
    pub(super) fn room_for(samples: usize) -> Self {
        // Touched, so that no page is missing while times are taken.
        let mut room = vec![1; samples];
        room.clear();
        Self(room)
    }

    /// Times one operation, if there is room.
    #[inline]
    pub(super) fn take<R>(&mut self, operation: impl FnOnce() -> R) {
        let start = Instant::now();
        black_box(operation());
        let time = start.elapsed().as_nanos();
        if self.0.len() < self.0.capacity() {
            self.0.push(u32::try_from(time).unwrap_or(u32::MAX));
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }

    pub(super) fn mean(&self) -> f64 {
        self.0.iter().map(|time| f64::from(*time)).sum::<f64>() / self.0.len().max(1) as f64
    }
}

/// The figures of [`PERCENTILES`].
pub(super) fn figures(samples: &mut Samples) -> [f64; 4] {
    samples.0.sort_unstable();
    let last = samples.0.len().saturating_sub(1);
    let at = |per_mille: usize| samples.0.get(last * per_mille / 1000).map_or(0.0, |time| f64::from(*time));
    [at(500), at(990), at(999), at(1000)]
}

/// What the first of the threads sees.
fn first_reader<S: Strategy>(
    strategy: &S,
    all: &[Sbdf],
    orders: &[Vec<Operation>],
    samples: usize,
) -> [f64; 4] {
    let present = Present::all(all);
    let (ready, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start_together = || {
        ready.fetch_add(1, Ordering::Relaxed);
        while ready.load(Ordering::Relaxed) < orders.len() {
            spin_loop();
        }
    };
    let mut taken = Samples::room_for(samples);
    std::thread::scope(|scope| {
        for (thread, order) in orders.iter().enumerate().skip(1) {
            let (present, over, start_together) = (&present, &over, &start_together);
            scope.spawn(move || {
                pin(thread);
                start_together();
                for operation in order.iter().cycle() {
                    black_box(present.perform(strategy, *operation));
                    if over.load(Ordering::Relaxed) > 0 {
                        break;
                    }
                }
            });
        }
        start_together();
        let mut order = orders[0].iter().cycle();
        for operation in order.by_ref().take(WARM_UP) {
            black_box(present.perform(strategy, *operation));
        }
        for operation in order {
            match operation {
                Operation::Read(_) => taken.take(|| present.perform(strategy, *operation)),
                Operation::Toggle(_) => {
                    black_box(present.perform(strategy, *operation));
                }
            }
            if taken.is_full() {
                break;
            }
        }
        over.store(1, Ordering::Relaxed);
    });
    // What has gone comes back, for the next round.
    for operation in orders.iter().flatten() {
        if let Operation::Toggle(at) = operation {
            present.add_if_absent(strategy, *at);
        }
    }
    figures(&mut taken)
}

struct Tails<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    orders: &'a [Vec<Vec<Operation>>],
    samples: usize,
    trials: Vec<Trial<'a>>,
}

impl ForEach for Tails<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let strategy: Arc<S> = filled(self.addresses);
        let (addresses, orders, samples) = (self.addresses, self.orders, self.samples);
        let run = move || {
            let shares = orders.iter();
            shares.flat_map(|orders| first_reader(&*strategy, addresses, orders, samples)).collect()
        };
        self.trials.push(Trial { name: S::NAME, run: Box::new(run) });
    }
}

fn clock(samples: usize) -> Vec<f64> {
    let shares = PER_MILLE.iter();
    let one = |_| {
        let mut taken = Samples::room_for(samples);
        while !taken.is_full() {
            taken.take(|| ());
        }
        figures(&mut taken)
    };
    shares.flat_map(one).collect()
}

pub(super) fn measure(run: &mut Run<'_>) {
    let (n, samples, rounds) = match run.asked.extent {
        Extent::Full => (64, 1 << 17, 15),
        Extent::Quick => (64, 1 << 14, 5),
        Extent::Smoke => (32, 1 << 4, 1),
    };
    let threads = run.processors.min(2);
    let addresses = addresses(n);
    let cell = Cell { threads, visits: Visits::Different };
    let orders: Vec<_> = SHARES.iter().map(|per_mille| orders(cell, &addresses, *per_mille)).collect();
    let clock = Trial { name: CLOCK, run: Box::new(|| clock(samples)) };
    let mut tails =
        Tails { asked: run.asked, addresses: &addresses, orders: &orders, samples, trials: vec![clock] };
    for_each(&mut tails);
    let names: Vec<&str> = tails.trials.iter().map(|trial| trial.name).collect();
    let series = interleaved(&tails.trials, rounds);
    for (name, columns) in names.into_iter().zip(series) {
        let mut columns = columns.into_iter();
        for per_mille in SHARES {
            let title = format!("n = {n}, {cell}, {} adds and removes", share(per_mille));
            for (percentile, series) in PERCENTILES.into_iter().zip(&mut columns) {
                run.measured.record(TAIL, &title, Unit::Nanoseconds, n, (percentile, threads), name, series);
            }
        }
    }
}
