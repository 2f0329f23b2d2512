//! One operation while the engine carries it out.
//!
//! The engine calls hooks on the thread that called it, so the operation under way is that thread's. Hooks answer with a
//! number and a reason; what they know beyond that is kept here, for the caller.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::XenError;
use super::locked;
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::WriteFailure;
use crate::lifecycle::TransitionError;
use crate::owner::DomainId;
use crate::platform::HookError;
use crate::xen::assignable::Afterwards;
use crate::xen::pciback::{Export, PcibackError, Released};
use crate::xen::store::Store;

use super::export::Waiting;

/// What kind of operation it is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The engine learns what is so already: nothing is written.
    Replay,
    /// A device becomes assignable.
    Make { name: Option<String> },
    /// It stops to be.
    Unmake { afterwards: Afterwards },
    /// A guest gets a set.
    Export { guest: DomainId, name: String, set: Vec<Export>, waiting: Waiting },
    /// A guest that runs loses devices.
    Withdraw,
    /// A guest that does not run any more loses all.
    Release,
}

/// How a set was published: how it is taken back depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// As the guest's first devices.
    First,
    /// Beside others.
    Added,
}

/// One operation.
pub(super) struct Operation {
    pub(super) kind: Kind,
    store: Mutex<Box<dyn Store + Send>>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// How many members have their new owner's view.
    pub(super) bound: usize,
    pub(super) published: Option<Published>,
    /// The change is in the store, and its end was not seen.
    pub(super) pending: Option<PcibackError>,
    pub(super) released: Option<Released>,
    /// The first thing that failed.
    cause: Option<XenError>,
    /// What failed after it.
    undo: Vec<WriteFailure>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Operation>>> = const { RefCell::new(None) };
}

/// Makes an operation this thread's, as long as this lives.
pub(super) struct Current(Option<Arc<Operation>>);

impl Current {
    pub(super) fn set(operation: &Arc<Operation>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(operation.clone()))))
    }

    /// This thread's operation, if it writes anything.
    pub(super) fn get() -> Option<Arc<Operation>> {
        let current = CURRENT.with(|current| current.borrow().clone());
        current.filter(|operation| !matches!(operation.kind, Kind::Replay))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|current| current.replace(before));
    }
}

impl Operation {
    pub(super) fn new(kind: Kind, store: Box<dyn Store + Send>) -> Arc<Self> {
        Arc::new(Self { kind, store: Mutex::new(store), state: Mutex::default() })
    }

    /// Its connection. Only this operation's thread asks, so nobody waits for it.
    pub(super) fn store(&self) -> MutexGuard<'_, Box<dyn Store + Send>> {
        locked(&self.store)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Notes what failed, and makes it the engine's.
    pub(super) fn fails(&self, device: Sbdf, error: XenError, reason: &'static str) -> HookError {
        let errno = error.errno();
        let mut state = self.state();
        if state.cause.is_none() {
            state.cause = Some(error);
        } else {
            state.undo.push(WriteFailure { device, what: error.to_string(), errno });
        }
        HookError::new(errno, reason)
    }

    /// Notes what somebody has to do, beside the error.
    pub(super) fn note(&self, device: Sbdf, what: &str, errno: Errno) {
        self.state().undo.push(WriteFailure { device, what: what.into(), errno });
    }

    /// The engine's error, in the words of the hook that failed.
    pub(super) fn explain(&self, error: TransitionError) -> XenError {
        let mut state = self.state();
        let (cause, undo) = (state.cause.take(), std::mem::take(&mut state.undo));
        let is_broken = matches!(&error, TransitionError::Failed(failure) if !failure.undo.is_empty());
        match (cause, error) {
            (Some(cause), TransitionError::Failed(_)) if undo.is_empty() && !is_broken => cause,
            (Some(cause), TransitionError::Failed(_)) => XenError::Undo { cause: Box::new(cause), undo },
            (_, error) => XenError::transition(error, undo),
        }
    }
}
