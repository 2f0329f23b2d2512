//! What vCPU threads do all day: find a device and use it, or read one of its registers.

use pcidevs::Sbdf;

use super::{Run, all_with_a_guest, filled};
use crate::asked::{Asked, Extent};
use crate::cell::{Cell, Visits};
use crate::device::{REGISTER, addresses};
use crate::floors::Floors;
use crate::measured::InColumn;
use crate::measuring::rounds::{Candidate, PLACEMENTS};
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

pub(super) const GET_PUT: &str = "get and put";
pub(super) const HOLD_PUT: &str = "hold and put";
pub(crate) const BY_ADDRESS: &str = "read by address";
pub(crate) const BY_GUEST_ADDRESS: &str = "read by guest address";
pub(crate) const PLAIN: &str = "plain read";

/// The strategies' candidates for one operation, a column for each number of threads.
struct Access<'a> {
    asked: &'a Asked,
    workload: &'static str,
    addresses: &'a [Sbdf],
    orders: &'a [(Cell, Vec<Vec<Sbdf>>)],
    columns: Vec<InColumn<'a>>,
}

impl ForEach for Access<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let (strategy, guest) = if self.workload == BY_GUEST_ADDRESS {
            let (strategy, guest) = all_with_a_guest::<S>(self.addresses);
            (strategy, Some(guest))
        } else {
            (filled::<S>(self.addresses), None)
        };
        if self.workload == PLAIN {
            self.addresses.iter().for_each(|at| strategy.prepare_plain(*at));
        }
        for ((_, orders), column) in self.orders.iter().zip(&mut self.columns) {
            let strategy = strategy.clone();
            column.candidates.push(match (self.workload, &guest) {
                (BY_GUEST_ADDRESS, Some(guest)) => {
                    let guest = guest.clone();
                    Candidate::visiting(S::NAME, orders, move |at| strategy.guest_read(&guest, *at, REGISTER))
                }
                (GET_PUT, _) => Candidate::visiting(S::NAME, orders, move |at| strategy.get(*at).is_some()),
                (HOLD_PUT, _) => {
                    Candidate::visiting(S::NAME, orders, move |at| strategy.hold(*at, "bench").is_some())
                }
                (PLAIN, _) => {
                    Candidate::visiting(S::NAME, orders, move |at| strategy.read_plain(*at, REGISTER))
                }
                _ => Candidate::visiting(S::NAME, orders, move |at| strategy.read(*at, REGISTER)),
            });
        }
    }
}

fn measure_one(run: &mut Run<'_>, workload: &'static str, n: usize, cells: &[Cell], part: usize) {
    let addresses = addresses(n);
    let orders: Vec<(Cell, Vec<Vec<Sbdf>>)> =
        cells.iter().map(|cell| (*cell, cell.orders(&addresses))).collect();
    let floors: Vec<Floors> = cells.iter().map(|cell| Floors::of(cell.threads)).collect();
    let columns = cells
        .iter()
        .zip(&floors)
        .map(|(cell, floors)| InColumn { column: cell.to_string(), candidates: floors.candidates() });
    let columns = columns.collect();
    let mut access = Access { asked: run.asked, workload, addresses: &addresses, orders: &orders, columns };
    for_each(&mut access);
    let mut effort = run.effort(cells.len()).fewer(part);
    if n > 4096 {
        effort = effort.fewer(2);
    }
    run.measured.measure(workload, &format!("n = {n}"), n, access.columns, &effort.for_devices(n));
}

/// How many devices there are.
fn counts(extent: Extent) -> &'static [usize] {
    match extent {
        Extent::Full => &[1, 8, 64, 512, 4096, 65536],
        Extent::Quick => &[1, 64, 4096],
        Extent::Smoke => &[1, 3],
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    // Where memory happens to lie makes a difference, so everything is laid out several times.
    let placements = if run.asked.extent == Extent::Full { PLACEMENTS } else { 1 };
    for placement in 0..placements {
        let shift = vec![0_u8; 4096 + 1040 * placement];
        for workload in [BY_ADDRESS, BY_GUEST_ADDRESS, GET_PUT, HOLD_PUT] {
            for n in counts(run.asked.extent) {
                // Assigning so many to one guest takes some strategies minutes, and names are for the few.
                let most = match workload {
                    BY_ADDRESS => usize::MAX,
                    HOLD_PUT => 64,
                    _ => 4096,
                };
                if *n <= most {
                    measure_one(run, workload, *n, &Cell::all(*n, run.processors), placements);
                }
            }
        }
        let same = |threads| Cell { threads, visits: Visits::Same };
        let cells: Vec<Cell> =
            [1, 2].into_iter().filter(|threads| *threads <= run.processors).map(same).collect();
        measure_one(run, PLAIN, 64, &cells, placements);
        drop(shift);
    }
}
