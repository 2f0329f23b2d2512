//! A thread that runs what is deferred, for embedders that have none of their own.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Lifecycle;
use crate::platform::Platform;

/// A thread that calls [`Lifecycle::run_deferred`] again and again. Dropping it ends the thread, after the call that
/// is under way.
#[derive(Debug)]
pub struct Background {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Platform + 'static> Lifecycle<P> {
    /// Starts a thread that runs what is deferred every `interval`. The error is the operating system's.
    pub fn run_in_background(&self, interval: Duration) -> std::io::Result<Background> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (lifecycle, stopped) = (self.clone(), Arc::clone(&stop));
        let run = move || {
            let (stopped, changed) = &*stopped;
            let mut over = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                drop(over);
                lifecycle.run_deferred();
                over = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                if !*over {
                    over = changed.wait_timeout(over, interval).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pcidevs-deferred".into()).spawn(run)?;
        Ok(Background { stop, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let (stopped, changed) = &*self.stop;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it panicked, the panic hook has told.
            let _ended = thread.join();
        }
    }
}
