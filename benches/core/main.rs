//! The core's benchmark: `cargo bench --bench core`.
//!
//! Two parts, because they answer two questions.
//!
//! *How does it compare?* Ratios between two things measured one after the other drift with the machine: on a
//! shared host the floor itself moves by a factor between minutes. So the first part measures all candidates of
//! a group in turn, round by round ([`measuring`]), floors included, and reports medians and ratios. It ends with
//! the table of what the core must reach ([`required`]), and with the memory a device costs ([`memory`]).
//!
//! *How does this one operation behave?* The second part hands the single-threaded candidates to criterion
//! ([`statistics`]), with its command line, baselines and statistics.
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench core` | both parts, under three minutes |
//! | `cargo bench --bench core -- --quick` | both, in under a minute, with wider spread |
//! | `cargo bench --bench core -- ratios` | the first part only; also `memory` |
//! | `cargo bench --bench core -- 'n=64/'` | criterion's groups that match, as usual |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench core -- ratios` | and writes `docs/measurements/core.md` and `core.json` |
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

mod access;
mod devices;
mod floors;
mod latency;
mod locks;
#[path = "../measuring/mod.rs"]
mod measuring;
mod memory;
mod neighbours;
mod required;
mod statistics;
mod transitions;

use measuring::asked::Asked;
use measuring::processors::{pin, processors};
use measuring::report::Report;
use measuring::rounds::{Effort, PLACEMENTS, Results};

fn main() {
    let asked = Asked::of(&["memory"]);
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
    let mut report = Report::new("core", "The core", asked.quick);
    if asked.wants("ratios") {
        let mut results = Results::default();
        measure(&mut results, &asked.effort());
        report.rows(required::rows(&results));
        report.groups(&results);
    }
    if asked.wants("memory") {
        report.memory("Memory over the devices' own state", &memory::count());
    }
    if asked.writes {
        report.write().expect("docs/measurements is written");
    }
}

fn measure(results: &mut Results, effort: &Effort) {
    floors::measure(results, effort);
    for placement in 0..PLACEMENTS {
        // Moves everything that is allocated next.
        let shift = vec![0_u8; 4096 + 1040 * placement];
        for n in devices::COUNTS {
            access::measure(results, &effort.fewer(PLACEMENTS), n);
        }
        access::measure_growth(results, &effort.fewer(PLACEMENTS));
        drop(shift);
    }
    for n in devices::COUNTS {
        transitions::measure(results, effort, n);
    }
    neighbours::measure(results, effort);
    latency::measure(results, effort);
}
