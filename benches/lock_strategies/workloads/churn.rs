//! Locked reads, some of them replaced by an add or a remove of another device.
//!
//! Every thread has devices of its own that come and go, beside those that are read. The figure is a mean, so that
//! the rare operations count as often as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::Sbdf;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::{Cell, Visits, numbers_of_threads};
use crate::device::{Device, REGISTER, addresses};
use crate::floors::Floors;
use crate::measured::InColumn;
use crate::measuring::rounds::Candidate;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

pub(crate) const CHURN: &str = "reads, adds and removes";

/// Of 1,000 operations, so many are an add or a remove.
pub(crate) const PER_MILLE: [u32; 4] = [0, 1, 10, 100];

/// Of how many devices one comes and goes.
const ONE_IN: usize = 4;

/// Long enough for one in a thousand to be about as many as they should be.
const OPERATIONS: usize = 1 << 14;

/// One operation.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Read(Sbdf),
    /// Removes the device if it is there, adds it if it is not.
    Toggle(Sbdf),
}

/// A random order of operations for each thread, on devices of its own.
pub(super) fn orders(cell: Cell, all: &[Sbdf], per_mille: u32) -> Vec<Vec<Operation>> {
    let order = |thread: usize| {
        let (come_and_go, stay) = come_and_go(&cell.part(thread, all));
        let mut random = StdRng::seed_from_u64(0x0bdf + thread as u64);
        let operation = |_| {
            let pick = |from: &[Sbdf], random: &mut StdRng| from[random.random_range(0..from.len())];
            if random.random_range(0..1000) < per_mille {
                Operation::Toggle(pick(&come_and_go, &mut random))
            } else {
                Operation::Read(pick(&stay, &mut random))
            }
        };
        (0..OPERATIONS).map(operation).collect()
    };
    (0..cell.threads).map(order).collect()
}

/// The devices that come and go, and those that stay.
fn come_and_go(part: &[Sbdf]) -> (Vec<Sbdf>, Vec<Sbdf>) {
    let with_place = part.iter().enumerate();
    let (go, stay): (Vec<_>, Vec<_>) = with_place.partition(|(place, _)| place % ONE_IN == 0);
    let addresses = |part: Vec<(usize, &Sbdf)>| part.into_iter().map(|(_, at)| *at).collect();
    (addresses(go), addresses(stay))
}

/// Which devices are there, by address.
pub(super) struct Present(Vec<AtomicBool>);

impl Present {
    pub(super) fn all(addresses: &[Sbdf]) -> Self {
        Self(addresses.iter().map(|_| AtomicBool::new(true)).collect())
    }

    /// The device again, if it has gone.
    pub(super) fn add_if_absent<S: Strategy>(&self, strategy: &S, at: Sbdf) {
        let present = &self.0[usize::from(at.bdf())];
        if !present.load(Ordering::Relaxed) && strategy.add(at, Device::at(at)).is_ok() {
            present.store(true, Ordering::Relaxed);
        }
    }

    /// What became of the operation, so that it is not optimised away.
    #[inline]
    pub(super) fn perform<S: Strategy>(&self, strategy: &S, operation: Operation) -> u32 {
        match operation {
            Operation::Read(at) => strategy.read(at, REGISTER),
            Operation::Toggle(at) => {
                // The addresses are the lowest, so they are indices as well. Each is one thread's own.
                let present = &self.0[usize::from(at.bdf())];
                if present.load(Ordering::Relaxed) {
                    // Refused for some time where a reader of another version of the map looks like a use.
                    if strategy.remove(at).is_ok() {
                        present.store(false, Ordering::Relaxed);
                    }
                } else if strategy.add(at, Device::at(at)).is_ok() {
                    present.store(true, Ordering::Relaxed);
                }
                1
            }
        }
    }
}

struct Churn<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    orders: &'a [Vec<Vec<Operation>>],
    columns: Vec<InColumn<'a>>,
}

impl ForEach for Churn<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        for (orders, column) in self.orders.iter().zip(&mut self.columns) {
            // Each column leaves other devices present, so each has its own registry.
            let (strategy, present) = (filled::<S>(self.addresses), Arc::new(Present::all(self.addresses)));
            let visit = move |operation: &Operation| present.perform(&*strategy, *operation);
            let mut candidate = Candidate::visiting(S::NAME, orders, visit);
            candidate.by_mean = true;
            column.candidates.push(candidate);
        }
    }
}

/// The column of a share.
pub(crate) fn share(per_mille: u32) -> String {
    format!("{} %", f64::from(per_mille) / 10.0)
}

pub(super) fn measure(run: &mut Run<'_>) {
    let counts: &[usize] = match run.asked.extent {
        Extent::Full => &[64, 4096],
        Extent::Quick => &[64],
        Extent::Smoke => &[32],
    };
    for n in counts {
        let addresses = addresses(*n);
        for threads in numbers_of_threads(run.processors) {
            let cell = Cell { threads, visits: Visits::Different };
            if threads * ONE_IN * 2 > *n {
                continue;
            }
            let orders: Vec<_> =
                PER_MILLE.iter().map(|per_mille| orders(cell, &addresses, *per_mille)).collect();
            let floors = Floors::of(threads);
            let columns = PER_MILLE
                .iter()
                .map(|per_mille| InColumn { column: share(*per_mille), candidates: floors.candidates() })
                .collect();
            let mut churn = Churn { asked: run.asked, addresses: &addresses, orders: &orders, columns };
            for_each(&mut churn);
            let title = format!("n = {n}, {cell}");
            run.measured.measure(CHURN, &title, *n, churn.columns, &run.effort(PER_MILLE.len()));
        }
    }
}
