//! The benchmark of the host manager: `cargo bench --bench host`.
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench host` | all of it, two minutes |
//! | `cargo bench --bench host -- --quick` | in fewer rounds |
//! | `cargo bench --bench host -- --test` | once: does it run? |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench host -- ratios` | and writes `docs/measurements/host.md` and `host.json` |
//!
//! Everything runs on the kernel in memory, whose drivers probe as long as they are told to and whose unbinds hang where
//! they are told to. So what is measured is the manager: what it adds, and what waits for what. All threads share one
//! processor.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod looking;
#[path = "../measuring/mod.rs"]
#[allow(dead_code, reason = "operations of milliseconds need none of its care for nanoseconds")]
mod measuring;
mod moving;

use measuring::asked::Asked;
use measuring::processors::{pin, processors};
use measuring::report::Report;
use measuring::rounds::Results;

fn main() {
    let asked = Asked::of(&[]);
    // Before this thread is pinned and sees one processor only.
    let _ = processors();
    pin(0);
    let rounds = match (asked.wants_rounds(), asked.quick) {
        (true, false) => 21,
        (true, true) => 5,
        // Somebody wants to know whether it runs.
        (false, _) => 1,
    };
    let mut results = Results::default();
    let mut rows = looking::measure(&mut results, rounds);
    rows.extend(moving::measure(&mut results, rounds));
    if !asked.wants_rounds() {
        return;
    }
    let mut report = Report::new("host", "The host manager", asked.quick);
    report.rows(rows);
    report.groups(&results);
    if asked.writes {
        report.write().expect("docs/measurements is written");
    }
}
