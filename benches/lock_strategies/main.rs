//! Lock strategies, compared in the open: `cargo bench --bench lock_strategies`.
//!
//! What does replacing a global lock buy? Every strategy that is or was proposed, each behind the same trait
//! ([`strategy`]), under the same workloads ([`workloads`]), in the same interleaved rounds ([`measuring`]) as the
//! floors that nothing can be faster than ([`floors`]). What pcidevs must reach against the others is computed at the
//! end and printed whether it is reached or not ([`required`]). `docs/lock-strategies.md` is the guide.
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench lock_strategies` | everything, some ten minutes; writes `docs/measurements/lock_strategies*` |
//! | `cargo bench --bench lock_strategies -- --quick` | the sizes that decide, under two minutes; writes nothing |
//! | `cargo bench --bench lock_strategies -- --filter papaya` | strategies with this in their name, and the floors; writes nothing |
//! | `cargo bench --bench lock_strategies -- --test` | seconds: does everything run? |
//!
//! With `--write`, or `PCIDEVS_BENCH_WRITE=1`, the others write as well. The tests of what the strategies promise are
//! beside them: `cargo test --test lock_strategies`.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod asked;
mod cell;
mod device;
mod floors;
mod measured;
#[expect(dead_code, reason = "some of it is for the benchmarks that also use criterion")]
#[path = "../measuring/mod.rs"]
mod measuring;
mod pictures;
mod report;
mod required;
mod strategies;
mod strategy;
mod trial;
mod workloads;

use asked::Asked;
use measured::Measured;
use measuring::processors::{pin, processors};
use report::Report;
use workloads::Run;

fn main() -> Result<(), String> {
    let asked = Asked::from_command_line()?;
    // Before this thread is pinned and sees one processor only.
    let processors = processors().len().max(1);
    pin(0);
    let start = std::time::Instant::now();
    let mut measured = Measured::default();
    workloads::measure(&mut Run { asked: &asked, processors, measured: &mut measured });
    let required = required::rows(&measured);
    let report = Report::of(&asked, &measured, &required);
    println!("{}", report.text());
    if asked.writes {
        let written =
            report.write().map_err(|error| format!("docs/measurements cannot be written: {error}"))?;
        for path in written {
            println!("written: {}", path.display());
        }
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
