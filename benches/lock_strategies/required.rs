//! What pcidevs must reach against the other strategies, as ratios within one run. Misses are printed as misses.

use crate::measured::{Column, Measured};
use crate::measuring::report::spread;
use crate::measuring::requirement::Row;
use crate::measuring::rounds::Series;
use crate::strategies::{Known, Pcidevs, known};
use crate::strategy::Strategy;
use crate::workloads::{ALONE, BY_ADDRESS, BY_GUEST_ADDRESS, DOMAINS, PLAIN, TAIL, TAIL_SHARES, share};

const OURS: &str = <Pcidevs as Strategy>::NAME;

/// The workloads in which a vCPU reads a register under the device's lock.
const LOCKED_READS: [&str; 3] = [BY_ADDRESS, BY_GUEST_ADDRESS, DOMAINS];

/// One requirement, what was reached, and where it was missed.
pub(crate) struct Required {
    pub(crate) row: Row,
    /// How many cells it is about.
    pub(crate) cells: usize,
    /// The cells that miss it, worst first.
    pub(crate) missed: Vec<String>,
}

impl Required {
    fn single(row: Row) -> Self {
        Self { row, cells: 1, missed: Vec::new() }
    }
}

/// One cell: ours against the best of some others.
struct Against {
    /// The cell and the best other.
    place: String,
    ratio: Series,
}

/// Ours over the best of those `among` which it is compared, in this column.
fn against_best(column: &Column, cell: &str, among: &[&Known]) -> Option<Against> {
    let ours = column.of(OURS)?;
    let others = among.iter().filter_map(|other| Some((other.name, column.of(other.name)?)));
    let median = |series: &Series| series.spread().median;
    let (name, best) = others.min_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)))?;
    Some(Against { place: format!("{cell}, {}, against {name}", column.name), ratio: ours.over(best) })
}

/// All cells of the locked reads with so many devices.
fn locked_reads(measured: &Measured, n: impl Fn(usize) -> bool, among: &[&Known]) -> Vec<Against> {
    let tables = measured.tables.iter().filter(|table| LOCKED_READS.contains(&table.workload) && n(table.n));
    let cells = tables.flat_map(|table| {
        let cell = format!("{}, {}", table.workload, table.title);
        table.columns.iter().filter_map(move |column| against_best(column, &cell, among))
    });
    cells.collect()
}

/// The cell that is farthest from what must be reached, and all that miss it.
fn worst(what: &str, mut cells: Vec<Against>, at_most: f64) -> Option<Required> {
    let median = |cell: &Against| cell.ratio.spread().median;
    cells.sort_by(|one, other| median(other).total_cmp(&median(one)));
    let worst = cells.first()?;
    let row = Row::new(&format!("{what} (worst of {} cells)", cells.len()), &worst.ratio, at_most);
    let missed = cells.iter().filter(|cell| median(cell) > at_most);
    let missed = missed.map(|cell| format!("{}: {}", cell.place, spread(cell.ratio.spread()))).collect();
    Some(Required { row, cells: cells.len(), missed })
}

/// The rows that could be computed from what was measured.
pub(crate) fn rows(measured: &Measured) -> Vec<Required> {
    let all = known();
    let others = || all.iter().filter(|strategy| strategy.name != OURS);
    let keepers: Vec<_> = others().filter(|strategy| strategy.promises.all_kept()).collect();
    let breakers: Vec<_> = others().filter(|strategy| !strategy.promises.all_kept()).collect();
    let others: Vec<_> = others().collect();
    let alone = || {
        let tables = [BY_ADDRESS, BY_GUEST_ADDRESS].into_iter().flat_map(|workload| measured.of(workload));
        let cells = tables.filter(|table| table.n == 1).filter_map(|table| {
            against_best(table.column(ALONE)?, &format!("{}, {}", table.workload, table.title), &others)
        });
        cells.collect::<Vec<_>>()
    };
    let many = |n| n >= 64;
    let rows = [
        worst(
            "locked read, n >= 64: to the best that keeps all promises",
            locked_reads(measured, many, &keepers),
            1.0,
        ),
        worst("locked read, n = 1, 1 thread: to the best", alone(), 1.7),
        worst(
            "locked read, n >= 64: to the best that breaks a promise",
            locked_reads(measured, many, &breakers),
            1.2,
        ),
        plain(measured),
        tail(measured),
    ];
    rows.into_iter().flatten().collect()
}

/// Two threads on one device, to one thread.
fn plain(measured: &Measured) -> Option<Required> {
    let table = measured.of(PLAIN).next()?;
    let two = table.columns.iter().find(|column| column.threads == 2)?.of(OURS)?;
    let one = table.column(ALONE)?.of(OURS)?;
    let what = "registers without side effects, 2 threads on one device: to 1 thread";
    Some(Required::single(Row::new(what, &two.over(one), 1.5)))
}

/// A reader's p99.9 with a tenth adds and removes, to its p99.9 without.
fn tail(measured: &Measured) -> Option<Required> {
    let at = |per_mille: u32| {
        let ending = format!(", {} adds and removes", share(per_mille));
        measured.of(TAIL).find(|table| table.title.ends_with(&ending))?.column("p99.9")?.of(OURS)
    };
    let [none, .., most] = TAIL_SHARES;
    let what = format!("a reader's p99.9 with {} adds and removes: to its p99.9 without", share(most));
    Some(Required::single(Row::new(&what, &at(most)?.over(at(none)?), 3.0)))
}
