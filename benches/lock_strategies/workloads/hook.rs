//! What readers of other devices see while a transition waits for the platform.
//!
//! One thread assigns and releases one device, and half of the time is inside a hook that takes 20 µs, as an IOMMU
//! flush or a driver may. Another thread reads other devices. Its mean tells how much of the time it is kept waiting,
//! and its longest 0.1 % whether it waits for the hook.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::tail::{Samples, figures};
use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::Cell;
use crate::device::{REGISTER, addresses};
use crate::measured::Unit;
use crate::measuring::processors::pin;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;
use crate::trial::{Trial, interleaved};

pub(crate) const HOOK: &str = "a slow hook";

/// How long a hook takes, and how long it is until the next.
const SLOW: Duration = Duration::from_micros(20);

pub(crate) const COLUMNS: [&str; 4] = ["mean, alone", "mean, hook", "p99.9, alone", "p99.9, hook"];

fn wait() {
    let start = Instant::now();
    while start.elapsed() < SLOW {
        spin_loop();
    }
}

/// Mean and the given percentile of reads, with or without somebody in a hook.
fn readers<S: Strategy>(strategy: &S, guest: &S::Guest, n: usize, samples: usize, hooks: bool) -> [f64; 2] {
    let all = addresses(n);
    let (victim, others) = all.split_first().expect("several");
    let orders = Cell::ALONE.orders(others);
    let (ready, over) = (AtomicBool::new(!hooks), AtomicBool::new(false));
    let mut taken = Samples::room_for(samples);
    std::thread::scope(|scope| {
        if hooks {
            scope.spawn(|| {
                pin(1);
                while !over.load(Ordering::Relaxed) {
                    ready.store(true, Ordering::Relaxed);
                    let assigned = strategy.assign(guest, *victim, *victim, wait);
                    wait();
                    if assigned.is_ok() && strategy.release(guest, *victim, *victim, wait).is_err() {
                        unreachable!("what was just assigned here can be released");
                    }
                    wait();
                }
            });
        }
        while !ready.load(Ordering::Relaxed) {
            spin_loop();
        }
        for at in orders[0].iter().cycle().take(samples) {
            taken.take(|| strategy.read(*at, REGISTER));
        }
        over.store(true, Ordering::Relaxed);
    });
    [taken.mean(), figures(&mut taken)[2]]
}

struct Hooks<'a> {
    asked: &'a Asked,
    n: usize,
    samples: usize,
    trials: Vec<Trial<'a>>,
}

impl ForEach for Hooks<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let strategy: Arc<S> = filled(&addresses(self.n));
        let guest = strategy.create_guest(1);
        let (n, samples) = (self.n, self.samples);
        let run = move || {
            let [alone, alone_tail] = readers(&*strategy, &guest, n, samples, false);
            let [hook, hook_tail] = readers(&*strategy, &guest, n, samples, true);
            vec![alone, hook, alone_tail, hook_tail]
        };
        self.trials.push(Trial { name: S::NAME, run: Box::new(run) });
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    if run.processors < 2 {
        // A reader that shares the processor with the hook tells of the scheduler.
        return;
    }
    let (n, samples, rounds) = match run.asked.extent {
        Extent::Full => (64, 1 << 17, 9),
        Extent::Quick => (64, 1 << 14, 5),
        Extent::Smoke => (4, 1 << 4, 1),
    };
    let mut hooks = Hooks { asked: run.asked, n, samples, trials: Vec::new() };
    for_each(&mut hooks);
    let names: Vec<&str> = hooks.trials.iter().map(|trial| trial.name).collect();
    let series = interleaved(&hooks.trials, rounds);
    for (name, columns) in names.into_iter().zip(series) {
        for (column, series) in COLUMNS.into_iter().zip(columns) {
            let title = format!("n = {n}, one reader, hooks of 20 µs half of the time");
            run.measured.record(HOOK, &title, Unit::Nanoseconds, n, (column, 1), name, series);
        }
    }
}
