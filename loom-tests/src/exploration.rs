//! Every interleaving, or every one up to a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;

/// Explores every interleaving of `model`, with at most `preemptions` of them forced where a bound is named.
///
/// `LOOM_MAX_PREEMPTIONS` lowers the bound, for a quick look.
pub fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match (builder.preemption_bound, preemptions) {
        (Some(asked), Some(named)) => Some(asked.min(named)),
        (asked, named) => asked.or(named),
    };
    builder.max_branches = 100_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// Memory of the embedder's that no lock of ours protects: only the order of references does. loom reports a
/// race if that order does not hold.
pub struct Unlocked(UnsafeCell<u32>);

// SAFETY: none, on purpose: loom checks every access.
unsafe impl Sync for Unlocked {}
// SAFETY: as above.
unsafe impl Send for Unlocked {}

impl Unlocked {
    /// Memory that holds this.
    pub fn new(value: u32) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Writes it.
    pub fn set(&self, value: u32) {
        self.0.with_mut(|place| unsafe { *place = value });
    }

    /// Reads it.
    pub fn get(&self) -> u32 {
        self.0.with(|place| unsafe { *place })
    }
}
