//! The result of a storm, as a table or as one line of JSON.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, positive and far below 2^52"
)]

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::say;
use super::statistics::{Dmas, Interrupts, Outcomes, Removals, Statistics};
use super::world::World;
use crate::source::fail;

/// The result; its field names are the JSON's.
#[derive(Serialize)]
pub(crate) struct Report {
    functions: usize,
    segments: usize,
    vcpus: u32,
    seconds: f64,
    accesses: u64,
    accesses_per_second: f64,
    latency_ns: Latency,
    dma: Dmas,
    interrupts: Interrupts,
    removals: Removals,
    busy_by_holder: BTreeMap<String, u64>,
    /// Changes of owner.
    moves: u64,
    transitions: BTreeMap<&'static str, Outcomes>,
    domain_deaths: u64,
    faults: u64,
    violations: u64,
    #[serde(skip)]
    hits: u64,
}

#[derive(Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// Those that change an owner.
const MOVES: [&str; 6] = ["assign", "assign group", "assign set", "deassign", "quarantine", "unplug"];

impl Report {
    /// Checks what is left of the world, and sums up.
    pub(crate) fn new(world: World, vcpus: u32, seconds: f64, mut statistics: Statistics) -> Self {
        if world.judge().violations() == 0
            && let Err(error) = world.shut_down(&mut statistics)
        {
            world.violation(format_args!("the last checks could not be made: {error}"));
        }
        let latency = &statistics.latency;
        let latency_ns = Latency {
            p50: latency.value_at_quantile(0.5),
            p99: latency.value_at_quantile(0.99),
            p999: latency.value_at_quantile(0.999),
            max: latency.max(),
        };
        let moves = MOVES.iter().filter_map(|what| statistics.transitions.get(what)).map(|moves| moves.ok);
        let report = Self {
            functions: world.plan().len(),
            segments: world.plan().segments,
            vcpus,
            seconds,
            accesses: statistics.accesses,
            accesses_per_second: statistics.accesses as f64 / seconds,
            latency_ns,
            moves: moves.sum(),
            dma: statistics.dmas,
            interrupts: statistics.interrupts,
            removals: statistics.removals,
            busy_by_holder: statistics.busy_by_holder,
            transitions: statistics.transitions,
            domain_deaths: statistics.domain_deaths,
            faults: world.platform().injected() + world.mishaps().happened(),
            violations: world.judge().violations(),
            hits: statistics.hits,
        };
        if report.violations > 0 {
            // A core that has broken a promise is not trusted with its own teardown.
            std::mem::forget(world);
        }
        report
    }

    /// Every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations == 0
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            match serde_json::to_string(self) {
                Ok(line) => say(line),
                Err(error) => drop(fail(&error)),
            }
        } else {
            say(self.table());
            match self.violations {
                0 => say("every promise was kept"),
                1 => say("1 violation: see above"),
                many => say(format_args!("{many} violations: see above")),
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let mut row = |what: &str, figure: String| {
            table.add_row([what.to_owned(), figure]);
        };
        row("accesses", grouped(self.accesses));
        row("  that reached a device", grouped(self.hits));
        row("  per second", grouped(self.accesses_per_second as u64));
        row("latency p50", nanoseconds(self.latency_ns.p50));
        row("  p99", nanoseconds(self.latency_ns.p99));
        row("  p99.9", nanoseconds(self.latency_ns.p999));
        row("  max", nanoseconds(self.latency_ns.max));
        row("DMAs landed", grouped(self.dma.landed));
        row("  blocked", grouped(self.dma.blocked));
        row("interrupts delivered", grouped(self.interrupts.delivered));
        row("  skipped", grouped(self.interrupts.skipped));
        row("removals ok", grouped(self.removals.ok));
        row("  cancelled", grouped(self.removals.cancelled));
        row("  reported gone", grouped(self.removals.gone));
        row("  failed", grouped(self.removals.failed));
        row("  busy", grouped(self.removals.busy));
        for (holder, times) in &self.busy_by_holder {
            row(&format!("    {holder}"), grouped(*times));
        }
        for (what, Outcomes { ok, refused, failed }) in &self.transitions {
            row(what, format!("{ok} ok {refused} refused {failed} failed"));
        }
        row("domain deaths", grouped(self.domain_deaths));
        row("faults", grouped(self.faults));
        row("violations", grouped(self.violations));
        if let Some(figures) = table.column_mut(1) {
            figures.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// Thousands apart, as people read them.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn nanoseconds(time: u64) -> String {
    match time {
        0..10_000 => format!("{time} ns"),
        10_000..10_000_000 => format!("{:.1} µs", time as f64 / 1e3),
        _ => format!("{:.1} ms", time as f64 / 1e6),
    }
}
