//! Where broken promises are reported, and end the storm.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pcidevs::Sbdf;

use super::chronicle::Chronicle;

/// Violations beyond this many are counted, not shown.
const MOST_SHOWN: u64 = 20;

/// Whether the storm goes on, and what was found.
pub(crate) struct Judge {
    chronicle: Chronicle,
    /// The storm is over.
    stop: AtomicBool,
    /// The round is over.
    rest: AtomicBool,
    violations: AtomicU64,
}

impl Judge {
    pub(crate) fn new(chronicle: Chronicle) -> Self {
        let (stop, rest, violations) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        Self { chronicle, stop, rest, violations }
    }

    pub(crate) fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// A promise was broken.
    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        self.report(what, &[]);
    }

    /// A promise about one device was broken; what happened to it before is shown along.
    pub(crate) fn violation_at(&self, address: Sbdf, what: fmt::Arguments<'_>) {
        self.report(what, &self.chronicle.read(address));
    }

    fn report(&self, what: fmt::Arguments<'_>, before: &[String]) {
        if self.violations.fetch_add(1, Ordering::SeqCst) < MOST_SHOWN {
            // At once: a broken core may not live to the end of the storm. In one piece: others report as well.
            let before: Vec<_> = before.iter().map(|event| format!("    {event}\n")).collect();
            let before = before.concat();
            super::screen::restore();
            let _ = write!(std::io::stderr(), "violation: {what}\n{before}");
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
        self.rest.store(false, Ordering::SeqCst);
        // Stopped before, or in between.
        self.rest.fetch_or(!self.goes_on(), Ordering::SeqCst);
    }

    /// Whether the threads go on.
    pub(crate) fn runs(&self) -> bool {
        !self.rest.load(Ordering::Relaxed)
    }
}
