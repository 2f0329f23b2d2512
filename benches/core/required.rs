//! What the core must reach, as ratios within one run.

use crate::access::{GROWTH, one_thread, two_threads};
use crate::measuring::pair::LOCK_PAIR;
use crate::measuring::requirement::Row;
use crate::measuring::rounds::Results;
use crate::neighbours;
use crate::transitions;

pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let one = |name: &str, floor: &str| {
        let group = one_thread(64);
        results.series(&group, name).over(results.series(&group, floor))
    };
    let mut rows = vec![
        Row::new("L at n=64, to a lock pair", &one("L", LOCK_PAIR), 1.25),
        Row::new("L by guest address at n=64, to a lock pair", &one("L by guest address", LOCK_PAIR), 1.4),
        Row::new("L at n=64 with spin locks, to a spin lock pair", &one("L, spin", "lock pair, spin"), 1.25),
        Row::new("L at n=64, to slot known (stricter)", &one("L", "slot known, lock, read"), 1.25),
        Row::new("G at n=64, to an xadd pair", &one("G", "xadd pair"), 1.25),
        Row::new("G named at n=64, to an xadd pair", &one("G named", "xadd pair"), 6.0),
    ];
    let growth = |name: &str, floor: &str| results.series(GROWTH, name).over(results.series(GROWTH, floor));
    for what in ["G", "L", "L by guest address"] {
        rows.push(Row::new(
            &format!("{what}, 4096 devices to 64"),
            &growth(&format!("{what}, n=4096"), &format!("{what}, n=64")),
            1.3,
        ));
    }
    rows.push(Row::new(
        "slot known itself, 4096 devices to 64 (what the caches allow)",
        &growth("slot known, lock, read, n=4096", "slot known, lock, read, n=64"),
        1.3,
    ));
    for what in ["L", "L by guest address"] {
        rows.push(Row::new(
            &format!("{what} at n=65536, to slot known"),
            &growth(&format!("{what}, n=65536"), "slot known, lock, read, n=65536"),
            1.6,
        ));
    }
    for what in ["L", "L by guest address", "G"] {
        let two = |name: &str| results.series(&two_threads(64), name);
        let slowdown = two(&format!("{what}, different")).over(two(what));
        let floor = two("lock pair, 2 threads, private").over(two(LOCK_PAIR));
        let what = format!("{what}, 2 threads, different: slowdown to that of two private lock pairs");
        rows.push(Row::new(&what, &slowdown.over(&floor), 1.1));
    }
    let beside = |name: &str, floor: &str| {
        results.series(neighbours::GROUP, name).over(results.series(neighbours::GROUP, floor))
    };
    rows.push(Row::new(
        "L, 2 threads, while a third adds and removes neighbours",
        &beside("2 readers and a third party", "2 readers"),
        1.3,
    ));
    rows.push(Row::new(
        "L, 1 thread, while another adds and removes neighbours",
        &beside("1 reader and another party", "1 reader"),
        1.3,
    ));
    for n in [64, 4096, 65536] {
        for what in ["add", "add, first at its address", "remove"] {
            let group = transitions::group(n);
            let ratio = results.series(&group, what).over(results.series(&group, LOCK_PAIR));
            rows.push(Row::new(&format!("{what} at n={n}, to a lock pair"), &ratio, 200.0));
        }
    }
    rows
}
