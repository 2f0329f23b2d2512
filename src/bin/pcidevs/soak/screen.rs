//! The terminal, while a moving picture is on it.
//!
//! The picture has a screen of its own (the *alternate* one), so that what was on the terminal before is there again
//! afterwards, however the storm ends. Each frame is one write: it goes over the last one line by line and clears no
//! more than it must, so nothing flickers.

use std::env;
use std::io::{IsTerminal, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use terminal_size::{Height, Width, terminal_size_of};

/// Whether the picture has the terminal.
static TAKEN: AtomicBool = AtomicBool::new(false);

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Between these two a terminal that can shows nothing, and then all at once.
const BEGIN_FRAME: &str = "\x1b[?2026h";
const END_FRAME: &str = "\x1b[?2026l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J";

/// What a terminal that does not tell its size is taken for.
const USUAL: (usize, usize) = (80, 24);

/// Gives the terminal back as it was, if a picture has it.
pub(crate) fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        put(LEAVE);
    }
}

/// Whoever has closed the terminal needs no picture.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A terminal with a picture on it. Dropping it gives the terminal back.
pub(crate) struct Screen {
    /// Of the last frame.
    size: (usize, usize),
}

impl Screen {
    /// Takes the terminal; `None` if stdout is none, or one that can do nothing.
    pub(crate) fn take() -> Option<Self> {
        if !stdout().is_terminal() || env::var_os("TERM").is_none_or(|name| name == "dumb") {
            return None;
        }
        TAKEN.store(true, Ordering::SeqCst);
        put(ENTER);
        Some(Self { size: (0, 0) })
    }

    /// The columns and rows there is room for: not the last column, in which a cursor is in two places at once.
    pub(crate) fn room() -> (usize, usize) {
        let (columns, rows) = Self::size();
        (columns.saturating_sub(1), rows)
    }

    fn size() -> (usize, usize) {
        let told = terminal_size_of(stdout());
        let told = told.map(|(Width(columns), Height(rows))| (usize::from(columns), usize::from(rows)));
        told.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL)
    }

    /// Shows these lines, which fit, in place of the last ones.
    pub(crate) fn show(&mut self, lines: &[String]) {
        if !TAKEN.load(Ordering::SeqCst) {
            return;
        }
        let size = Self::size();
        let mut frame = String::from(BEGIN_FRAME);
        frame.push_str(if size == self.size { HOME } else { CLEAR_ALL });
        frame.push_str(HOME);
        for (row, line) in lines.iter().enumerate() {
            frame.push_str(if row == 0 { "" } else { "\r\n" });
            frame.push_str(line);
            frame.push_str(CLEAR_LINE);
        }
        frame.push_str(CLEAR_BELOW);
        frame.push_str(END_FRAME);
        put(&frame);
        self.size = size;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}
