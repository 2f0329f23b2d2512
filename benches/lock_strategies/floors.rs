//! What nothing can be faster than, measured in the same rounds as the strategies.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::measuring::order::always;
use crate::measuring::pair::{Apart, LOCK_PAIR, Pair, ParkingLot};
use crate::measuring::rounds::Candidate;

/// Locks and counters for as many threads as there are, and who visits which.
pub(crate) struct Floors {
    locks: Vec<Apart<ParkingLot>>,
    counters: Vec<Apart<AtomicU64>>,
    own: Vec<Vec<usize>>,
    shared: Vec<Vec<usize>>,
}

/// The floor that every figure is compared with: each thread has a lock of its own.
pub(crate) const FLOOR: &str = LOCK_PAIR;

/// The names of the other floors.
pub(crate) const XADD_OWN: &str = "xadd pair";
pub(crate) const LOCK_SHARED: &str = "lock pair, shared";
pub(crate) const XADD_SHARED: &str = "xadd pair, shared";

impl Floors {
    pub(crate) fn of(threads: usize) -> Self {
        Self {
            locks: (0..threads).map(|_| Apart(Pair::new())).collect(),
            counters: (0..threads).map(|_| Apart(AtomicU64::new(1))).collect(),
            own: (0..threads).map(|thread| always(&thread)).collect(),
            shared: (0..threads).map(|_| always(&0)).collect(),
        }
    }

    /// The pair of the floor, and one on a counter; for several threads, both also on one line.
    pub(crate) fn candidates(&self) -> Vec<Candidate<'_>> {
        let mut candidates = vec![self.pair(FLOOR, &self.own), self.xadd(XADD_OWN, &self.own)];
        if self.own.len() > 1 {
            candidates.push(self.pair(LOCK_SHARED, &self.shared));
            candidates.push(self.xadd(XADD_SHARED, &self.shared));
        }
        candidates
    }

    fn pair<'a>(&'a self, name: &str, visits: &'a [Vec<usize>]) -> Candidate<'a> {
        Candidate::visiting(name, visits, |at| self.locks[*at].0.with(|| ()))
    }

    fn xadd<'a>(&'a self, name: &str, visits: &'a [Vec<usize>]) -> Candidate<'a> {
        Candidate::visiting(name, visits, |at| {
            let counter = &self.counters[*at].0;
            black_box(counter.fetch_add(1, Ordering::Acquire));
            counter.fetch_sub(1, Ordering::Release)
        })
    }
}
