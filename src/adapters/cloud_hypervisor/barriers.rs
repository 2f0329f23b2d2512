//! The barriers of a device that is behind our model.
//!
//! It hands them out under the device's lock, where nothing may wait; and somebody does wait at them: the thread that
//! does what the write asked for. So each is kept until it is met: by the hook that the wish asks for, or, if the wish
//! is superseded by a reset or the device goes, by a thread of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

/// Barriers that are to be met outside the device's lock, in order.
///
/// The wish [`WISH`](Self::WISH) says that there are some: an embedder's [`wishes`](crate::vpci::Wiring::wishes) calls
/// [`wait`](Self::wait), and the vCPU goes on when that has returned.
#[derive(Clone, Debug, Default)]
pub struct Barriers(Arc<Mutex<VecDeque<Arc<Barrier>>>>);

impl Barriers {
    /// The wish that the device asks for with.
    pub const WISH: u32 = 63;

    /// Waits at all that were handed out.
    pub fn wait(&self) {
        while let Some(barrier) = self.next() {
            barrier.wait();
        }
    }

    pub(super) fn push(&self, barrier: Arc<Barrier>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(barrier);
    }

    /// Nobody will be told of what was handed out until now: whoever waits there is met all the same.
    pub(super) fn abandon(&self) {
        let left = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() {
            return;
        }
        let left = Self(Arc::new(Mutex::new(left)));
        let elsewhere = left.clone();
        let begun =
            std::thread::Builder::new().name("pcidevs barrier".into()).spawn(move || elsewhere.wait());
        if begun.is_err() {
            // Better late here than never.
            left.wait();
        }
    }

    fn next(&self) -> Option<Arc<Barrier>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
