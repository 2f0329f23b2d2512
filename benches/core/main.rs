//! The core's benchmark: `cargo bench --bench core`.
//!
//! Two parts, because they answer two questions.
//!
//! *How does it compare?* Ratios between two things measured one after the other drift with the machine: on a
//! shared host the floor itself moves by a factor between minutes. So the first part measures all candidates of
//! a group in turn, round by round ([`rounds`]), floors included, and reports medians and ratios. It ends with
//! the table of what the core must reach ([`required`]), and with the memory a device costs ([`memory`]).
//!
//! *How does this one operation behave?* The second part hands the single-threaded candidates to criterion
//! ([`statistics`]), with its command line, baselines and statistics.
//!
//! | command | what runs |
//! |---|---|
//! | `cargo bench --bench core` | both parts, about four minutes |
//! | `cargo bench --bench core -- --quick` | both, in under a minute, with wider spread |
//! | `cargo bench --bench core -- ratios` | the first part only; also `memory`, `strategies` |
//! | `cargo bench --bench core -- 'n=64/'` | criterion's groups that match, as usual |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench core -- ratios` | and writes `docs/measurements/core.md` and `core.json` |
#![forbid(unsafe_op_in_unsafe_fn)]

mod access;
mod allocation;
mod devices;
mod floors;
mod latency;
mod locks;
mod memory;
mod neighbours;
mod report;
mod required;
mod rounds;
mod statistics;
mod strategies;
mod transitions;

use rounds::{Effort, Results};

fn main() {
    let asked = Asked::from_command_line();
    devices::pin(0);
    let mut report = report::Report::new(asked.quick);
    if asked.wants("ratios") {
        let mut results = Results::default();
        measure(&mut results, &asked.effort());
        report.rows(required::rows(&results));
        report.groups(&results);
    }
    if asked.wants("memory") || asked.wants("ratios") {
        report.memory(&memory::count());
    }
    if asked.wants("strategies") || asked.wants("ratios") {
        let mut results = Results::default();
        strategies::measure(&mut results, &asked.effort());
        report.strategies(&results);
    }
    if asked.writes {
        report.write().expect("docs/measurements is written");
    }
    if asked.statistics {
        statistics::run(asked.quick);
    }
}

fn measure(results: &mut Results, effort: &Effort) {
    floors::measure(results, effort);
    for n in devices::COUNTS {
        access::measure(results, effort, n);
    }
    access::measure_growth(results, effort);
    for n in devices::COUNTS {
        transitions::measure(results, effort, n);
    }
    neighbours::measure(results, effort);
    latency::measure(results, effort);
}

/// What the command line and the environment ask of the parts that are not criterion's.
struct Asked {
    quick: bool,
    writes: bool,
    statistics: bool,
    section: Option<String>,
    interleaved: bool,
}

const SECTIONS: [&str; 3] = ["ratios", "memory", "strategies"];

impl Asked {
    /// Criterion parses the same arguments later and complains about what it does not know.
    fn from_command_line() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let section = arguments.iter().find(|argument| SECTIONS.contains(&argument.as_str())).cloned();
        // Options that make criterion do something else than measuring, and filters, are criterion's alone.
        let others = arguments.iter().any(|argument| argument != "--bench" && argument != "--quick");
        Self {
            quick: has("--quick"),
            writes: std::env::var_os("PCIDEVS_BENCH_WRITE").is_some(),
            statistics: section.is_none(),
            interleaved: section.is_some() || !others,
            section,
        }
    }

    fn wants(&self, section: &str) -> bool {
        self.interleaved && self.section.as_deref().is_none_or(|asked| asked == section)
    }

    fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }
}
