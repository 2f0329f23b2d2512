//! Two threads that access devices in turn, one access each, with marks in the trace of what they do.
//!
//! Valgrind runs one thread at a time and writes down every address a program touches, but not which thread it was.
//! So the threads take turns: while one has its turn the other is blocked. The turn begins and ends with a store to
//! a place that nobody else stores to, which tells the reader of the trace whose it was.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pcidevs::Sbdf;

use crate::machine_code;
use crate::measuring::order::random_order;
use crate::operations::{Filled, Operation, WithStrategy, with_strategy};
use crate::strategy::Strategy;

/// Few, so that the trace stays short.
const DEVICES: usize = 64;

/// Turns of a thread that count.
pub(crate) const TURNS: usize = 256;

/// Turns before those: what happens once in a thread's life has happened.
const WARM_UP: usize = 64;

/// Long enough for a thread to come to where it waits.
const WAITING: Duration = Duration::from_micros(100);

/// Which devices the two threads visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visits {
    Different,
    Same,
}

impl Visits {
    pub(crate) const ALL: [Self; 2] = [Self::Different, Self::Same];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Different => "different devices",
            Self::Same => "one device",
        }
    }

    /// As the benchmark of the strategies deals them out.
    fn order(self, thread: usize, all: &[Sbdf]) -> Vec<Sbdf> {
        match self {
            Self::Different => random_order(&all.iter().skip(thread).step_by(2).copied().collect::<Vec<_>>()),
            Self::Same => vec![all[all.len() / 2]; WARM_UP + TURNS],
        }
    }
}

/// Storing here begins and ends a turn.
#[repr(align(4096))]
struct Marks([AtomicU8; MARKS]);

static MARK: Marks = Marks([const { AtomicU8::new(0) }; MARKS]);

/// A mark for each kind of turn, then the one that ends any turn.
pub(crate) const MARKS: usize = END + 1;
const END: usize = Operation::ALL.len() * Visits::ALL.len() * 2;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A turn of this thread begins, of the kind with this number.
    Begin {
        kind: usize,
        thread: usize,
    },
    End,
}

impl Mark {
    pub(crate) fn at(place: usize) -> Self {
        if place == END { Self::End } else { Self::Begin { kind: place / 2, thread: place % 2 } }
    }
}

/// Each kind of turn, in the order of their numbers.
pub(crate) fn kinds() -> impl Iterator<Item = (Operation, Visits)> {
    Operation::ALL.into_iter().flat_map(|operation| Visits::ALL.map(|visits| (operation, visits)))
}

/// Whose turn it is: that thread of the two whose number is the count's last bit.
#[derive(Default)]
struct Turn {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Turn {
    fn take(&self, thread: usize, step: impl FnOnce()) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count % 2 != thread {
            count = self.changed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
        // The other is on its way back to waiting for this. Valgrind takes the processor from a thread after so many
        // steps, also amidst its turn, so the other must be blocked by then.
        std::thread::sleep(WAITING);
        step();
        *count += 1;
        self.changed.notify_one();
    }
}

struct TakingTurns;

impl WithStrategy for TakingTurns {
    fn run<S: Strategy>(&mut self) {
        // Some strategies do not find a device by the host's address while a guest has it.
        let hosts = Filled::<S>::of(DEVICES, &[]);
        let guests = Filled::<S>::of(DEVICES, &[Operation::GuestRead]);
        let turn = Arc::new(Turn::default());
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (hosts, guests, turn) = (hosts.clone(), guests.clone(), turn.clone());
                scope.spawn(move || {
                    for (kind, (operation, visits)) in kinds().enumerate() {
                        let filled = if operation == Operation::GuestRead { &guests } else { &hosts };
                        let order = visits.order(thread, &filled.addresses);
                        for (number, at) in order.into_iter().cycle().take(WARM_UP + TURNS).enumerate() {
                            let begin = if number < WARM_UP { END } else { 2 * kind + thread };
                            turn.take(thread, || {
                                MARK.0[begin].store(1, Ordering::Relaxed);
                                filled.run(operation, at);
                                MARK.0[END].store(1, Ordering::Relaxed);
                            });
                        }
                    }
                });
            }
        });
    }
}

/// Runs them, in the program that is traced: says where its marks and its code are, waits to be told that this was
/// understood, and begins.
pub(crate) fn run(strategy: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let mut line = String::new();
    let said = writeln!(out, "{:p}\n{}", &raw const MARK, machine_code::mapped().unwrap_or_default())
        .and_then(|()| out.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut line));
    said.map_err(|error| format!("nobody listens: {error}"))?;
    with_strategy(strategy, &mut TakingTurns)
}
