//! The paths as a table: what they took, what they take, and what that is in percent.

use std::fmt::Write as _;

use crate::baseline::Change;

pub(crate) fn of(changes: &[Change]) -> String {
    let width = changes.iter().map(|change| change.path.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>10}  {:>10}  {:>8}\n", "instructions", "was", "is", "change");
    let count = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.1}"));
    for change in changes {
        let percent = change.longer_by().map_or("-".to_owned(), |percent| format!("{percent:+.1} %"));
        let verdict = match change {
            _ if change.was.is_none() => "  NEW: accept it",
            _ if change.is.is_none() => "  LOST: accept that",
            _ if !change.is_allowed() => "  LONGER",
            _ if change.is_gain() => "  shorter: accept it, or it is lost unnoticed",
            _ => "",
        };
        let (was, is) = (count(change.was), count(change.is));
        let _ = writeln!(text, "{:width$}  {was:>10}  {is:>10}  {percent:>8}{verdict}", change.path);
    }
    text
}
