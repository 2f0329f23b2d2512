//! A table that fits a width: every row one line, every column aligned.
//!
//! Each cell has a full and a short form. A table with room uses the full forms, and its widest columns give way a
//! little, ending in an ellipsis. With less room the short forms are used, last those of the columns that ask for
//! it; at last whole columns are left out.
//! A column with nothing known in any row is left out at any width.

use std::fmt::Write as _;

use anstyle::Style;

use super::text::{shorten, width};

/// What a cell says if the source does not tell.
pub(super) const UNKNOWN: &str = "?";

/// A column, as its title and how it behaves when room is short.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) short_title: &'static str,
    pub(super) align: Align,
    /// Stays in full form as long as it can.
    pub(super) telling: bool,
    /// In full form it gets no narrower than this.
    pub(super) comfort: usize,
    /// It gets no narrower than this at all.
    pub(super) least: usize,
    /// Columns with lower numbers are left out first.
    pub(super) rank: u8,
}

#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// A column's place in one row. Both forms are printable text.
#[derive(Clone, Default)]
pub(super) struct Cell {
    pub(super) full: String,
    pub(super) short: String,
    pub(super) style: Style,
}

impl Cell {
    /// The same in both forms.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        let full = text.into();
        Self { short: full.clone(), full, style: Style::new() }
    }

    pub(super) fn new(full: impl Into<String>, short: impl Into<String>) -> Self {
        Self { full: full.into(), short: short.into(), style: Style::new() }
    }

    pub(super) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn text(&self, form: Form) -> &str {
        match form {
            Form::Full => &self.full,
            Form::Short => &self.short,
        }
    }
}

#[derive(Clone, Copy)]
enum Form {
    Full,
    Short,
}

/// Which columns are in which form.
#[derive(Clone, Copy)]
enum Stage {
    AllFull,
    TellingFull,
    AllShort,
}

/// How the table is laid out.
pub(super) struct Layout<'c> {
    columns: &'c [Column],
    stage: Stage,
    /// By column; 0 for one that is left out.
    widths: Vec<usize>,
    gap: usize,
}

impl<'c> Layout<'c> {
    /// The best layout of these rows in `room` columns; without limit if there is none.
    pub(super) fn fit<'r>(
        columns: &'c [Column],
        rows: impl Iterator<Item = &'r [Cell]> + Clone,
        room: Option<usize>,
    ) -> Self {
        for stage in [Stage::AllFull, Stage::TellingFull] {
            let mut layout = Self::natural(columns, rows.clone(), stage);
            if room.is_none_or(|room| layout.narrow(room)) {
                return layout;
            }
        }
        let mut layout = Self::natural(columns, rows, Stage::AllShort);
        while room.is_some_and(|room| !layout.narrow(room)) {
            if !layout.leave_out_one() {
                break;
            }
        }
        layout
    }

    /// Every column as wide as its widest cell.
    fn natural<'r>(columns: &'c [Column], rows: impl Iterator<Item = &'r [Cell]>, stage: Stage) -> Self {
        let mut widths = vec![0; columns.len()];
        let mut known = vec![false; columns.len()];
        for row in rows {
            for (((widest, known), column), cell) in widths.iter_mut().zip(&mut known).zip(columns).zip(row) {
                let text = cell.text(column.form(stage));
                *widest = width(text).max(*widest);
                *known |= !matches!(text, "" | UNKNOWN);
            }
        }
        for ((widest, known), column) in widths.iter_mut().zip(known).zip(columns) {
            *widest = if known { width(column.title(stage)).max(*widest) } else { 0 };
        }
        let gap = if matches!(stage, Stage::AllFull) { 2 } else { 1 };
        Self { columns, stage, widths, gap }
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().filter(|width| **width > 0).count();
        self.widths.iter().sum::<usize>() + self.gap * shown.saturating_sub(1)
    }

    /// Takes from the widest column, one by one, until the table fits. False, with nothing changed, if it cannot.
    fn narrow(&mut self, room: usize) -> bool {
        let mut widths = self.widths.clone();
        for _ in room..self.total().max(room) {
            let give_way = widths.iter_mut().zip(self.columns);
            let give_way = give_way.filter(|(width, column)| **width > column.least(self.stage));
            let Some((widest, _)) = give_way.max_by_key(|(width, _)| **width) else { return false };
            *widest -= 1;
        }
        self.widths = widths;
        true
    }

    /// Leaves out the shown column of the lowest rank; false if only one is left.
    fn leave_out_one(&mut self) -> bool {
        let shown = self.widths.iter_mut().zip(self.columns).filter(|(width, _)| **width > 0);
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by_key(|(_, column)| column.rank);
        let [(width, _), _, ..] = shown.as_mut_slice() else { return false };
        **width = 0;
        true
    }

    /// The line of titles.
    pub(super) fn titles(&self, style: Style) -> String {
        let titles: Vec<_> =
            self.columns.iter().map(|column| Cell::plain(column.title(self.stage)).styled(style)).collect();
        self.line(&titles)
    }

    /// One row as a line, without spaces or line feed at its end.
    pub(super) fn line(&self, cells: &[Cell]) -> String {
        let mut line = String::new();
        // Spaces that are only written if something follows.
        let mut owed = 0;
        let shown = cells.iter().zip(self.columns).zip(&self.widths).filter(|(_, width)| **width > 0);
        for (place, ((cell, column), &columns)) in shown.enumerate() {
            owed += if place > 0 { self.gap } else { 0 };
            let text = shorten(cell.text(column.form(self.stage)), columns);
            let padding = columns - width(&text);
            if text.is_empty() {
                owed += padding;
                continue;
            }
            let (before, after) = match column.align {
                Align::Left => (0, padding),
                Align::Right => (padding, 0),
            };
            // Writing to a string cannot fail.
            let _ = write!(line, "{:1$}{2}{text}{2:#}", "", owed + before, cell.style);
            owed = after;
        }
        line
    }
}

impl Column {
    fn form(&self, stage: Stage) -> Form {
        match stage {
            Stage::AllFull => Form::Full,
            Stage::TellingFull if self.telling => Form::Full,
            Stage::TellingFull | Stage::AllShort => Form::Short,
        }
    }

    fn title(&self, stage: Stage) -> &'static str {
        match self.form(stage) {
            Form::Full => self.title,
            Form::Short => self.short_title,
        }
    }

    fn least(&self, stage: Stage) -> usize {
        match self.form(stage) {
            Form::Full => self.comfort,
            Form::Short => self.least,
        }
    }
}
