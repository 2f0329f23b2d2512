//! The tables, on the terminal and, if asked for, under `docs/measurements`.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde_json::{Value, json};

use super::processors::processors;
use super::requirement::{Bytes, Row};
use super::rounds::{Results, Spread};

/// What was found, as text and as JSON.
pub(crate) struct Report {
    /// The benchmark's name, and that of its files.
    bench: &'static str,
    text: String,
    json: serde_json::Map<String, Value>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, title: &str, quick: bool) -> Self {
        let mut report = Self { bench, text: String::new(), json: serde_json::Map::new() };
        let machine = machine();
        let effort = if quick { ", --quick" } else { "" };
        report.print(&format!(
            "# {title}, measured\n\n{machine}, pinned threads{effort}. Medians of interleaved rounds, quartiles \
             in brackets; a ratio is\nthe median of the ratios within each round. Times move with the machine: \
             compare ratios.\n\n    PCIDEVS_BENCH_WRITE=1 cargo bench --bench {bench} -- ratios\n"
        ));
        report.json.insert("machine".into(), json!(machine));
        report.json.insert("quick".into(), json!(quick));
        report
    }

    fn print(&mut self, text: &str) {
        println!("{text}");
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn table(&mut self, title: &str, head: &[&str], rows: &[Vec<String>]) {
        self.print(&format!("## {title}\n\n{}", table(head, rows)));
    }

    pub(crate) fn rows(&mut self, rows: Vec<Row>) {
        let cells: Vec<_> = rows
            .iter()
            .map(|row| {
                let reached = if row.reached() { "yes" } else { "no" };
                vec![row.what.clone(), spread(row.ratio), format!("{}", row.at_most), reached.to_owned()]
            })
            .collect();
        self.table("Must reach", &["what", "ratio", "at most", "reached"], &cells);
        let json: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let reached = row.reached();
                json!({"what": row.what, "ratio": row.ratio.median, "low": row.ratio.low, "high": row.ratio.high,
                       "at_most": row.at_most, "reached": reached})
            })
            .collect();
        self.json.insert("must_reach".into(), Value::Array(json));
    }

    /// Ratios that nothing is required of.
    #[allow(dead_code, reason = "not every benchmark has such a table")]
    pub(crate) fn comparisons(&mut self, rows: &[(String, Spread)]) {
        let cells: Vec<_> = rows.iter().map(|(what, ratio)| vec![what.clone(), spread(*ratio)]).collect();
        self.table("For comparison", &["what", "ratio"], &cells);
        let json: Vec<_> = rows
            .iter()
            .map(|(what, ratio)| json!({"what": what, "ratio": ratio.median, "low": ratio.low, "high": ratio.high}))
            .collect();
        self.json.insert("comparisons".into(), Value::Array(json));
    }

    pub(crate) fn groups(&mut self, results: &Results) {
        for (group, series) in &results.groups {
            let cells: Vec<_> = series
                .iter()
                .map(|(name, series)| {
                    vec![name.clone(), spread(series.spread()), figure(series.percentile(99))]
                })
                .collect();
            self.table(&format!("{group} (ns)"), &["what", "median", "p99 of rounds"], &cells);
        }
        self.json.insert("nanoseconds".into(), nanoseconds(results));
    }

    pub(crate) fn memory(&mut self, title: &str, rows: &[Bytes]) {
        let cells: Vec<_> = rows
            .iter()
            .map(|row| {
                let reached = row.at_most.map_or("", |most| if row.amount <= most { "yes" } else { "no" });
                let most = row.at_most.map_or_else(String::new, |most| format!("{most}"));
                vec![row.what.clone(), format!("{:.1}", row.amount), most, reached.to_owned()]
            })
            .collect();
        self.table(&format!("{title} (bytes)"), &["what", "bytes", "at most", "reached"], &cells);
        let json: Vec<_> = rows
            .iter()
            .map(|row| json!({"what": row.what, "bytes": row.amount, "at_most": row.at_most}))
            .collect();
        self.json.insert("memory".into(), json.into());
    }

    /// One row a candidate, one column a group: groups of the same candidates, side by side.
    #[allow(dead_code, reason = "not every benchmark has such a table")]
    pub(crate) fn side_by_side(&mut self, title: &str, candidate: &str, key: &str, results: &Results) {
        let mut head = vec![candidate];
        head.extend(results.groups.iter().map(|(group, _)| group.as_str()));
        let names = results.groups.first().map_or(&[][..], |(_, series)| series);
        let cells: Vec<_> = names
            .iter()
            .map(|(name, _)| {
                let figures = results
                    .groups
                    .iter()
                    .map(|(group, _)| figure(results.series(group, name).spread().median));
                [name.clone()].into_iter().chain(figures).collect()
            })
            .collect();
        self.table(&format!("{title} (ns)"), &head, &cells);
        self.json.insert(key.into(), nanoseconds(results));
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/measurements");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.md", self.bench)), self.text.trim_end().to_owned() + "\n")?;
        fs::write(
            folder.join(format!("{}.json", self.bench)),
            serde_json::to_string_pretty(&self.json)? + "\n",
        )
    }
}

/// A table that is also readable as text.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::from("|");
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(line, " {cell:<width$} |");
        }
        line
    };
    let mut text = format!("{}\n|", line(&mut head.iter().copied()));
    for width in &widths {
        let _ = write!(text, "{:-<1$}|", "", width + 2);
    }
    for row in rows {
        let _ = write!(text, "\n{}", line(&mut row.iter().map(String::as_str)));
    }
    text.push('\n');
    text
}

fn nanoseconds(results: &Results) -> Value {
    let groups = results.groups.iter().map(|(group, series)| {
        let series = series.iter().map(|(name, series)| {
            let Spread { low, median, high } = series.spread();
            (name.clone(), json!({"low": low, "median": median, "high": high}))
        });
        (group.clone(), series.collect::<Value>())
    });
    groups.collect()
}

pub(crate) fn spread(spread: Spread) -> String {
    format!("{} [{} - {}]", figure(spread.median), figure(spread.low), figure(spread.high))
}

pub(crate) fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// What this was measured on.
pub(crate) fn machine() -> String {
    let processors = processors().len();
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{processors} processors ({})", model.map_or("unknown", |(_, model)| model.trim()))
}
