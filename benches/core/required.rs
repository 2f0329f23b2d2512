//! What the core must reach, as ratios within one run.

use crate::access::{GROWTH, one_thread, two_threads};
use crate::neighbours;
use crate::rounds::{Results, Series, Spread};
use crate::transitions;

/// One requirement and what was measured.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ratio: Spread,
    pub(crate) at_most: f64,
}

impl Row {
    pub(crate) fn reached(&self) -> bool {
        self.ratio.median <= self.at_most
    }
}

fn row(what: &str, ratio: &Series, at_most: f64) -> Row {
    Row { what: what.to_owned(), ratio: ratio.spread(), at_most }
}

pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let one = |name: &str, floor: &str| {
        let group = one_thread(64);
        results.series(&group, name).over(results.series(&group, floor))
    };
    let mut rows = vec![
        row("L at n=64, to a lock pair", &one("L", "lock pair"), 1.25),
        row("L by guest address at n=64, to a lock pair", &one("L by guest address", "lock pair"), 1.4),
        row("L at n=64 with spin locks, to a spin lock pair", &one("L, spin", "lock pair, spin"), 1.25),
        row("L at n=64, to slot known (stricter)", &one("L", "slot known, lock, read"), 1.25),
        row("G at n=64, to an xadd pair", &one("G", "xadd pair"), 1.25),
        row("G named at n=64, to an xadd pair", &one("G named", "xadd pair"), 6.0),
    ];
    let growth = |name: &str, floor: &str| results.series(GROWTH, name).over(results.series(GROWTH, floor));
    for what in ["G", "L", "L by guest address"] {
        rows.push(row(
            &format!("{what}, 4096 devices to 64"),
            &growth(&format!("{what}, n=4096"), &format!("{what}, n=64")),
            1.3,
        ));
    }
    rows.push(row(
        "slot known itself, 4096 devices to 64 (what the caches allow)",
        &growth("slot known, lock, read, n=4096", "slot known, lock, read, n=64"),
        1.3,
    ));
    for what in ["L", "L by guest address"] {
        rows.push(row(
            &format!("{what} at n=65536, to slot known"),
            &growth(&format!("{what}, n=65536"), "slot known, lock, read, n=65536"),
            1.6,
        ));
    }
    for what in ["L", "L by guest address", "G"] {
        let two = |name: &str| results.series(&two_threads(64), name);
        let slowdown = two(&format!("{what}, different")).over(two(what));
        let floor = two("lock pair, 2 threads, private").over(two("lock pair"));
        let what = format!("{what}, 2 threads, different: slowdown to that of two private lock pairs");
        rows.push(row(&what, &slowdown.over(&floor), 1.1));
    }
    let beside = |name: &str, floor: &str| {
        results.series(neighbours::GROUP, name).over(results.series(neighbours::GROUP, floor))
    };
    rows.push(row(
        "L, 2 threads, while a third adds and removes neighbours",
        &beside("2 readers and a third party", "2 readers"),
        1.3,
    ));
    rows.push(row(
        "L, 1 thread, while another adds and removes neighbours",
        &beside("1 reader and another party", "1 reader"),
        1.3,
    ));
    for n in [64, 4096, 65536] {
        for what in ["add", "add, first at its address", "remove"] {
            let group = transitions::group(n);
            let ratio = results.series(&group, what).over(results.series(&group, "lock pair"));
            rows.push(row(&format!("{what} at n={n}, to a lock pair"), &ratio, 200.0));
        }
    }
    rows
}
