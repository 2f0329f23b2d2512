//! The two views for a person: a table by address, and the same table as a tree.
//!
//! Both have one layout for all segments, so columns line up down the whole page.

use std::collections::BTreeMap;

use anstyle::Style;
use pcidevs::Sbdf;
use pcidevs::topology::{Function, Machine};

use super::columns::{self, COLUMNS};
use super::hierarchy::{self, Node};
use super::known::Known;
use super::summary;
use super::table::{Cell, Layout};
use super::text::{count, shorten};

const HEADING: Style = Style::new().bold();

/// The functions of each segment in address order.
pub(super) fn flat(machine: &Machine, name: &str, known: &Known, room: Option<usize>) -> String {
    let rows = Rows::new(machine, known);
    page(machine, name, known, room, |segment| {
        segment.iter().map(|function| rows.row(function, "")).collect()
    })
}

/// Each function below what it is behind.
pub(super) fn tree(machine: &Machine, name: &str, known: &Known, room: Option<usize>) -> String {
    let rows = Rows::new(machine, known);
    page(machine, name, known, room, |segment| {
        let lines = hierarchy::lines(segment, machine, known).into_iter();
        let row = |line: hierarchy::Line<'_>| match line.node {
            Node::RootBus(bus) => vec![Cell::plain(format!("bus {bus}")).styled(HEADING)],
            Node::Function(function) => rows.row(function, &line.branches),
        };
        lines.map(row).collect()
    })
}

/// Makes rows of functions.
struct Rows<'k> {
    known: &'k Known,
    /// How many virtual functions a physical one has.
    vfs: BTreeMap<Sbdf, usize>,
}

impl<'k> Rows<'k> {
    fn new(machine: &Machine, known: &'k Known) -> Self {
        let mut vfs = BTreeMap::new();
        for pf in machine.functions.iter().filter_map(|function| function.physfn) {
            *vfs.entry(pf).or_default() += 1;
        }
        Self { known, vfs }
    }

    fn row(&self, function: &Function, branches: &str) -> Vec<Cell> {
        let status = self.known.status(function.address);
        let vfs = self.vfs.get(&function.address).copied().unwrap_or(0);
        columns::row(function, status.as_ref(), vfs, branches)
    }
}

/// Title, columns' titles, each segment's rows, totals.
fn page(
    machine: &Machine,
    name: &str,
    known: &Known,
    room: Option<usize>,
    rows: impl Fn(&[Function]) -> Vec<Vec<Cell>>,
) -> String {
    let same_segment = |one: &Function, next: &Function| one.address.segment() == next.address.segment();
    let segments = machine.functions.chunk_by(same_segment);
    let segments: Vec<_> = segments.map(|segment| (segment, rows(segment))).collect();
    let all = segments.iter().flat_map(|(_, rows)| rows.iter().map(Vec::as_slice));
    let layout = Layout::fit(COLUMNS, all, room);
    let title = summary::title(machine, name);
    let title = shorten(&title, room.unwrap_or(usize::MAX));
    let mut lines = vec![styled(HEADING, &title), String::new(), layout.titles(columns::TITLES)];
    for (place, (segment, rows)) in segments.iter().enumerate() {
        if place > 0 {
            lines.push(String::new());
        }
        lines.extend(segment.first().map(|first| {
            let functions = count(segment.len(), "function");
            styled(HEADING, &format!("segment {}: {functions}", first.address.segment()))
        }));
        lines.extend(rows.iter().map(|row| layout.line(row)));
    }
    lines.push(String::new());
    lines.push(summary::totals(machine, known, room));
    lines.push(String::new());
    lines.join("\n")
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
