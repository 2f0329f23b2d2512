//! A write that is pending, as a barrier.
//!
//! A `std` barrier opens when as many threads wait at it as it was made for. One is the vCPU; the other has to be
//! somebody who waits until the effects are done or superseded. So each barrier has a thread, which keeps it apart from
//! the others: a hook that hangs keeps the vCPUs that wait for *it*. Effects are pending only while another vCPU has
//! its own carried out on the same device, which takes far longer than to begin a thread.
//!
//! # Invariants
//!
//! A barrier that was dropped keeps nobody: Cloud Hypervisor drops those of configuration writes. No more than
//! [`MOST`] threads at a time, whatever a guest does: beyond that the writing vCPU waits at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, Weak};

use crate::sync::RawLock;
use crate::vpci::{Modelled, Pending, Wiring, Written};

/// Threads at a time, of one bus.
pub(super) const MOST: usize = 64;

/// Those who release the barriers of one bus.
#[derive(Clone, Debug, Default)]
pub(super) struct Releasers(Arc<AtomicUsize>);

/// One of them, counted while it is there.
struct Releaser(Arc<AtomicUsize>);

impl Drop for Releaser {
    fn drop(&mut self) {
        // Relaxed: a bound, which orders nothing.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Releasers {
    /// What the vCPU that wrote waits at; `None` if it need not, any more.
    pub(super) fn barrier<D, W, L>(&self, written: Written<D, W, L>) -> Option<Arc<Barrier>>
    where
        D: Modelled + Send + 'static,
        W: Wiring + 'static,
        L: RawLock + 'static,
    {
        let Written::Pending(pending) = written else { return None };
        let Some(releaser) = self.begin() else {
            pending.wait();
            return None;
        };
        let barrier = Arc::new(Barrier::new(2));
        let other_side = Arc::downgrade(&barrier);
        // Shared, since a thread that cannot begin drops what it was given.
        let pending = Arc::new(Mutex::new(Some(pending)));
        let begun = std::thread::Builder::new().name("pcidevs barrier".into()).spawn({
            let pending = pending.clone();
            move || {
                let _counted = releaser;
                wait(&pending);
                meet(&other_side);
            }
        });
        if begun.is_ok() {
            return Some(barrier);
        }
        wait(&pending);
        None
    }

    fn begin(&self) -> Option<Releaser> {
        let more = |running: usize| (running < MOST).then_some(running + 1);
        // Relaxed: a bound, which orders nothing.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Releaser(self.0.clone()))
    }
}

/// Waits until it is settled, and lets go of the device.
fn wait<D: Modelled, W: Wiring, L: RawLock>(pending: &Mutex<Option<Pending<D, W, L>>>) {
    let pending = pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(pending) = pending {
        pending.wait();
    }
}

/// Opens a barrier, unless nobody is going to wait at it.
fn meet(barrier: &Weak<Barrier>) {
    if let Some(barrier) = barrier.upgrade()
        && Arc::strong_count(&barrier) > 1
    {
        barrier.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn there_are_no_more_than_so_many_at_a_time() {
        let releasers = Releasers::default();
        let mut all: Vec<_> = (0..MOST).map(|_| releasers.begin().unwrap()).collect();
        assert!(releasers.begin().is_none());
        all.pop();
        assert!(releasers.begin().is_some(), "one has ended, and so has this");
        assert!(releasers.begin().is_some());
    }

    #[test]
    fn a_barrier_that_was_dropped_is_not_waited_at() {
        let barrier = Arc::new(Barrier::new(2));
        let weak = Arc::downgrade(&barrier);
        drop(barrier);
        meet(&weak);
    }
}
