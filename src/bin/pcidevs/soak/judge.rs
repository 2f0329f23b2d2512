//! Where broken promises are reported, and end the storm.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Violations beyond this many are counted, not shown.
const MOST_SHOWN: u64 = 20;

/// The judge: whether the storm goes on, and what was found.
#[derive(Default)]
pub(crate) struct Judge {
    /// The storm is over.
    stop: AtomicBool,
    /// The round is over.
    rest: AtomicBool,
    violations: AtomicU64,
}

impl Judge {
    /// A promise was broken.
    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        if self.violations.fetch_add(1, Ordering::SeqCst) < MOST_SHOWN {
            // At once: a broken core may not live to the end of the storm.
            super::screen::restore();
            let _ = writeln!(std::io::stderr(), "violation: {what}");
        }
        self.stop();
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }

    /// Ends the storm.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.rest();
    }

    /// Whether there is another round.
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Ends the round.
    pub(crate) fn rest(&self) {
        self.rest.store(true, Ordering::SeqCst);
    }

    /// Begins the next round, unless the storm is over.
    pub(crate) fn go_on(&self) {
        self.rest.store(!self.goes_on(), Ordering::SeqCst);
        // Stopped in between.
        self.rest.fetch_or(!self.goes_on(), Ordering::SeqCst);
    }

    /// Whether the threads go on.
    pub(crate) fn runs(&self) -> bool {
        !self.rest.load(Ordering::Relaxed)
    }
}
