//! Asking a guest to let a device go.
//!
//! A guest may take its time, refuse, or never answer. Asking holds no claim. What the guest answers is reported
//! through [`Lifecycle::unplug_answered`]; an answer that comes after the embedder has given up still counts, once.

use super::Lifecycle;
use super::error::TransitionError;
use super::event::What;
use super::transaction::guarded;
use crate::Sbdf;
use crate::owner::{DomainId, Owner};
use crate::platform::Platform;
use crate::refcount::Holder;
use crate::registry::Member;
use crate::transition::Transition;

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
        let not_theirs = |owner| TransitionError::NotOwned { device: address, owner };
        let device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let owner = device.owner();
        let Owner::Guest(guest) = owner else { return Err(not_theirs(owner)) };
        // Not `get`: a device whose removal is pending is the very one that its guest is asked for.
        let _kept = device.keep(ASKING)?;
        drop(device);
        self.permit_in_place(Transition::Unplug, address, owner)?;
        let mut device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        if device.owner() != owner {
            return Err(not_theirs(device.owner()));
        }
        // Before it is asked: it may answer at once.
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

    /// This guest answered, or did not in time. On [`Unplug::Acked`] the device is deassigned; if that fails, the answer
    /// may be reported again.
    ///
    /// `NotAsked` if the question is over, `NotOwned` if the one who is asked is another guest: a late answer counts
    /// for nobody.
    pub fn unplug_answered(
        &self,
        address: Sbdf,
        guest: DomainId,
        answer: Unplug,
    ) -> Result<(), TransitionError> {
        let mut device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let owner = device.owner();
        if !device.condition.asked {
            return Err(TransitionError::NotAsked(address));
        }
        if owner != Owner::Guest(guest) {
            return Err(TransitionError::NotOwned { device: address, owner });
        }
        device.condition.asked = answer != Unplug::Rejected;
        drop(device);
        if answer == Unplug::Acked {
            return self.deassign(&[Member::new(address)], owner);
        }
        self.report(address, What::UnplugRefused);
        Ok(())
    }

    fn end_question(&self, address: Sbdf) {
        // Gone meanwhile, and the question with it.
        if let Ok(mut device) = self.lock(address) {
            device.condition.asked = false;
        }
    }
}
