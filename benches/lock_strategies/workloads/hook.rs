//! What readers of other devices see while one device is assigned and released, all the time.
//!
//! Either as fast as it goes, or with the assigning thread inside a hook half of the time: one that takes 20 µs, as an
//! IOMMU flush or a driver may. The mean tells how much of the time a reader is kept waiting, and the longest 0.1 %
//! whether it waits for the hook.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pcidevs::Sbdf;

use super::tail::{Samples, WARM_UP, figures};
use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::Cell;
use crate::device::{REGISTER, addresses};
use crate::measured::Unit;
use crate::measuring::processors::pin;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;
use crate::trial::{Trial, interleaved};

pub(crate) const HOOK: &str = "reads beside transitions";

/// What the other thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Assigns and releases as fast as it goes.
    Storm,
    /// Is inside a hook half of the time.
    Hooks,
}

const SETTINGS: [(Beside, &str); 3] =
    [(Beside::Nothing, "alone"), (Beside::Storm, "beside a storm"), (Beside::Hooks, "beside slow hooks")];

/// How long a hook takes, and how long it is until the next.
const SLOW: Duration = Duration::from_micros(20);

impl Beside {
    fn wait(self) {
        let start = Instant::now();
        while self == Self::Hooks && start.elapsed() < SLOW {
            spin_loop();
        }
    }

    /// Assigns the device to the guest and releases it, again and again.
    fn transitions<S: Strategy>(self, strategy: &S, guest: &S::Guest, victim: Sbdf, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            strategy.assign(guest, victim, victim, || self.wait()).expect("released before");
            self.wait();
            strategy.release(guest, victim, victim, || self.wait()).expect("just assigned");
            self.wait();
        }
    }
}

/// Mean and p99.9 of one reader.
fn reader<S: Strategy>(
    strategy: &S,
    guest: &S::Guest,
    all: &[Sbdf],
    samples: usize,
    beside: Beside,
) -> [f64; 2] {
    let (victim, others) = all.split_first().expect("several");
    let orders = Cell::ALONE.orders(others);
    let (begun, over) = (AtomicBool::new(beside == Beside::Nothing), AtomicBool::new(false));
    let mut taken = Samples::room_for(samples);
    std::thread::scope(|scope| {
        if beside != Beside::Nothing {
            scope.spawn(|| {
                pin(1);
                begun.store(true, Ordering::Relaxed);
                beside.transitions(strategy, guest, *victim, &over);
            });
        }
        while !begun.load(Ordering::Relaxed) {
            spin_loop();
        }
        let mut order = orders[0].iter().cycle();
        for at in order.by_ref().take(WARM_UP) {
            black_box(strategy.read(*at, REGISTER));
        }
        for at in order.take(samples) {
            taken.take(|| strategy.read(*at, REGISTER));
        }
        over.store(true, Ordering::Relaxed);
    });
    let mean = taken.mean();
    let [_, _, tail, _] = figures(&mut taken);
    [mean, tail]
}

struct Readers<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    samples: usize,
    trials: Vec<Trial<'a>>,
}

impl ForEach for Readers<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let strategy: Arc<S> = filled(self.addresses);
        let guest = strategy.create_guest(1);
        let (addresses, samples) = (self.addresses, self.samples);
        let run = move || {
            let figures = |(beside, _)| reader(&*strategy, &guest, addresses, samples, beside);
            SETTINGS.into_iter().flat_map(figures).collect()
        };
        self.trials.push(Trial { name: S::NAME, run: Box::new(run) });
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    if run.processors < 2 {
        // A reader that shares the processor with the other thread tells of the scheduler.
        return;
    }
    let (n, samples, rounds) = match run.asked.extent {
        Extent::Full => (64, 1 << 16, 15),
        Extent::Quick => (64, 1 << 14, 5),
        Extent::Smoke => (4, 1 << 4, 1),
    };
    let addresses = addresses(n);
    let mut readers = Readers { asked: run.asked, addresses: &addresses, samples, trials: Vec::new() };
    for_each(&mut readers);
    let names: Vec<&str> = readers.trials.iter().map(|trial| trial.name).collect();
    let series = interleaved(&readers.trials, rounds);
    let title = format!("n = {n}, one reader; slow hooks: 20 µs, half of the time");
    for (name, figures) in names.into_iter().zip(series) {
        let columns =
            SETTINGS.iter().flat_map(|(_, beside)| ["mean", "p99.9"].map(|what| format!("{what}, {beside}")));
        for (column, series) in columns.zip(figures) {
            run.measured.record(HOOK, &title, Unit::Nanoseconds, n, (&column, 1), name, series);
        }
    }
}
