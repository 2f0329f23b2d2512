//! How many threads visit which devices.

use std::fmt;

use pcidevs::Sbdf;

use crate::measuring::order::random_order;

/// Which devices the threads visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visits {
    /// Each thread its own part of the devices, in random order.
    Different,
    /// All threads one and the same device.
    Same,
}

/// One column of most tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) threads: usize,
    pub(crate) visits: Visits,
}

impl Cell {
    /// One thread.
    pub(crate) const ALONE: Self = Self { threads: 1, visits: Visits::Different };

    /// The order of visits of each thread.
    pub(crate) fn orders(self, all: &[Sbdf]) -> Vec<Vec<Sbdf>> {
        (0..self.threads).map(|thread| random_order(&self.part(thread, all))).collect()
    }

    /// The devices of a thread.
    pub(crate) fn part<T: Clone>(self, thread: usize, all: &[T]) -> Vec<T> {
        match self.visits {
            Visits::Different => all.iter().skip(thread).step_by(self.threads).cloned().collect(),
            // Neither the first that a walk comes to nor the last.
            Visits::Same => all[all.len() / 2..][..1].to_vec(),
        }
    }

    /// One thread, then two, four and so on up to all processors: on different devices, and on one.
    pub(crate) fn all(n: usize, processors: usize) -> Vec<Self> {
        let mut cells = vec![Self::ALONE];
        for threads in numbers_of_threads(processors).into_iter().skip(1) {
            cells.push(Self { threads, visits: Visits::Different });
            cells.push(Self { threads, visits: Visits::Same });
        }
        cells.retain(|cell| cell.visits == Visits::Same || cell.threads <= n);
        cells
    }
}

/// 1, 2, 4 and so on, and all processors.
pub(crate) fn numbers_of_threads(processors: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = std::iter::successors(Some(1), |threads| Some(threads * 2))
        .take_while(|threads| *threads < processors)
        .collect();
    numbers.push(processors);
    numbers
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.threads, self.visits) {
            (1, _) => f.write_str("1 thread"),
            (threads, Visits::Different) => write!(f, "{threads} threads, different devices"),
            (threads, Visits::Same) => write!(f, "{threads} threads, one device"),
        }
    }
}
