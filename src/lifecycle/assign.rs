//! Devices go to guests and come back.

use super::Lifecycle;
use super::claims::{DeviceClaim, Way};
use super::device::Condition;
use super::error::TransitionError;
use super::group::{Group, Key};
use super::registers;
use super::steps;
use super::transaction::ask;
use super::transfer::{Admission, Change};
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::{Platform, Request};
use crate::registry::Member;
use crate::transition::Transition;

impl<P: Platform> Lifecycle<P> {
    /// Whether this device could be assigned to this guest now. Changes nothing.
    ///
    /// The answer is of this instant. It does not ask whether the device's group is viable, which a set may make so.
    pub fn can_assign(&self, address: Sbdf, guest: DomainId) -> Result<(), TransitionError> {
        self.check_guest(guest)?;
        // A claim that admits nobody is the check, under the device's lock.
        let mut from = None;
        self.registry().claim(address, Transition::Assign, |device| {
            self.admit_to_guest(device, address)?;
            from = Some(device.owner());
            Ok::<Option<()>, TransitionError>(None)
        })?;
        let to = Owner::Guest(guest);
        self.permit(&Request { transition: Transition::Assign, device: address, from, to })
    }

    /// Gives devices of the host, or from quarantine, to a guest: all of them in one publication, or none.
    ///
    /// Members see their old owner's vPCI end, are quiesced, blocked in the IOMMU, reset, attached to the guest's
    /// tables under all their requester IDs, and seen by the guest, in this order. After any failure the old owner
    /// has every one of them back with all it had.
    pub fn assign(&self, set: &[Member], guest: DomainId) -> Result<(), TransitionError> {
        self.check_guest(guest)?;
        let to = Owner::Guest(guest);
        self.transfer(
            set,
            &Change {
                kind: Transition::Assign,
                steps: steps::assign(),
                to,
                admit: &|device, at| self.admit_to_guest(device, at).map(|()| Some(to)),
                redirect: &|_, to| Ok(Way::To(to)),
                settle: &|_, _| {},
            },
        )
    }

    /// Gives a device's whole IOMMU group, without its bridges, to a guest.
    pub fn assign_group(&self, address: Sbdf, guest: DomainId) -> Result<(), TransitionError> {
        let mut members = self.group_of(address)?;
        members.try_reserve(1).map_err(NoMemory::from)?;
        members.push(address);
        let is_bridge = |at: &Sbdf| self.lock(*at).is_ok_and(|device| device.known.behind.is_some());
        members.retain(|at| !is_bridge(at));
        let mut set = crate::registry::with_room(members.len())?;
        set.extend(members.into_iter().map(Member::new));
        self.assign(&set, guest)
    }

    /// Takes devices back from a guest, or out of quarantine.
    ///
    /// They go to the host; to quarantine where the device was in quarantine before, where the platform says so, while
    /// a removal of them is pending, and while a device that shares a requester ID is broken or in quarantine. A device of a group that the host cannot have yet waits in quarantine
    /// ([`Device::is_deferred`](super::Device::is_deferred)); when the last member has left its guest and nobody has
    /// the group open, all that wait go back in one transition.
    pub fn deassign(&self, set: &[Member], from: Owner) -> Result<(), TransitionError> {
        let transferred = self.transfer(
            set,
            &Change {
                kind: Transition::Deassign,
                steps: steps::MOVE,
                to: Owner::Host,
                admit: &|device, at| admit_back(device, at, from),
                redirect: &|claim, to| self.redirect_back(claim, to),
                settle: &|condition, to| {
                    // `give_back` takes it with the rest of its group.
                    condition.to_give_back |= core::mem::take(&mut condition.will_wait);
                    condition.sticky &= to != Owner::Host;
                },
            },
        );
        transferred?;
        for member in set {
            self.give_back(member.address());
        }
        Ok(())
    }

    fn check_guest(&self, guest: DomainId) -> Result<(), TransitionError> {
        match self.registry().accepts_devices(guest) {
            None => Err(TransitionError::NoDomain(guest)),
            Some(false) => Err(TransitionError::Dying(guest)),
            Some(true) => Ok(()),
        }
    }

    /// A guest may get what is whole, an endpoint, and with the host or in quarantine.
    fn admit_to_guest(&self, device: &mut Admission<'_, P>, at: Sbdf) -> Result<(), TransitionError> {
        let (owner, removing) = (device.owner(), device.is_removing());
        let data = device.data();
        if let Some(because) = data.condition.broken {
            return Err(TransitionError::Broken { device: at, because });
        }
        if !data.known.is_endpoint {
            return Err(TransitionError::NotEndpoint(at));
        }
        match owner {
            Owner::Host | Owner::Quarantine => {}
            Owner::Hidden => return Err(TransitionError::Hidden(at)),
            owner => return Err(TransitionError::Taken { device: at, owner }),
        }
        if owner == Owner::Host
            && let Some(msix) = data.known.msix
            && ask(at, || registers::is_msix_masked(self.platform(), at, msix))?
        {
            return Err(TransitionError::MsixMasked(at));
        }
        if removing {
            return Err(device.in_the_way().into());
        }
        Ok(())
    }

    /// Where a device that could go to the host goes instead: to quarantine, to stay or to wait for its group.
    fn redirect_back(&self, claim: &DeviceClaim<P>, to: Owner) -> Result<Way, TransitionError> {
        let (at, from) = (claim.address(), claim.owner());
        if to != Owner::Host {
            return Ok(Way::To(to));
        }
        if from != Owner::Quarantine && ask(at, || self.platform().keeps_in_quarantine(at))? {
            return Ok(Way::To(Owner::Quarantine));
        }
        let known = claim.with(|device, _| device.known.clone())?;
        if from != Owner::Quarantine && self.has_blocked_sharer(at, &known) {
            // With the host's tables behind an ID of both, the other one would reach the host's memory.
            return Ok(Way::To(Owner::Quarantine));
        }
        let group = known.group.as_ref();
        let waits = match group.map(|group| &**group) {
            Some(Group { key: Key::Platform(id), .. }) if group.is_some_and(|group| group.len() == 1) => {
                ask(at, || self.platform().group_in_use(*id))?
            }
            Some(Group { key: Key::Platform(_), .. }) => true,
            _ => false,
        };
        if !waits {
            return Ok(Way::To(Owner::Host));
        }
        claim.with(|device, _| device.condition.will_wait = true)?;
        Ok(if from == Owner::Quarantine { Way::Stays } else { Way::To(Owner::Quarantine) })
    }

    /// Gives what waits in this device's group back to the host, if nobody stands in the way.
    pub(super) fn give_back(&self, address: Sbdf) {
        let Ok(Some(group)) = self.lock(address).map(|device| device.known.group.clone()) else { return };
        let Key::Platform(id) = group.key else { return };
        // A platform that cannot say keeps them waiting.
        if ask(address, || self.platform().group_in_use(id)) != Ok(false) {
            return;
        }
        let Ok(members) = group.members() else { return };
        let Ok(mut set) = crate::registry::with_room(members.len()) else { return };
        for at in members {
            let Ok(device) = self.lock(at) else { continue };
            if device.owner().guest().is_some() {
                return;
            }
            if device.is_deferred() {
                set.push(Member::new(at));
            }
        }
        // If it fails they wait on, which their condition says and the event tells why.
        let _given = self.transfer(
            &set,
            &Change {
                kind: Transition::Deassign,
                steps: steps::MOVE,
                to: Owner::Host,
                admit: &|device, _| {
                    let condition = device.data().condition;
                    let waits = condition.to_give_back && condition.broken.is_none() && !device.is_removing();
                    Ok((waits && device.owner() == Owner::Quarantine).then_some(Owner::Host))
                },
                redirect: &|_, to| Ok(Way::To(to)),
                settle: &|condition: &mut Condition, _| condition.sticky = false,
            },
        );
    }

    /// Tries to give back every group that waits; how many devices still do.
    pub(super) fn give_back_all(&self) -> usize {
        let waiting = |at: Sbdf| self.lock(at).is_ok_and(|device| device.is_deferred());
        let quarantine = self.devices_of(Owner::Quarantine);
        let Ok(Some(devices)) = quarantine else { return 0 };
        let mut left = 0;
        for device in devices.iter().map(|device| device.address()) {
            if waiting(device) {
                self.give_back(device);
                left += usize::from(waiting(device));
            }
        }
        left
    }

    /// Asks the platform's policy.
    pub(super) fn permit(&self, request: &Request) -> Result<(), TransitionError> {
        let refused = |refusal| TransitionError::Refused(request.device, refusal);
        ask(request.device, || self.platform().permit(request))?.map_err(refused)
    }
}

/// Whether a device may be taken from `from`; to the host, as far as the device itself can tell.
fn admit_back<P: Platform>(
    device: &mut Admission<'_, P>,
    at: Sbdf,
    from: Owner,
) -> Result<Option<Owner>, TransitionError> {
    let (owner, removing) = (device.owner(), device.is_removing());
    let condition = device.data().condition;
    if owner != from || !matches!(from, Owner::Guest(_) | Owner::Quarantine) {
        return Err(TransitionError::NotOwned { device: at, owner });
    }
    if let Some(because) = condition.broken {
        return Err(TransitionError::Broken { device: at, because });
    }
    if from == Owner::Quarantine {
        // What is to be removed goes to no host driver.
        return Ok((!removing).then_some(Owner::Host));
    }
    Ok(Some(if removing || condition.sticky { Owner::Quarantine } else { Owner::Host }))
}
