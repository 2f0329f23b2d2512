//! What was measured: tables of columns, in each a series for every strategy and for the floors.

use crate::floors::FLOOR;
use crate::measuring::rounds::{Candidate, Effort, Results, Series, Spread};

/// One table: a workload under given circumstances.
pub(crate) struct Table {
    /// The workload's name in the figures.
    pub(crate) workload: &'static str,
    /// What it is, in words.
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// Devices there are.
    pub(crate) n: usize,
    pub(crate) columns: Vec<Column>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Bytes,
}

impl Unit {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
        }
    }
}

/// One column: a figure for each strategy.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) threads: usize,
    pub(crate) series: Vec<(String, Series)>,
}

impl Column {
    pub(crate) fn of(&self, strategy: &str) -> Option<&Series> {
        self.series.iter().find(|(name, _)| name == strategy).map(|(_, series)| series)
    }

    /// Over the floor in the same rounds, where there is one in this column.
    pub(crate) fn ratio(&self, strategy: &str) -> Option<Spread> {
        Some(self.of(strategy)?.over(self.of(FLOOR)?).spread())
    }
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Everything that has a figure, in the order of the rows.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.columns.iter().flat_map(|column| &column.series) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// Everything that was measured in a run.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) tables: Vec<Table>,
}

/// Candidates of one column.
pub(crate) struct InColumn<'a> {
    pub(crate) column: String,
    pub(crate) candidates: Vec<Candidate<'a>>,
}

/// Between a column's name and a candidate's.
const SEPARATOR: char = '\u{1f}';

impl Measured {
    /// Measures all columns of a table in the same interleaved rounds. A table that was measured before, on other
    /// memory, gets more rounds.
    pub(crate) fn measure(
        &mut self,
        workload: &'static str,
        title: &str,
        n: usize,
        columns: Vec<InColumn<'_>>,
        effort: &Effort,
    ) {
        let mut candidates = Vec::new();
        for InColumn { column, candidates: of_column } in columns {
            candidates.extend(of_column.into_iter().map(|mut candidate| {
                candidate.name = format!("{column}{SEPARATOR}{}", candidate.name);
                candidate
            }));
        }
        let threads: Vec<usize> = candidates.iter().map(|candidate| candidate.threads).collect();
        let mut results = Results::default();
        results.measure(&format!("{workload}, {title}"), &candidates, effort);
        let (_, series) = results.groups.remove(0);
        for ((name, series), threads) in series.into_iter().zip(threads) {
            let (column, name) = name.split_once(SEPARATOR).unwrap_or((&name, ""));
            self.record(workload, title, Unit::Nanoseconds, n, (column, threads), name, series);
        }
    }

    /// Adds rounds of one candidate.
    #[expect(clippy::too_many_arguments, reason = "what a figure must say with it")]
    pub(crate) fn record(
        &mut self,
        workload: &'static str,
        title: &str,
        unit: Unit,
        n: usize,
        (column, threads): (&str, usize),
        name: &str,
        series: Series,
    ) {
        let table = match self
            .tables
            .iter()
            .position(|table| table.workload == workload && table.title == title)
        {
            Some(place) => &mut self.tables[place],
            None => {
                self.tables.push(Table { workload, title: title.to_owned(), unit, n, columns: Vec::new() });
                self.tables.last_mut().expect("just pushed")
            }
        };
        let columns = &mut table.columns;
        let place = columns.iter().position(|known| known.name == column).unwrap_or_else(|| {
            columns.push(Column { name: column.to_owned(), threads, series: Vec::new() });
            columns.len() - 1
        });
        match columns[place].series.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.0.extend(series.0),
            None => columns[place].series.push((name.to_owned(), series)),
        }
    }

    pub(crate) fn of<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Table> + 'a {
        self.tables.iter().filter(move |table| table.workload == workload)
    }
}
