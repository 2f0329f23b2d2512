//! How wide the output may be.

use std::env;

use terminal_size::{Width, terminal_size_of};

/// Below this no table is readable, so none is made narrower.
const NARROWEST: usize = 40;

/// The columns there are: what the environment variable `COLUMNS` says, else the terminal's width.
///
/// `None` where the output is no terminal: a pipe or a file gets whole lines.
pub(super) fn width() -> Option<usize> {
    let asked = env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let terminal = || terminal_size_of(std::io::stdout()).map(|(Width(columns), _)| columns.into());
    asked.or_else(terminal).filter(|columns| *columns > 0).map(|columns: usize| columns.max(NARROWEST))
}
