//! Lock strategies, compared in the open: `cargo bench --bench lock_strategies`.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod asked;
mod cell;
mod device;
mod floors;
#[expect(dead_code, reason = "some of it is for the benchmarks that also use criterion")]
#[path = "../measuring/mod.rs"]
mod measuring;
mod strategies;
mod strategy;
mod workloads;

use asked::Asked;
use cell::Cell;
use measuring::processors::{pin, processors};
use measuring::report::Report;
use measuring::rounds::Results;

fn main() -> Result<(), String> {
    let asked = Asked::from_command_line()?;
    // Before this thread is pinned and sees one processor only.
    let processors = processors().len().max(1);
    pin(0);
    let mut results = Results::default();
    for n in [1, 64, 4096] {
        for cell in Cell::all(n, processors) {
            workloads::access::measure(&mut results, &asked, &asked.effort(), cell);
        }
    }
    let mut report = Report::new("lock_strategies", "Lock strategies", true);
    report.groups(&results);
    Ok(())
}
