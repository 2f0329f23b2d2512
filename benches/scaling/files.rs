//! What is written down and read again, under `docs/measurements`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::coherence::Counts;
use crate::operations::Operation;
use crate::taking_turns::Visits;

pub(crate) const INSTRUCTIONS: &str = "instructions.json";
pub(crate) const SHARING: &str = "sharing.json";
/// Written by the benchmark of the strategies.
pub(crate) const TIMES: &str = "lock_strategies.json";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/measurements").join(name)
}

pub(crate) fn write(name: &str, text: &str) -> Result<(), String> {
    fs::write(path(name), text).map_err(|error| format!("{name}: {error}"))?;
    println!("written: docs/measurements/{name}");
    Ok(())
}

pub(crate) fn write_json(name: &str, value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    write(name, &(text + "\n"))
}

pub(crate) fn read(name: &str) -> Result<Value, String> {
    let text =
        fs::read_to_string(path(name)).map_err(|error| format!("docs/measurements/{name}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("docs/measurements/{name}: {error}"))
}

/// More digits say nothing: a thousandth is what happens in one turn of so many.
pub(crate) fn rounded(count: f64) -> f64 {
    (count * 1000.0).round() / 1000.0
}

/// Everything that the document is made of.
pub(crate) struct Known {
    instructions: Value,
    sharing: Value,
    times: Value,
}

impl Known {
    pub(crate) fn read() -> Result<Self, String> {
        Ok(Self { instructions: read(INSTRUCTIONS)?, sharing: read(SHARING)?, times: read(TIMES)? })
    }

    /// The instructions of an access, one thread.
    pub(crate) fn instructions(&self, strategy: &str, operation: Operation) -> Option<f64> {
        self.instructions[strategy][operation.name()].as_f64()
    }

    pub(crate) fn counts(&self, strategy: &str, operation: Operation, visits: Visits) -> Option<Counts> {
        let counts = &self.sharing[strategy][operation.name()][visits.name()];
        Counts::of(|name| counts[name].as_f64())
    }

    /// The machine the times are from.
    pub(crate) fn machine(&self) -> &str {
        self.times["machine"].as_str().unwrap_or("an unknown machine")
    }

    /// The measured nanoseconds of an access, per thread, among as many devices.
    pub(crate) fn time(&self, strategy: &str, operation: Operation, n: usize, column: &str) -> Option<f64> {
        let figures = self.times["figures"].as_array()?;
        let figure = figures.iter().find(|figure| {
            figure["strategy"] == strategy
                && figure["workload"] == operation.name()
                && figure["n"] == n
                && figure["column"] == column
        });
        figure?["ns"]["median"].as_f64()
    }
}

/// What one strategy's turns came to.
pub(crate) fn sharing(counts: &[((Operation, Visits), Counts)]) -> Value {
    let mut of_operation: Map<String, Value> = Map::new();
    for ((operation, visits), counts) in counts {
        let named: Map<String, Value> = counts
            .named()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), json!(rounded(count))))
            .collect();
        let of = of_operation.entry(operation.name()).or_insert_with(|| json!({}));
        of[visits.name()] = named.into();
    }
    of_operation.into()
}
