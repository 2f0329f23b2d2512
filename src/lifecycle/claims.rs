//! The claims of a transition, and the duty that comes with them.
//!
//! A device that is reported gone while it is claimed is left to the claim's holder to clear up after. So claims are
//! held here and nowhere else: however a transition ends, dropping them does that duty.

use alloc::vec::Vec;
use core::ops::Deref;

use super::Lifecycle;
use super::device::Device;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::Platform;
use crate::registry::{Claim, Traveller, with_room};

pub(super) type DeviceClaim<P> = Claim<Device<P>, <P as Platform>::Lock>;
pub(super) type DeviceTraveller<P> = Traveller<Device<P>, <P as Platform>::Lock>;

/// Claimed devices, each with where it goes.
pub(super) struct Claims<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    members: Vec<DeviceTraveller<P>>,
}

impl<'a, P: Platform> Claims<'a, P> {
    /// None yet, with room for so many.
    pub(super) fn with_room(lifecycle: &'a Lifecycle<P>, room: usize) -> Result<Self, NoMemory> {
        Ok(Self { lifecycle, members: with_room(room)? })
    }

    /// Makes room for one more.
    pub(super) fn reserve(&mut self) -> Result<(), NoMemory> {
        Ok(self.members.try_reserve(1)?)
    }

    /// Takes a claim in. There is room.
    pub(super) fn push(&mut self, claim: DeviceClaim<P>, to: Owner, wanted: Option<Sbdf>) {
        self.members.push(Traveller { claim, to, wanted });
    }

    /// Sends each member elsewhere, or lets it go where it is.
    pub(super) fn redirect<E>(
        &mut self,
        redirect: impl Fn(&DeviceClaim<P>, Owner) -> Result<Option<Owner>, E>,
    ) -> Result<(), E> {
        let mut place = 0;
        while let Some(member) = self.members.get_mut(place) {
            match redirect(&member.claim, member.to)? {
                Some(to) => {
                    member.to = to;
                    place += 1;
                }
                None => {
                    let stays = self.members.remove(place);
                    self.lifecycle.let_go(&stays.claim);
                }
            }
        }
        Ok(())
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
        for member in &self.members {
            self.lifecycle.let_go(&member.claim);
        }
    }
}

impl<P: Platform> Lifecycle<P> {
    /// Releases a device with which nothing was done, and clears up after it if it has gone.
    fn let_go(&self, claim: &DeviceClaim<P>) {
        if claim.is_released() {
            return;
        }
        let released = claim.release(|device, gone| if gone { device.depart() } else { None });
        if let Ok((Some(departure), Some(departed))) = released {
            self.clear_up(departure, departed, None);
        }
    }
}
