//! Asking a guest to let a device go.
//!
//! A guest may take its time, refuse, or never answer. Asking holds no claim. What the guest answers is reported
//! through [`Lifecycle::unplug_answered`]; an answer that comes after the embedder has given up still counts, once.

use super::Lifecycle;
use super::error::TransitionError;
use super::event::What;
use super::transaction::guarded;
use crate::Sbdf;
use crate::owner::Owner;
use crate::platform::Platform;
use crate::refcount::Holder;
use crate::registry::Member;

/// Who keeps the device while the guest is being asked.
const ASKING: Holder = Holder::Named("unplug request");

/// What became of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unplug {
    /// The guest lets the device go: it is taken back.
    Acked,
    /// The guest keeps it. The question is over.
    Rejected,
    /// The embedder's deadline has passed. An answer may still come.
    TimedOut,
}

impl<P: Platform> Lifecycle<P> {
    /// Asks the guest that has this device to let it go. Asking again repeats the question.
    pub fn request_unplug(&self, address: Sbdf) -> Result<(), TransitionError> {
        let mut device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let owner = device.owner();
        let Owner::Guest(guest) = owner else {
            return Err(TransitionError::NotOwned { device: address, owner });
        };
        // Not `get`: a device whose removal is pending is the very one that its guest is asked for.
        let _kept = device.keep(ASKING)?;
        device.condition.asked = true;
        drop(device);
        match guarded(|| self.platform().ask_unplug(address, guest)) {
            Ok(()) => {
                self.report(address, What::UnplugAsked);
                Ok(())
            }
            Err(error) => {
                self.end_question(address);
                Err(TransitionError::failed(address, "ask the guest to unplug", error))
            }
        }
    }

    /// The guest answered, or did not in time. On [`Unplug::Acked`] the device is deassigned; if that fails, the answer
    /// may be reported again.
    pub fn unplug_answered(&self, address: Sbdf, answer: Unplug) -> Result<(), TransitionError> {
        let device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let (owner, asked) = (device.owner(), device.condition.asked);
        drop(device);
        if !asked {
            return Err(TransitionError::NotAsked(address));
        }
        match answer {
            Unplug::Acked => self.deassign(&[Member::new(address)], owner),
            Unplug::Rejected => {
                self.end_question(address);
                self.report(address, What::UnplugRefused);
                Ok(())
            }
            Unplug::TimedOut => {
                self.report(address, What::UnplugRefused);
                Ok(())
            }
        }
    }

    fn end_question(&self, address: Sbdf) {
        // Gone meanwhile, and the question with it.
        if let Ok(mut device) = self.lock(address) {
            device.condition.asked = false;
        }
    }
}
