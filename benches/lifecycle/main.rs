//! The benchmark of the life of a device: `cargo bench --bench lifecycle`.
//!
//! Like the core's, in two parts: candidates of a group in turn, round by round ([`measuring`]), which gives the ratios
//! that must be reached ([`required`]), and criterion's statistics of the same candidates ([`statistics`]).
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench lifecycle` | both parts |
//! | `cargo bench --bench lifecycle -- --quick` | both, in less time, with wider spread |
//! | `cargo bench --bench lifecycle -- ratios` | the first part only; also one of its sections: `required`, `operations`, `memory` |
//! | `cargo bench --bench lifecycle -- 'n=64/'` | criterion's groups that match, as usual |
//! | `cargo bench --bench lifecycle -- --test` | each of criterion's once: does it run? |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench lifecycle -- ratios` | and writes `docs/measurements/lifecycle.md` and `lifecycle.json` |
//!
//! Everything runs on the simulated machine, nothing is bound to owners, and every function has MSI, MSI-X, FLR and
//! ATS: some ten hooks in each direction of an assignment. The hooks do little, so what is measured is the life cycle.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod assignment;
mod hanging;
mod machine;
#[path = "../measuring/mod.rs"]
mod measuring;
mod memory;
mod operations;
mod release;
mod required;
mod statistics;
mod watching;

use measuring::asked::Asked;
use measuring::processors::{pin, processors};
use measuring::report::Report;
use measuring::rounds::{Effort, Results};

fn main() {
    let asked = Asked::of(&["required", "operations", "memory"]);
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

fn interleaved(asked: &Asked) {
    let mut report = Report::new("lifecycle", "The life of a device", asked.quick);
    if asked.wants("required") {
        let mut results = Results::default();
        measure(&mut results, &asked.effort());
        report.rows(required::rows(&results));
        report.groups(&results);
    }
    if asked.wants("operations") {
        let mut results = Results::default();
        for n in machine::COUNTS {
            operations::measure(&mut results, &asked.effort(), n);
        }
        report.side_by_side("Operations", "operation", "operations", &results);
    }
    if asked.wants("memory") {
        report.memory("Memory over the devices' own state", &memory::count());
    }
    if asked.writes {
        report.write().expect("docs/measurements is written");
    }
}

fn measure(results: &mut Results, effort: &Effort) {
    assignment::measure(results, effort);
    release::measure(results, effort);
    hanging::measure(results, effort);
    watching::measure(results, effort);
}
