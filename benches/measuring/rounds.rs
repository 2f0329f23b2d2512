//! Interleaved rounds: every candidate of a group in turn, again and again, so that drift hits all alike.
//!
//! One *turn* of a candidate is a short untimed run, then operations in chunks of some 10 µs until the time of
//! the turn is up. Two threads start a turn together and each stops when its own time is up. A turn's figure is
//! the median of its chunks, so that being preempted, which hits few chunks, does not count; or their mean, where
//! operations are not alike. A candidate's figure is the median of its turns; a ratio is the median of the ratios
//! within each round.
//!
//! Where memory happens to lie can make one candidate 1.6 times as slow for as long as it lies there, so the
//! groups that decide are measured on several placements ([`PLACEMENTS`]) and their rounds are put together.
//!
//! The order is shuffled for each round: in a fixed rotation another process that runs in slices of the same
//! length always met the same candidate, and made it look twice as slow.

use std::hint::{black_box, spin_loop};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::order::SHORTEST_ORDER;
use super::processors::pin;

/// How many times the groups that decide are set up anew.
pub(crate) const PLACEMENTS: usize = 5;

/// How long to measure.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    pub(crate) warm_up: Duration,
}

impl Effort {
    pub(crate) const FULL: Self =
        Self { rounds: 61, turn: Duration::from_millis(2), warm_up: Duration::from_micros(500) };
    pub(crate) const QUICK: Self =
        Self { rounds: 15, turn: Duration::from_micros(800), warm_up: Duration::from_micros(200) };

    /// For sets that the nearer caches do not hold: a turn must come round to all of them, and before it is
    /// timed the farther cache must have taken them back from the candidate before.
    #[allow(dead_code, reason = "not every benchmark has such sets")]
    pub(crate) fn for_devices(&self, n: usize) -> Self {
        if n <= 4096 {
            return Self { ..*self };
        }
        Self { rounds: self.rounds, turn: self.turn * 4, warm_up: self.turn * 6 }
    }

    pub(crate) fn fewer(&self, part: usize) -> Self {
        Self { rounds: (self.rounds / part).max(3), turn: self.turn, warm_up: self.warm_up }
    }
}

type Run<'a> = Box<dyn Fn(usize, usize) -> Duration + Sync + 'a>;

/// One candidate.
pub(crate) struct Candidate<'a> {
    pub(crate) name: String,
    pub(crate) threads: usize,
    /// Operations in a chunk; `None`: as many as are worth reading the clock for.
    chunk: Option<usize>,
    /// For operations that are not alike, so that the rare and dear ones count: a turn's figure is the mean of its
    /// chunks and not their median.
    pub(crate) by_mean: bool,
    run: Run<'a>,
}

/// Where a thread is in its order of visits, and what it has of its own. On lines of its own.
#[repr(align(128))]
struct Thread<S>(Mutex<(usize, S)>);

impl<S> Thread<S> {
    fn with(own: S) -> Self {
        Self(Mutex::new((0, own)))
    }
}

impl<'a> Candidate<'a> {
    /// `visit` for each element of the order, in as many threads as there are orders.
    pub(crate) fn visiting<T: Sync, R>(
        name: &str,
        orders: &'a [Vec<T>],
        visit: impl Fn(&T) -> R + Sync + 'a,
    ) -> Self {
        Self::visiting_with(name, orders, |_| (), move |(), element| visit(element))
    }

    /// The same with something that each thread has of its own, made for its number.
    pub(crate) fn visiting_with<S: Send + 'a, T: Sync, R>(
        name: &str,
        orders: &'a [Vec<T>],
        own: impl Fn(usize) -> S,
        visit: impl Fn(&mut S, &T) -> R + Sync + 'a,
    ) -> Self {
        let threads: Vec<Thread<S>> = (0..orders.len()).map(|thread| Thread::with(own(thread))).collect();
        let run = move |thread: usize, operations: usize| {
            let order: &Vec<T> = &orders[thread];
            // Nobody else wants it; a turn that panicked takes its candidate along.
            let mut thread = threads[thread].0.lock().expect("no panic");
            let (cursor, own) = &mut *thread;
            // Chunks are powers of two long. Where the order is not, its last part is left out.
            let from = *cursor - *cursor % operations;
            let from = if from + operations > order.len() { 0 } else { from };
            let part = &order[from..from + operations];
            *cursor = from + operations;
            let start = Instant::now();
            for element in part {
                black_box(visit(own, element));
            }
            start.elapsed()
        };
        Self { name: name.to_owned(), threads: orders.len(), chunk: None, by_mean: false, run: Box::new(run) }
    }

    /// A candidate that takes its own time for a chunk of this many operations.
    #[allow(dead_code, reason = "not every benchmark has such candidates")]
    pub(crate) fn timing_itself(name: &str, chunk: usize, run: impl Fn() -> Duration + Sync + 'a) -> Self {
        let run = move |_: usize, _: usize| run();
        Self { name: name.to_owned(), threads: 1, chunk: Some(chunk), by_mean: false, run: Box::new(run) }
    }

    /// The time of one chunk, on the calling thread, and how many operations it was.
    pub(crate) fn chunk(&self, at_most: usize) -> (usize, Duration) {
        let operations = self.chunk.unwrap_or(at_most);
        (operations, (self.run)(0, operations))
    }

    /// A chunk takes some 10 µs, reading the clock 0.05.
    pub(crate) fn find_chunk(&self) -> usize {
        self.chunk.unwrap_or_else(|| {
            let mut operations = 1;
            while operations < SHORTEST_ORDER && (self.run)(0, operations) < Duration::from_micros(6) {
                operations *= 2;
            }
            operations
        })
    }

    /// Nanoseconds for an operation, on this thread.
    fn turn(&self, thread: usize, chunk: usize, effort: &Effort) -> f64 {
        let start = Instant::now();
        // A candidate that times itself makes its state anew, so there is nothing to warm.
        while self.chunk.is_none() && start.elapsed() < effort.warm_up {
            (self.run)(thread, chunk);
        }
        let start = Instant::now();
        let (mut chunks, mut time) = (Vec::with_capacity(4096), Duration::ZERO);
        // One at least: this thread may have been away for as long as all may take.
        while chunks.is_empty() || time < effort.turn && start.elapsed() < 4 * effort.turn {
            let took = (self.run)(thread, chunk);
            chunks.push(nanoseconds(took) / chunk as f64);
            time += took;
        }
        if self.by_mean {
            return nanoseconds(time) / (chunks.len() * chunk) as f64;
        }
        Series(chunks).spread().median
    }

    /// A turn, in as many threads as the candidate has.
    pub(crate) fn round(&self, chunk: usize, effort: &Effort) -> f64 {
        if self.threads == 1 {
            return self.turn(0, chunk, effort);
        }
        let ready = AtomicUsize::new(0);
        let turn = |thread| {
            pin(thread);
            ready.fetch_add(1, Ordering::Relaxed);
            while ready.load(Ordering::Relaxed) < self.threads {
                spin_loop();
            }
            self.turn(thread, chunk, effort)
        };
        let turns: Vec<f64> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads).map(|thread| scope.spawn(move || turn(thread))).collect();
            let mine = turn(0);
            others.into_iter().map(|other| other.join().expect("no panic")).chain([mine]).collect()
        });
        turns.iter().sum::<f64>() / turns.len() as f64
    }
}

pub(crate) fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// All figures of one run, by group and name.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) groups: Vec<(String, Vec<(String, Series)>)>,
}

/// One candidate's figures, in nanoseconds, one for each round.
#[derive(Clone, Debug)]
pub(crate) struct Series(pub(crate) Vec<f64>);

/// Median and the quartiles around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Series {
    pub(crate) fn spread(&self) -> Spread {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted[(sorted.len() - 1) * part / 100];
        Spread { low: at(25), median: at(50), high: at(75) }
    }

    pub(crate) fn percentile(&self, part: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * part / 100]
    }

    /// Round by round, this over that.
    pub(crate) fn over(&self, floor: &Self) -> Self {
        Self(self.0.iter().zip(&floor.0).map(|(this, floor)| this / floor).collect())
    }
}

impl Results {
    /// Measures the candidates of a group in interleaved rounds.
    pub(crate) fn measure(&mut self, group: &str, candidates: &[Candidate<'_>], effort: &Effort) {
        eprint!("{group:<44}\r");
        let chunks: Vec<_> = candidates.iter().map(Candidate::find_chunk).collect();
        let mut series = vec![Vec::with_capacity(effort.rounds); candidates.len()];
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        let mut random = StdRng::seed_from_u64(0x0f0d);
        for _ in 0..effort.rounds {
            order.shuffle(&mut random);
            for at in &order {
                series[*at].push(candidates[*at].round(chunks[*at], effort));
            }
        }
        let names = candidates.iter().map(|candidate| candidate.name.clone());
        let series = series.into_iter().map(Series);
        self.record(group, names.zip(series).collect());
    }

    /// Rounds of a group that was measured before, on other memory, are added to those.
    pub(crate) fn record(&mut self, group: &str, series: Vec<(String, Series)>) {
        let Some((_, known)) = self.groups.iter_mut().find(|(known, _)| known == group) else {
            self.groups.push((group.to_owned(), series));
            return;
        };
        for ((_, known), (_, more)) in known.iter_mut().zip(series) {
            known.0.extend(more.0);
        }
    }

    pub(crate) fn series(&self, group: &str, name: &str) -> &Series {
        let (_, all) = self.groups.iter().find(|(known, _)| known == group).expect(group);
        &all.iter().find(|(known, _)| known == name).expect(name).1
    }
}
