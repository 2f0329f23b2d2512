//! The claims of a transition, and the duty that comes with them.
//!
//! A device that is reported gone while it is claimed is left to the claim's holder to clear up after. So claims are
//! held here and nowhere else: however a transition ends, dropping them does that duty.

use alloc::vec::Vec;
use core::ops::Deref;

use super::Lifecycle;
use super::device::{Condition, Device};
use super::error::TransitionError;
use crate::Sbdf;
use crate::memory::{Few, NoMemory};
use crate::owner::Owner;
use crate::platform::Platform;
use crate::registry::{Claim, Traveller};

pub(super) type DeviceClaim<P> = Claim<Device<P>, <P as Platform>::Lock>;
pub(super) type DeviceTraveller<P> = Traveller<Device<P>, <P as Platform>::Lock>;

/// Where a claimed device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this owner.
    To(Owner),
    /// It stays where it is, and is settled with the others if they arrive.
    Stays,
}

/// Claimed devices, each with where it goes.
pub(super) struct Claims<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    members: Few<DeviceTraveller<P>, 1>,
    /// Those that do not go anywhere.
    staying: Vec<DeviceClaim<P>>,
}

impl<'a, P: Platform> Claims<'a, P> {
    /// None yet.
    pub(super) fn new(lifecycle: &'a Lifecycle<P>) -> Self {
        Self { lifecycle, members: Few::new(), staying: Vec::new() }
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        self.members.reserve(more)
    }

    /// Takes a claim in. There is room.
    pub(super) fn push(&mut self, claim: DeviceClaim<P>, to: Owner, wanted: Option<Sbdf>) {
        self.members.push(Traveller { claim, to, wanted });
    }

    /// Releases those that came after the first `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        while self.members.len() > length {
            let last = self.members.remove(self.members.len() - 1);
            self.lifecycle.let_go(&last.claim, |_| ());
        }
    }

    /// Sends each member elsewhere, or lets it stay where it is.
    pub(super) fn redirect(
        &mut self,
        redirect: impl Fn(&DeviceClaim<P>, Owner) -> Result<Way, TransitionError>,
    ) -> Result<(), TransitionError> {
        let mut place = 0;
        while let Some(member) = self.members.get_mut(place) {
            match redirect(&member.claim, member.to)? {
                Way::To(to) => {
                    member.to = to;
                    place += 1;
                }
                Way::Stays => {
                    self.staying.try_reserve(1).map_err(NoMemory::from)?;
                    self.staying.push(self.members.remove(place).claim);
                }
            }
        }
        Ok(())
    }

    /// Whether a device is one of them, on its way or staying.
    pub(super) fn have(&self, device: Sbdf) -> bool {
        self.members.binary_search_by_key(&device, |member| member.claim.address()).is_ok()
            || self.staying.iter().any(|claim| claim.address() == device)
    }

    /// Sends one member elsewhere.
    pub(super) fn divert(&mut self, place: usize, to: Owner) {
        if let Some(member) = self.members.get_mut(place) {
            member.to = to;
        }
    }

    /// A reset of another device has hit all of them.
    pub(super) fn were_reset(&self) {
        for member in self.members.iter() {
            // It fails only for a thread that holds the device's lock, which had it before in this call.
            let _marked = member.claim.with(|device, _| device.condition.unreset = None);
        }
    }

    /// The others have arrived: those that stay are what the transition makes of them.
    pub(super) fn settle(&self, settle: &dyn Fn(&mut Condition, Owner)) {
        for claim in &self.staying {
            self.lifecycle.let_go(claim, |condition| settle(condition, claim.owner()));
        }
    }
}

impl<P: Platform> Deref for Claims<'_, P> {
    type Target = [DeviceTraveller<P>];

    fn deref(&self) -> &Self::Target {
        &self.members
    }
}

impl<P: Platform> Drop for Claims<'_, P> {
    fn drop(&mut self) {
        for member in self.members.iter() {
            self.lifecycle.let_go(&member.claim, |condition| condition.will_wait = false);
        }
        for claim in &self.staying {
            self.lifecycle.let_go(claim, |condition| condition.will_wait = false);
        }
    }
}

impl<P: Platform> Lifecycle<P> {
    /// Releases a device that stays where it is, and clears up after it if it has gone.
    fn let_go(&self, claim: &DeviceClaim<P>, settle: impl FnOnce(&mut Condition)) {
        if claim.is_released() {
            return;
        }
        let released = claim.release(|device, gone| {
            if gone {
                return device.depart();
            }
            settle(&mut device.condition);
            None
        });
        if let Ok((Some(departure), Some(departed))) = released {
            self.clear_up(departure, departed, None);
        }
    }
}
