//! What the configuration space must reach, as ratios within one run.

use crate::measuring::pair::LOCK_PAIR;
use crate::measuring::requirement::Row;
use crate::measuring::rounds::{Results, Series, Spread};
use crate::registers::{COUNTS, read_of, write_of};
use crate::{exits, neighbours, registers, slow};

pub(crate) fn registers(results: &Results) -> Vec<Row> {
    let ratio = |name: &str, floor: &str| {
        results.series(registers::GROUP, name).over(results.series(registers::GROUP, floor))
    };
    let mut rows = Vec::new();
    let [fewest, more @ ..] = COUNTS;
    for of in [read_of, write_of] {
        for count in COUNTS {
            let name = of(count);
            rows.push(Row::new(&format!("{name}, to a lock pair"), &ratio(&name, LOCK_PAIR), 2.0));
        }
        for count in more {
            let (name, floor) = (of(count), of(fewest));
            rows.push(Row::new(&format!("{name}, to {fewest}"), &ratio(&name, &floor), 1.2));
        }
    }
    rows
}

/// How much slower two vCPUs on different devices are than one, to how much slower two private lock pairs are than one.
fn slowdown_of(results: &Results, what: &str) -> Series {
    neighbours::slowdown(results, what).over(&neighbours::slowdown(results, LOCK_PAIR))
}

const ONE_READS_ONE_WRITES: &str =
    "2 vCPUs, different devices, one reads, one writes: slowdown to that of two private lock pairs";

pub(crate) fn neighbours(results: &Results) -> Vec<Row> {
    vec![Row::new(ONE_READS_ONE_WRITES, &slowdown_of(results, neighbours::OURS), 1.1)]
}

/// What Xen's locks and lists make of the same accesses.
pub(crate) fn of_xen(results: &Results) -> Vec<(String, Spread)> {
    let xen = neighbours::XEN;
    let to_ours = |name: fn(&str) -> String| {
        let of = |what| results.series(neighbours::GROUP, &name(what));
        (format!("{}, to ours", name(xen)), of(xen).over(of(neighbours::OURS)).spread())
    };
    vec![
        (format!("{ONE_READS_ONE_WRITES}; {xen}"), slowdown_of(results, xen).spread()),
        to_ours(neighbours::reads),
        to_ours(neighbours::writes),
        to_ours(neighbours::together),
    ]
}

pub(crate) fn exits(results: &Results) -> Vec<Row> {
    let alone = |name: &str| results.series(exits::ALONE, name).over(results.series(exits::ALONE, LOCK_PAIR));
    let mut rows: Vec<Row> = [
        (exits::ECAM_READ, 2.5),
        (exits::ECAM_READ_MIXED, 2.5),
        (exits::ECAM_WRITE, 2.5),
        (exits::PORTS_READ, 4.0),
        (exits::BAR_READ, 2.0),
        (exits::BAR_WRITE, 2.0),
        (exits::BAR_READ_AGAIN, 2.0),
    ]
    .into_iter()
    .map(|(name, at_most)| {
        Row::new(&format!("{name}, the whole path, to a lock pair"), &alone(name), at_most)
    })
    .collect();
    let two = |name: &str| results.series(exits::TOGETHER, name);
    let floor: Series = two(exits::PRIVATE_PAIRS).over(two(LOCK_PAIR));
    for name in [exits::ECAM_READ, exits::ECAM_WRITE, exits::BAR_READ, exits::BAR_WRITE] {
        let slowdown = two(&exits::different(name)).over(two(name)).over(&floor);
        let what = format!("{name}, 2 vCPUs, different devices: slowdown to that of two private lock pairs");
        rows.push(Row::new(&what, &slowdown, 1.1));
    }
    rows
}

pub(crate) fn slow(results: &Results) -> Vec<Row> {
    let of = |name: &str| results.series(slow::GROUP, name);
    [slow::ECAM_READ, slow::BAR_READ]
        .into_iter()
        .map(|name| {
            let what = format!("{name} while one's handler takes 5 µs half of the time, mean to mean");
            Row::new(&what, &of(&slow::beside(name)).over(of(name)), 1.1)
        })
        .collect()
}
