//! Reads and writes of registers, mixed.

use pcidevs::Sbdf;

use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::Cell;
use crate::device::{REGISTER, addresses};
use crate::floors::Floors;
use crate::measured::InColumn;
use crate::measuring::rounds::Candidate;
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

pub(crate) const MIXED: &str = "reads and writes";

/// One access.
#[derive(Clone, Copy)]
enum Access {
    Read(Sbdf),
    Write(Sbdf),
}

/// Every `one_in`-th access is a write.
fn orders(cell: Cell, all: &[Sbdf], one_in: usize) -> Vec<Vec<Access>> {
    let access = |(place, at): (usize, &Sbdf)| {
        if place % one_in == 0 { Access::Write(*at) } else { Access::Read(*at) }
    };
    cell.orders(all).iter().map(|order| order.iter().enumerate().map(access).collect()).collect()
}

struct Mixed<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    orders: &'a [Vec<Vec<Access>>],
    columns: Vec<InColumn<'a>>,
}

impl ForEach for Mixed<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let strategy = filled::<S>(self.addresses);
        for (orders, column) in self.orders.iter().zip(&mut self.columns) {
            let strategy = strategy.clone();
            column.candidates.push(Candidate::visiting(S::NAME, orders, move |access| match access {
                Access::Read(at) => strategy.read(*at, REGISTER),
                Access::Write(at) => {
                    strategy.write(*at, REGISTER, 7);
                    7
                }
            }));
        }
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    let n = if run.asked.extent == Extent::Smoke { 3 } else { 64 };
    let addresses = addresses(n);
    let cells = Cell::all(n, run.processors);
    let floors: Vec<Floors> = cells.iter().map(|cell| Floors::of(cell.threads)).collect();
    for (percent, one_in) in [(10, 10), (50, 2)] {
        let orders: Vec<_> = cells.iter().map(|cell| orders(*cell, &addresses, one_in)).collect();
        let columns = cells.iter().zip(&floors);
        let columns = columns
            .map(|(cell, floors)| InColumn { column: cell.to_string(), candidates: floors.candidates() })
            .collect();
        let mut mixed = Mixed { asked: run.asked, addresses: &addresses, orders: &orders, columns };
        for_each(&mut mixed);
        let title = format!("n = {n}, {percent} % writes");
        run.measured.measure(MIXED, &title, n, mixed.columns, &run.effort(cells.len()));
    }
}
