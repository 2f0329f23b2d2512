//! Lock strategies, compared in the open: `cargo bench --bench lock_strategies`.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod asked;
mod cell;
mod device;
mod floors;
mod measured;
#[expect(dead_code, reason = "some of it is for the benchmarks that also use criterion")]
#[path = "../measuring/mod.rs"]
mod measuring;
mod strategies;
mod strategy;
mod trial;
mod workloads;

use asked::Asked;
use measured::Measured;
use measuring::processors::{pin, processors};
use workloads::Run;

fn main() -> Result<(), String> {
    let asked = Asked::from_command_line()?;
    // Before this thread is pinned and sees one processor only.
    let processors = processors().len().max(1);
    pin(0);
    let start = std::time::Instant::now();
    let mut measured = Measured::default();
    workloads::measure(&mut Run { asked: &asked, processors, measured: &mut measured });
    for table in &measured.tables {
        println!("\n{}: {} ({})", table.workload, table.title, table.unit.name());
        for name in table.names() {
            print!("{name:<34}");
            for column in &table.columns {
                let figure = column.of(name).map_or(0.0, |series| series.spread().median);
                print!(" {:>9.1} [{:>5.2}]", figure, column.ratio(name).map_or(0.0, |ratio| ratio.median));
            }
            println!();
        }
    }
    println!("{:?}", start.elapsed());
    Ok(())
}
