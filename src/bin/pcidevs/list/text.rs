//! Text for a terminal: no character that could move the cursor, every character one column wide.
//!
//! Names come from recordings that anybody may have made, so control characters and characters of doubtful width
//! are replaced before anything is measured or printed.

use std::borrow::Cow;

const REPLACEMENT: char = '?';
const ELLIPSIS: char = '…';

/// The text with everything replaced that is not one plain column wide.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_one_column(c) { c } else { REPLACEMENT }).collect()
}

/// Latin, Greek and Cyrillic letters and ASCII, without control, soft-hyphen and combining characters.
fn is_one_column(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{52f}')
}

/// How many columns a printable text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text in at most `columns` columns, its end replaced by an ellipsis if it has more.
pub(super) fn shorten(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return text.into();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    if columns > 0 {
        short.push(ELLIPSIS);
    }
    short.into()
}

/// A number with its noun: `1 segment`, `2 segments`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = match noun {
        _ if number == 1 => "",
        "bus" => "es",
        _ => "s",
    };
    format!("{number} {noun}{plural}")
}
