//! The pictures: which there are, and what they show.

mod lines;
mod rows;
mod svg;

use crate::measured::{Column, Measured, Table};
use crate::strategies::{Pcidevs, known};
use crate::strategy::Strategy;
use crate::workloads::{ALONE, BY_ADDRESS, CHURN, DOMAINS, HOOK, MEMORY, STORM, TAIL, TAIL_SHARES, share};
use lines::{Lines, Place};
use rows::{Mark, Rows};

/// A finished picture.
pub(crate) struct Picture {
    /// The part of the file's name that is its own.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) svg: String,
}

/// What a strategy is in the pictures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Keeps,
    Breaks,
    Floor,
}

fn kind(name: &str) -> Kind {
    match known().iter().find(|strategy| strategy.name == name) {
        _ if name == <Pcidevs as Strategy>::NAME => Kind::Ours,
        Some(strategy) if strategy.promises.all_kept() => Kind::Keeps,
        Some(_) => Kind::Breaks,
        None => Kind::Floor,
    }
}

const NOTE: &str = "† breaks a promise of removal (see the table of promises). Logarithmic scale.";

/// The pictures that can be drawn of what was measured.
pub(crate) fn all(measured: &Measured, machine: &str) -> Vec<Picture> {
    let pictures = [
        reading(measured, machine),
        growing(measured, machine),
        churning(measured, machine),
        domains(measured, machine),
        tails(measured, machine),
        hooks(measured, machine),
        storms(measured, machine),
        memory(measured),
    ];
    pictures.into_iter().flatten().collect()
}

/// The table of the workload with 64 devices, or the largest there is below.
fn at_64<'a>(measured: &'a Measured, workload: &'static str) -> Option<&'a Table> {
    measured.of(workload).filter(|table| table.n <= 64).max_by_key(|table| table.n)
}

fn rows_picture(name: &'static str, rows: &Rows<'_>) -> Picture {
    Picture { name, title: rows.title.to_owned(), svg: rows::draw(rows) }
}

fn lines_picture(name: &'static str, lines: &Lines<'_>) -> Option<Picture> {
    (lines.places.len() > 1).then(|| Picture { name, title: lines.title.to_owned(), svg: lines::draw(lines) })
}

/// A mark for every column.
fn marks(table: &Table) -> Vec<Mark<'_>> {
    table.columns.iter().map(|column| Mark { label: column.name.clone(), column }).collect()
}

fn reading(measured: &Measured, machine: &str) -> Option<Picture> {
    let table = at_64(measured, BY_ADDRESS)?;
    let most = table.columns.iter().map(|column| column.threads).max()?;
    let mut marks = marks(table);
    marks.retain(|mark| [1, most].contains(&mark.column.threads));
    Some(rows_picture(
        "read",
        &Rows {
            title: "A locked config read, by address",
            subtitle: format!("{}; medians, bars to the quartiles; {machine}", table.title),
            axis: "ns per read and thread",
            marks,
        },
    ))
}

fn growing(measured: &Measured, machine: &str) -> Option<Picture> {
    let places = measured
        .of(BY_ADDRESS)
        .filter_map(|table| Some(Place { label: table.n.to_string(), column: table.column(ALONE)? }));
    lines_picture(
        "size",
        &Lines {
            title: "A locked config read, and how many devices there are",
            subtitle: format!("1 thread; medians of rounds; {machine}"),
            below: "devices (n)",
            left: "ns per read",
            places: places.collect(),
        },
    )
}

fn churning(measured: &Measured, machine: &str) -> Option<Picture> {
    let most = |table: &&Table| (table.columns.first().map_or(0, |column| column.threads), table.n);
    let table = measured.of(CHURN).max_by_key(most)?;
    lines_picture(
        "churn",
        &Lines {
            title: "Locked reads while devices come and go",
            subtitle: format!("{}; medians of rounds' means; {machine}", table.title),
            below: "operations that are an add or a remove",
            left: "ns per operation and thread",
            places: table.columns.iter().map(place).collect(),
        },
    )
}

fn place(column: &Column) -> Place<'_> {
    Place { label: column.name.clone(), column }
}

fn domains(measured: &Measured, machine: &str) -> Option<Picture> {
    let places = measured.of(DOMAINS).filter_map(|table| {
        let (label, _) = table.title.split_once(" domain")?;
        Some(Place { label: label.to_owned(), column: table.column(ALONE)? })
    });
    lines_picture(
        "domains",
        &Lines {
            title: "A locked config read by guest address, and how many domains there are",
            subtitle: format!(
                "16 devices in each domain, visited in random order; 1 thread; medians of rounds; {machine}"
            ),
            below: "domains",
            left: "ns per read",
            places: places.collect(),
        },
    )
}

fn tails(measured: &Measured, machine: &str) -> Option<Picture> {
    let of_share = |per_mille: u32| {
        let ending = format!(", {} adds and removes", share(per_mille));
        measured.of(TAIL).find(move |table| table.title.ends_with(&ending))
    };
    let [none, .., most] = TAIL_SHARES;
    let (quiet, busy) = (of_share(none)?, of_share(most)?);
    let mark = |table, percentile: &str, label: String| {
        Some(Mark { label, column: Table::column(table, percentile)? })
    };
    let marks = [
        mark(busy, "p50", format!("p50, {}", share(most))),
        mark(busy, "p99", format!("p99, {}", share(most))),
        mark(busy, "p99.9", format!("p99.9, {}", share(most))),
        mark(quiet, "p99.9", format!("p99.9, {}", share(none))),
    ];
    Some(rows_picture(
        "tail",
        &Rows {
            title: "How long single reads take while neighbours come and go",
            subtitle: format!("{}; the clock is in every sample; {machine}", busy.title),
            axis: "ns",
            marks: marks.into_iter().flatten().collect(),
        },
    ))
}

fn hooks(measured: &Measured, machine: &str) -> Option<Picture> {
    let table = measured.of(HOOK).next()?;
    let mut marks = marks(table);
    marks.retain(|mark| mark.label.starts_with("p99.9"));
    Some(rows_picture(
        "hook",
        &Rows {
            title: "Reads of other devices while one device is assigned and released",
            subtitle: format!("{}; the clock is in every sample; {machine}", table.title),
            axis: "ns",
            marks,
        },
    ))
}

fn storms(measured: &Measured, machine: &str) -> Option<Picture> {
    let table = measured.of(STORM).next()?;
    let most = table.columns.iter().map(|column| column.threads).max()?;
    let mut marks = marks(table);
    marks.retain(|mark| [1, most].contains(&mark.column.threads));
    Some(rows_picture(
        "assign",
        &Rows {
            title: "A device assigned to a guest and released",
            subtitle: format!("{}; medians, bars to the quartiles; {machine}", table.title),
            axis: "ns for both, per thread",
            marks,
        },
    ))
}

fn memory(measured: &Measured) -> Option<Picture> {
    let table = measured.of(MEMORY).next()?;
    Some(rows_picture(
        "memory",
        &Rows {
            title: "Memory for a device, over its own 128 bytes",
            subtitle:
                "bytes asked of the allocator, divided by the devices; functions of whole buses unless said"
                    .to_owned(),
            axis: "bytes",
            marks: marks(table),
        },
    ))
}
