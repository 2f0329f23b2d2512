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
//! | `cargo bench --bench core` | both parts, under three minutes |
//! | `cargo bench --bench core -- --quick` | both, in under a minute, with wider spread |
//! | `cargo bench --bench core -- ratios` | the first part only; also `memory`, `strategies` |
//! | `cargo bench --bench core -- 'n=64/'` | criterion's groups that match, as usual |
//! | `PCIDEVS_BENCH_WRITE=1 cargo bench --bench core -- ratios` | and writes `docs/measurements/core.md` and `core.json` |
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]

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

use rounds::{Effort, PLACEMENTS, Results};

fn main() {
    let asked = Asked::from_command_line();
    // Before this thread is pinned and sees one processor only.
    let _ = devices::processors();
    devices::pin(0);
    if !matches!(asked.parts, Parts::Criterion) {
        interleaved(&asked);
    }
    if asked.wants_statistics() {
        statistics::run(asked.quick);
    }
}

fn interleaved(asked: &Asked) {
    let mut report = report::Report::new(asked.quick);
    if asked.wants("ratios") {
        let mut results = Results::default();
        measure(&mut results, &asked.effort());
        report.rows(required::rows(&results));
        report.groups(&results);
    }
    if asked.wants("memory") {
        report.memory(&memory::count());
    }
    if asked.wants("strategies") {
        let mut results = Results::default();
        strategies::measure(&mut results, &asked.effort());
        report.strategies(&results);
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

/// What the command line and the environment ask of the parts that are not criterion's.
struct Asked {
    quick: bool,
    /// Write what was measured under `docs/`.
    writes: bool,
    parts: Parts,
}

/// What to run.
enum Parts {
    All,
    /// One of [`SECTIONS`].
    Section(String),
    /// There is an option or a filter for criterion.
    Criterion,
}

const SECTIONS: [&str; 3] = ["ratios", "memory", "strategies"];

impl Asked {
    /// Criterion parses the same arguments later and complains about what it does not know.
    fn from_command_line() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let mut others =
            arguments.iter().filter(|argument| !matches!(argument.as_str(), "--bench" | "--quick"));
        let parts = match others.next() {
            None => Parts::All,
            Some(section) if SECTIONS.contains(&section.as_str()) => Parts::Section(section.clone()),
            Some(_) => Parts::Criterion,
        };
        Self {
            quick: arguments.iter().any(|argument| argument == "--quick"),
            writes: std::env::var_os("PCIDEVS_BENCH_WRITE").is_some(),
            parts,
        }
    }

    /// "ratios" stands for the whole first part.
    fn wants(&self, section: &str) -> bool {
        match &self.parts {
            Parts::All => true,
            Parts::Section(asked) => asked == section || asked == "ratios",
            Parts::Criterion => false,
        }
    }

    fn wants_statistics(&self) -> bool {
        !matches!(self.parts, Parts::Section(_))
    }

    fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }
}
