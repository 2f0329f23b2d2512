//! Many domains, each with 16 devices: a locked read by guest address, of any device of any domain.

use std::sync::Arc;

use pcidevs::Sbdf;

use super::{Run, filled};
use crate::asked::{Asked, Extent};
use crate::cell::{Cell, Visits, numbers_of_threads};
use crate::device::{REGISTER, addresses};
use crate::floors::Floors;
use crate::measured::InColumn;
use crate::measuring::order::random_order;
use crate::measuring::rounds::{Candidate, PLACEMENTS};
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

pub(crate) const DOMAINS: &str = "domains";

/// Devices of each.
const EACH: usize = 16;

/// A domain, and where it sees a device.
type Visit = (usize, Sbdf);

struct Reading<'a> {
    asked: &'a Asked,
    domains: usize,
    orders: &'a [Vec<Vec<Visit>>],
    columns: Vec<InColumn<'a>>,
}

impl ForEach for Reading<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let all = addresses(self.domains * EACH);
        let strategy = filled::<S>(&all);
        let mut guests = Vec::new();
        for number in 0..self.domains {
            guests.push(strategy.create_guest(u32::try_from(number + 1).expect("few")));
        }
        // From the end, where lists that grow at the front are looked through from.
        for (number, at) in all.iter().enumerate().rev() {
            let guest_at = all[number % EACH];
            strategy.assign(&guests[number / EACH], *at, guest_at, || ()).expect("unused");
        }
        let guests = Arc::new(guests);
        for (orders, column) in self.orders.iter().zip(&mut self.columns) {
            let (strategy, guests) = (strategy.clone(), guests.clone());
            column.candidates.push(Candidate::visiting(S::NAME, orders, move |(domain, at)| {
                strategy.guest_read(&guests[*domain], *at, REGISTER)
            }));
        }
    }
}

pub(super) fn measure(run: &mut Run<'_>) {
    // As in `access`: where memory happens to lie makes a difference here more than anywhere.
    let placements = if run.asked.extent == Extent::Full { PLACEMENTS } else { 1 };
    for placement in 0..placements {
        let shift = vec![0_u8; 4096 + 1040 * placement];
        measure_once(run, placements);
        drop(shift);
    }
}

fn measure_once(run: &mut Run<'_>, part: usize) {
    let counts: &[usize] = match run.asked.extent {
        Extent::Full => &[1, 16, 256, 4096],
        Extent::Quick => &[1, 256],
        Extent::Smoke => &[2],
    };
    for domains in counts {
        let n = domains * EACH;
        let visits: Vec<Visit> =
            (0..n).map(|number| (number / EACH, addresses(EACH)[number % EACH])).collect();
        let threads: Vec<usize> =
            numbers_of_threads(run.processors).into_iter().filter(|threads| *threads <= n).collect();
        let cell = |threads| Cell { threads, visits: Visits::Different };
        let orders = threads.iter().map(|threads| {
            (0..*threads).map(|thread| random_order(&cell(*threads).part(thread, &visits))).collect()
        });
        let orders: Vec<Vec<Vec<Visit>>> = orders.collect();
        let floors: Vec<Floors> = threads.iter().map(|threads| Floors::of(*threads)).collect();
        let columns = threads.iter().zip(&floors);
        let columns = columns
            .map(|(threads, floors)| InColumn {
                column: cell(*threads).to_string(),
                candidates: floors.candidates(),
            })
            .collect();
        let mut reading = Reading { asked: run.asked, domains: *domains, orders: &orders, columns };
        for_each(&mut reading);
        let mut effort = run.effort(threads.len()).fewer(part);
        if n > 4096 {
            effort = effort.fewer(2);
        }
        let title = if *domains == 1 { "1 domain".to_owned() } else { format!("{domains} domains") };
        let title = format!("{title}, {EACH} devices each");
        run.measured.measure(DOMAINS, &title, n, reading.columns, &effort.for_devices(n));
    }
}
