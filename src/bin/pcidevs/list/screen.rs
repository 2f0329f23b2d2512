//! How wide the output may be.

use std::env;
use std::io::{self, IsTerminal};

use terminal_size::{Width, terminal_size_of};

/// Below this no table is readable, so none is made narrower.
const NARROWEST: usize = 40;

/// What a terminal that does not tell its width is taken for.
const USUAL: usize = 80;

/// The columns there are: what the environment variable `COLUMNS` says, else the terminal's width.
///
/// `None` where the output is no terminal: a pipe or a file gets whole lines.
pub(super) fn width() -> Option<usize> {
    let asked = env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let columns = asked.filter(|columns| *columns > 0).or_else(terminal_width)?;
    Some(columns.max(NARROWEST))
}

fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let told = terminal_size_of(stdout).map(|(Width(columns), _)| usize::from(columns));
    Some(told.filter(|columns| *columns > 0).unwrap_or(USUAL))
}
