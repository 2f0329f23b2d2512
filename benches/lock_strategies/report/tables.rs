//! The tables, as Markdown that is also readable on a terminal.

use std::fmt::Write as _;

use super::{NAME, Report};
use crate::floors::FLOOR;
use crate::measured::{Column, Table, Unit};
use crate::measuring::report::{figure, spread, table};
use crate::required::Required;
use crate::strategies::known;
use crate::strategy::Promise;
use crate::workloads::EXPLAINED;

/// What a run prints.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut text = promises();
    text.push_str(&measured(report));
    text.push_str(&required(report));
    text
}

/// What a run writes: the same with what must be reached first, and the pictures.
pub(super) fn document(report: &Report<'_>, pictures: &[(&str, String)]) -> String {
    let mut text = format!(
        "# Lock strategies, measured\n\n{}, pinned threads, {} run. Made by `cargo bench --bench {NAME}`, which writes \
         this page,\n`{NAME}.json` and the pictures. [How to read it](../lock-strategies.md).\n\n",
        report.machine,
        report.extent(),
    );
    text.push_str(&required(report));
    text.push_str(&promises());
    text.push_str("## Pictures\n\n");
    for (title, file) in pictures {
        let _ = write!(text, "![{title}]({file})\n\n");
    }
    text.push_str(&measured(report));
    text.trim_end().to_owned() + "\n"
}

fn promises() -> String {
    let mut rows = Vec::new();
    let mut head = vec!["strategy"];
    for strategy in known() {
        let named = strategy.promises.named();
        head.truncate(1);
        head.extend(named.iter().map(|(name, _)| *name));
        let kept = |promise: &Promise| match promise {
            Promise::Kept => "kept".to_owned(),
            Promise::Broken(instead) => format!("broken: {instead}"),
        };
        rows.push(
            [strategy.name.to_owned()]
                .into_iter()
                .chain(named.iter().map(|(_, kept_)| kept(kept_)))
                .collect(),
        );
    }
    format!("## Promises\n\n{}\n", table(&head, &rows))
}

fn measured(report: &Report<'_>) -> String {
    let mut text = String::new();
    let mut last = "";
    for of_workload in &report.measured.tables {
        if of_workload.workload != last {
            last = of_workload.workload;
            let explained = EXPLAINED.iter().find(|(workload, _)| *workload == last);
            let _ =
                write!(text, "## {}\n\n{}\n\n", capitalised(last), explained.map_or("", |(_, words)| words));
        }
        let _ = write!(text, "### {}\n\n{}\n", capitalised(&of_workload.title), one(of_workload));
    }
    text
}

fn one(of: &Table) -> String {
    let unit = of.unit.name();
    let rounds = |column: &Column| column.series.iter().map(|(_, series)| series.0.len()).max().unwrap_or(0);
    let heads: Vec<String> = of.columns.iter().map(|column| format!("{} ({unit})", column.name)).collect();
    let mut head = vec!["strategy"];
    head.extend(heads.iter().map(String::as_str));
    let names = of.names();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            [(*name).to_owned()]
                .into_iter()
                .chain(of.columns.iter().map(|column| cell(column, name, of.unit)))
                .collect()
        })
        .collect();
    let rounds = of.columns.iter().map(rounds).max().unwrap_or(0);
    let note = if of.unit == Unit::Bytes { String::new() } else { format!("{rounds} rounds.\n\n") };
    format!("{note}{}", table(&head, &rows))
}

/// The ratio to the floor with its quartiles, and the time; or the figure with its quartiles where there is no floor.
fn cell(column: &Column, name: &str, unit: Unit) -> String {
    let Some(series) = column.of(name) else { return String::new() };
    let figures = series.spread();
    match column.ratio(name) {
        _ if unit == Unit::Bytes => format!("{:.0}", figures.median),
        Some(_) if name == FLOOR => format!("1 = {}", spread(figures)),
        Some(ratio) => format!("{} = {}", spread(ratio), figure(figures.median)),
        None => spread(figures),
    }
}

fn required(report: &Report<'_>) -> String {
    if report.required.is_empty() {
        return "## Must reach\n\nNot computed: pcidevs, or what it is compared with, was not measured in this run.\n\n".to_owned();
    }
    let result = |Required { row, cells, missed }: &Required| {
        let over = (row.ratio.median / row.at_most - 1.0) * 100.0;
        match (row.reached(), *cells) {
            (true, _) => "reached".to_owned(),
            (false, 1) => format!("missed by {over:.1} %"),
            (false, cells) => format!("missed by {over:.1} %, in {} of {cells} cells", missed.len()),
        }
    };
    let cells = |of: &Required| {
        vec![of.row.what.clone(), spread(of.row.ratio), of.row.at_most.to_string(), result(of)]
    };
    let rows: Vec<Vec<String>> = report.required.iter().map(cells).collect();
    let mut text = format!("## Must reach\n\n{}\n", table(&["what", "ratio", "at most", "result"], &rows));
    for Required { row, missed, .. } in report.required.iter().filter(|required| !required.missed.is_empty())
    {
        let _ = write!(text, "Missed: {}, at most {}:\n\n", row.what, row.at_most);
        for cell in missed {
            let _ = writeln!(text, "- {cell}");
        }
        text.push('\n');
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        // A title such as "n = 64" stays as it is.
        Some(first) if letters.as_str().starts_with(char::is_alphabetic) => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
