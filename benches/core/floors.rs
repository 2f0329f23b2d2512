//! What nothing can be faster than: the atomic operations and lock pairs that everything else is made of.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::devices::{Device, REGISTER};
use crate::locks::Spin;
use crate::measuring::order::always;
use crate::measuring::pair::{Apart, Floor, LOCK_PAIR, Pair, ParkingLot, Raw};
use crate::measuring::rounds::{Candidate, Effort, Results};

/// One of each floor, and two for two threads: the first of these is the one that is shared.
pub(crate) struct Floors {
    pair: Floor<ParkingLot>,
    spin_pair: Floor<Raw<Spin>>,
    std_pair: Floor<Mutex<()>>,
    counters: [Apart<AtomicU64>; 2],
    parking_lot: [Apart<ParkingLot>; 2],
    spin: [Apart<Raw<Spin>>; 2],
    std: [Apart<Mutex<()>>; 2],
}

/// Who visits what.
pub(crate) struct Visits {
    alone: [Vec<usize>; 1],
    private: [Vec<usize>; 2],
    shared: [Vec<usize>; 2],
}

impl Visits {
    pub(crate) fn new() -> Self {
        Self { alone: [always(&0)], private: [always(&0), always(&1)], shared: [always(&0), always(&0)] }
    }
}

impl Floors {
    pub(crate) fn new() -> Self {
        Self {
            pair: Floor::new(),
            spin_pair: Floor::new(),
            std_pair: Floor::new(),
            counters: [const { Apart(AtomicU64::new(1)) }; 2],
            parking_lot: [Apart(Pair::new()), Apart(Pair::new())],
            spin: [Apart(Pair::new()), Apart(Pair::new())],
            std: [Apart(Pair::new()), Apart(Pair::new())],
        }
    }

    pub(crate) fn xadd<'a>(&'a self, visits: &'a Visits) -> Candidate<'a> {
        Candidate::visiting("xadd pair", &visits.alone, |at| xadd_pair(&self.counters[*at].0))
    }

    fn xadd_shared<'a>(&'a self, visits: &'a Visits) -> Candidate<'a> {
        Candidate::visiting("xadd pair, 2 threads, shared", &visits.shared, |at| {
            xadd_pair(&self.counters[*at].0)
        })
    }

    pub(crate) fn pair(&self) -> Candidate<'_> {
        self.pair.candidate(LOCK_PAIR)
    }

    pub(crate) fn spin_pair(&self) -> Candidate<'_> {
        self.spin_pair.candidate("lock pair, spin")
    }

    pub(crate) fn private_pairs<'a>(&'a self, visits: &'a Visits) -> Candidate<'a> {
        private("lock pair, 2 threads, private", &self.parking_lot, visits)
    }
}

fn xadd_pair(counter: &AtomicU64) -> u64 {
    black_box(counter.fetch_add(1, Ordering::Acquire));
    counter.fetch_sub(1, Ordering::Release)
}

fn private<'a, P: Pair>(name: &str, locks: &'a [Apart<P>; 2], visits: &'a Visits) -> Candidate<'a> {
    Candidate::visiting(name, &visits.private, |at| locks[*at].0.with(|| ()))
}

fn shared<'a, P: Pair>(name: &str, locks: &'a [Apart<P>; 2], visits: &'a Visits) -> Candidate<'a> {
    Candidate::visiting(name, &visits.shared, |at| locks[*at].0.with(|| ()))
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let (floors, visits) = (Floors::new(), Visits::new());
    let candidates = [
        floors.xadd(&visits),
        floors.xadd_shared(&visits),
        floors.pair(),
        floors.private_pairs(&visits),
        shared("lock pair, 2 threads, shared", &floors.parking_lot, &visits),
        floors.spin_pair(),
        private("lock pair, spin, 2 threads, private", &floors.spin, &visits),
        shared("lock pair, spin, 2 threads, shared", &floors.spin, &visits),
        floors.std_pair.candidate("lock pair, std"),
        private("lock pair, std, 2 threads, private", &floors.std, &visits),
        shared("lock pair, std, 2 threads, shared", &floors.std, &visits),
    ];
    results.measure("floors", &candidates, effort);
}

/// A slot somebody already knows: the lock and the payload of a device, and nothing to look up. The lock and
/// the register that is read are on one cache line.
#[repr(C, align(64))]
pub(crate) struct Known<P> {
    lock: P,
    registers: [AtomicU32; 16],
}

impl<P: Pair> Known<P> {
    /// One boxed slot for each device.
    pub(crate) fn all(n: usize) -> Vec<Box<Self>> {
        let registers = || Device { registers: [7; 16] }.registers.map(AtomicU32::new);
        (0..n).map(|_| Box::new(Self { lock: P::new(), registers: registers() })).collect()
    }

    #[inline]
    pub(crate) fn read(&self) -> u32 {
        self.lock.with(|| self.registers[REGISTER].load(Ordering::Relaxed))
    }
}
