//! Every figure as JSON, one record each, for other programs.

use serde_json::{Value, json};

use super::Report;
use crate::floors::FLOOR;
use crate::measured::{Column, Table};
use crate::measuring::rounds::Spread;
use crate::required::Required;
use crate::strategies::known;
use crate::strategy::Promise;

pub(super) fn json(report: &Report<'_>) -> Value {
    let figures = report.measured.tables.iter().flat_map(|table| {
        table.columns.iter().flat_map(move |column| {
            column
                .series
                .iter()
                .map(move |(name, series)| figure(table, column, name, series.spread(), series.0.len()))
        })
    });
    json!({
        "machine": report.machine,
        "extent": report.extent(),
        "ratios_are_to": FLOOR,
        "must_reach": report.required.iter().map(requirement).collect::<Vec<_>>(),
        "strategies": strategies(),
        "figures": figures.collect::<Vec<_>>(),
    })
}

fn spread(spread: Spread) -> Value {
    json!({"low": rounded(spread.low), "median": rounded(spread.median), "high": rounded(spread.high)})
}

/// More digits than these say nothing, and make the files hard to compare.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

fn figure(table: &Table, column: &Column, name: &str, figures: Spread, rounds: usize) -> Value {
    let mut record = json!({
        "workload": table.workload,
        "circumstances": table.title,
        "n": table.n,
        "column": column.name,
        "threads": column.threads,
        "strategy": name,
        "rounds": rounds,
        table.unit.name(): spread(figures),
    });
    if let Some(ratio) = column.ratio(name) {
        record["ratio"] = spread(ratio);
    }
    record
}

fn requirement(Required { row, cells, missed }: &Required) -> Value {
    json!({"cells": cells, "missed": missed, "what": row.what, "ratio": spread(row.ratio), "at_most": row.at_most, "reached": row.reached()})
}

fn strategies() -> Value {
    let strategies = known().into_iter().map(|strategy| {
        let promises = strategy.promises.named().map(|(name, promise)| match promise {
            Promise::Kept => json!({"promise": name, "kept": true}),
            Promise::Broken(instead) => json!({"promise": name, "kept": false, "instead": instead}),
        });
        json!({"strategy": strategy.name, "promises": promises})
    });
    strategies.collect()
}
