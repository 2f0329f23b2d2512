//! The terminal, while a moving picture is on it.

use std::io::{IsTerminal, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the picture has the terminal.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back as it was, if a picture has it.
pub(crate) fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = stdout().lock();
        // Whoever has closed the terminal does not need it restored.
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// Takes the terminal for a picture; `false` if there is none.
pub(crate) fn take() -> bool {
    let mut out = stdout().lock();
    if !out.is_terminal() {
        return false;
    }
    TAKEN.store(true, Ordering::SeqCst);
    let _ = out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J").and_then(|()| out.flush());
    true
}
