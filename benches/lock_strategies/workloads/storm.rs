//! Assign storms: devices are given to guests and taken back as fast as it goes, each thread its own, to a guest of
//! its own. One operation is one assignment and one release.

use pcidevs::Sbdf;

use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::{Cell, Visits, numbers_of_threads};
use crate::device::addresses;
use crate::floors::Floors;
use crate::measured::InColumn;
use crate::measuring::rounds::Candidate;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;
use std::sync::Arc;

pub(crate) const STORM: &str = "assign and release";

struct Storm<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    orders: &'a [Vec<Vec<(usize, Sbdf)>>],
    columns: Vec<InColumn<'a>>,
}

impl ForEach for Storm<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        for (orders, column) in self.orders.iter().zip(&mut self.columns) {
            let strategy = filled::<S>(self.addresses);
            let guests: Vec<_> =
                (1..).take(orders.len()).map(|number| strategy.create_guest(number)).collect();
            let guests = Arc::new(guests);
            let visit = move |(thread, at): &(usize, Sbdf)| {
                let assigned = strategy.assign(&guests[*thread], *at, *at, || ());
                assigned.and_then(|()| strategy.release(&guests[*thread], *at, *at, || ())).is_ok()
            };
            column.candidates.push(Candidate::visiting(S::NAME, orders, visit));
        }
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    let n = if run.asked.extent == Extent::Smoke { 8 } else { 64 };
    let addresses = addresses(n);
    let threads: Vec<usize> =
        numbers_of_threads(run.processors).into_iter().filter(|threads| *threads <= n).collect();
    let cell = |threads| Cell { threads, visits: Visits::Different };
    let orders = threads.iter().map(|threads| {
        let orders = cell(*threads).orders(&addresses).into_iter().enumerate();
        orders.map(|(thread, order)| order.into_iter().map(|at| (thread, at)).collect()).collect()
    });
    let orders: Vec<Vec<Vec<_>>> = orders.collect();
    let floors: Vec<Floors> = threads.iter().map(|threads| Floors::of(*threads)).collect();
    let columns = threads.iter().zip(&floors);
    let columns = columns
        .map(|(threads, floors)| InColumn {
            column: cell(*threads).to_string(),
            candidates: floors.candidates(),
        })
        .collect();
    let mut storm = Storm { asked: run.asked, addresses: &addresses, orders: &orders, columns };
    for_each(&mut storm);
    run.measured.measure(STORM, &format!("n = {n}"), n, storm.columns, &run.effort(threads.len()));
}
