//! A cell: one figure for every strategy, under one set of circumstances.

use std::fmt;

use pcidevs::Sbdf;

use crate::measuring::order::random_order;

/// Which devices the threads of a cell visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Visits {
    /// Each thread its own part of the devices, in random order.
    Different,
    /// All threads one and the same device.
    Same,
}

/// Circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Devices there are.
    pub(crate) n: usize,
    pub(crate) threads: usize,
    pub(crate) visits: Visits,
}

impl Cell {
    /// The order of visits of each thread; `None` if there are too few devices for it.
    pub(crate) fn orders(&self, all: &[Sbdf]) -> Option<Vec<Vec<Sbdf>>> {
        let part = |thread: usize| -> Vec<Sbdf> {
            match self.visits {
                Visits::Different => all.iter().skip(thread).step_by(self.threads).copied().collect(),
                Visits::Same => all[all.len() / 2..][..1].to_vec(),
            }
        };
        let parts: Vec<_> = (0..self.threads).map(part).collect();
        parts
            .iter()
            .all(|part| !part.is_empty())
            .then(|| parts.iter().map(|part| random_order(part)).collect())
    }

    /// One thread, and every further number of threads up to all processors, on different devices and on one.
    pub(crate) fn all(n: usize, processors: usize) -> Vec<Self> {
        let mut cells = vec![Self { n, threads: 1, visits: Visits::Different }];
        let mut threads = 2;
        while threads <= processors {
            cells.push(Self { n, threads, visits: Visits::Different });
            cells.push(Self { n, threads, visits: Visits::Same });
            threads = if threads == processors { threads + 1 } else { (threads * 2).min(processors) };
        }
        cells.retain(|cell| cell.visits == Visits::Same || cell.threads <= n);
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.threads, self.visits) {
            (1, _) => write!(f, "n={}, 1 thread", self.n),
            (threads, Visits::Different) => write!(f, "n={}, {threads} threads, different devices", self.n),
            (threads, Visits::Same) => write!(f, "n={}, {threads} threads, one device", self.n),
        }
    }
}
