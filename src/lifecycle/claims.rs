//! The claims of a transition, and the duty that comes with them.
//!
//! A device that is reported gone while it is claimed is left to the claim's holder to clear up after. So claims are
//! held here and nowhere else: however a transition ends, dropping them does that duty.

use alloc::vec::Vec;
use core::ops::Deref;

use super::Lifecycle;
use super::device::Device;
use crate::Sbdf;
use crate::memory::{Few, NoMemory};
use crate::owner::Owner;
use crate::platform::Platform;
use crate::registry::{Claim, Traveller};

pub(super) type DeviceClaim<P> = Claim<Device<P>, <P as Platform>::Lock>;
pub(super) type DeviceTraveller<P> = Traveller<Device<P>, <P as Platform>::Lock>;

/// Claimed devices, each with where it goes.
pub(super) struct Claims<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    members: Few<DeviceTraveller<P>, 1>,
    /// Those that stay where they are after all, until it is known whether the rest succeeds.
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

    /// Sends each member elsewhere, or lets it stay where it is.
    pub(super) fn redirect<E: From<NoMemory>>(
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
                    self.staying.try_reserve(1).map_err(NoMemory::from)?;
                    self.staying.push(self.members.remove(place).claim);
                }
            }
        }
        Ok(())
    }

    /// The transition succeeded: those that stay wait for their group, if they were asked to.
    pub(super) fn stay(&self) {
        for claim in &self.staying {
            // This thread had the lock for the claim, so it does not hold it.
            let _settled = claim.with(|device, _| device.condition.give_back.settle(true));
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
        self.staying.iter().for_each(|claim| self.lifecycle.let_go(claim));
        self.members.iter().for_each(|member| self.lifecycle.let_go(&member.claim));
    }
}

impl<P: Platform> Lifecycle<P> {
    /// Releases a device with which nothing was done, and clears up after it if it has gone.
    fn let_go(&self, claim: &DeviceClaim<P>) {
        if claim.is_released() {
            return;
        }
        let released = claim.release(|device, gone| {
            device.condition.give_back.settle(false);
            if gone { device.depart() } else { None }
        });
        if let Ok((Some(departure), Some(departed))) = released {
            self.clear_up(departure, departed, None);
        }
    }
}
