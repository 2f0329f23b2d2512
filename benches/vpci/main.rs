//! The benchmark of the configuration space: `cargo bench --bench vpci`.
//!
//! Like the core's, in two parts: candidates of a group in turn, round by round ([`measuring`]), which gives the ratios
//! that must be reached ([`required`]), and criterion's statistics of the same candidates ([`statistics`]).
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench vpci` | both parts |
//! | `cargo bench --bench vpci -- --quick` | both, in less time, with wider spread |
//! | `cargo bench --bench vpci -- ratios` | the first part only; also one of its sections: `registers`, `xen`, `exits`, `slow`, `memory` |
//! | `cargo bench --bench vpci -- 'a whole exit/'` | criterion's groups that match, as usual |
//! | `cargo bench --bench vpci -- --test` | each of criterion's once: does it run? |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench vpci -- ratios` | and writes `docs/measurements/vpci.md` and `vpci.json` |
//!
//! | file | what |
//! |---|---|
//! | `registers` | one register of a device that has few or many: lookup, lock, handler |
//! | `xen` | the same accesses under locks as Xen has them |
//! | `neighbours` | two vCPUs on two devices, one reading, one writing: ours, Xen's, two private locks |
//! | `machine` | a guest with devices behind a bus |
//! | `exits` | what a VMM calls: ECAM, CF8 and CFC, BARs |
//! | `slow` | everybody else, while the handler of one device is slow |
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod exits;
mod machine;
#[path = "../measuring/mod.rs"]
mod measuring;
mod neighbours;
mod registers;
mod required;
mod slow;
mod statistics;
mod xen;

use measuring::asked::Asked;
use measuring::processors::{pin, processors};
use measuring::report::Report;
use measuring::requirement::Row;
use measuring::rounds::{Effort, PLACEMENTS, Results};

fn main() {
    let asked = Asked::of(&["registers", "xen", "exits", "slow", "memory"]);
    // Before this thread is pinned and sees one processor only.
    let _ = processors();
    pin(0);
    if asked.wants_rounds() {
        interleaved(&asked);
    }
    if asked.wants_statistics() {
        statistics::run(asked.quick);
    }
}

/// A part of the interleaved part: its name, how it is measured, and what it must reach.
type Section = (&'static str, fn(&mut Results, &Effort), fn(&Results) -> Vec<Row>);

const SECTIONS: [Section; 4] = [
    ("registers", registers::measure, required::registers),
    ("xen", neighbours::measure, required::neighbours),
    ("exits", exits::measure, required::exits),
    ("slow", slow::measure, required::slow),
];

fn interleaved(asked: &Asked) {
    let mut report = Report::new("vpci", "The configuration space", asked.quick);
    let (mut results, mut rows) = (Results::default(), Vec::new());
    for (_, measure, required) in SECTIONS.iter().filter(|(name, ..)| asked.wants(name)) {
        for placement in 0..PLACEMENTS {
            // Moves everything that is allocated next.
            let shift = vec![0_u8; 4096 + 1040 * placement];
            measure(&mut results, &asked.effort().fewer(PLACEMENTS));
            drop(shift);
        }
        rows.extend(required(&results));
    }
    report.rows(rows);
    if asked.wants("xen") {
        report.comparisons(&required::of_xen(&results));
    }
    report.groups(&results);
    if asked.wants("memory") {
        report.memory("Memory of a function over the device's own state", &machine::memory());
    }
    if asked.writes {
        report.write().expect("docs/measurements is written");
    }
}
