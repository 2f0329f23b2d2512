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
            faults: world.faults(),
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
            say(self.figures());
            say("");
            say(self.transitions());
            match self.violations {
                0 => say("\nevery promise was kept"),
                1 => say("\n1 violation: see above"),
                many => say(format_args!("\n{many} violations: see above")),
            }
        }
    }

    /// What went on all the time.
    fn figures(&self) -> Table {
        let Latency { p50, p99, p999, max } = self.latency_ns;
        let left = [
            ("accesses", grouped(self.accesses)),
            ("  that reached a device", grouped(self.hits)),
            ("  per second", grouped(self.accesses_per_second as u64)),
            ("latency p50", nanoseconds(p50)),
            ("  p99", nanoseconds(p99)),
            ("  p99.9", nanoseconds(p999)),
            ("  max", nanoseconds(max)),
        ];
        let right = [
            ("DMAs landed", grouped(self.dma.landed)),
            ("  blocked", grouped(self.dma.blocked)),
            ("interrupts delivered", grouped(self.interrupts.delivered)),
            ("  skipped", grouped(self.interrupts.skipped)),
            ("devices reported gone", grouped(self.removals.gone)),
            ("guests buried", grouped(self.domain_deaths)),
            ("faults injected", grouped(self.faults)),
        ];
        let mut table = Table::new();
        table.load_style(NOTHING);
        for ((left, first), (right, second)) in left.into_iter().zip(right) {
            table.add_row([left.to_owned(), first, format!("    {right}"), second]);
        }
        align(&mut table, &[1, 3])
    }

    /// What was asked for, and what stood in the way of removals.
    fn transitions(&self) -> Table {
        let Removals { ok, busy, refused, failed, cancelled, .. } = self.removals;
        let remove = Outcomes { ok, refused: busy + refused + cancelled, failed };
        let transitions = self.transitions.iter().map(|(what, outcomes)| (*what, *outcomes));
        let mut transitions: Vec<_> = transitions.chain([("remove", remove)]).collect();
        transitions.sort_unstable_by_key(|(what, _)| *what);
        let mut left = transitions.into_iter();
        let mut right = self.busy_by_holder.iter();
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.add_row(["", "ok", "refused", "failed", "    stood in the way of removals", ""]);
        loop {
            let (left, right) = (left.next(), right.next());
            if left.is_none() && right.is_none() {
                return align(&mut table, &[1, 2, 3, 5]);
            }
            let mut row = [const { String::new() }; 6];
            if let Some((what, Outcomes { ok, refused, failed })) = left {
                what.clone_into(&mut row[0]);
                [row[1], row[2], row[3]] = [ok, refused, failed].map(grouped);
            }
            if let Some((holder, times)) = right {
                [row[4], row[5]] = [format!("    {holder}"), grouped(*times)];
            }
            table.add_row(row);
        }
    }
}

/// Figures are read from the right.
fn align(table: &mut Table, figures: &[usize]) -> Table {
    for column in figures {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in 0..table.column_count() {
        if let Some(column) = table.column_mut(line) {
            column.set_padding((0, 1));
        }
    }
    table.clone()
}

/// Thousands apart, as people read them.
pub(crate) fn grouped(number: u64) -> String {
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
