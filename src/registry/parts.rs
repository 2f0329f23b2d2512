//! The parts of the registry's operations, for transitions that have steps of their own between them.

use super::Registry;
use super::add::{AddRefused, Arriving};
use super::claim::{Candidate, Claim, ClaimRefused};
use super::gone::{self, Departed, Farewell, GoneError, InHands};
use super::moves::MoveError;
use super::relocation::{Journey, Traveller, relocate};
use super::remove::{Closing, RemoveError};
use super::snapshot::Devices;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::refcount::{Busy, Holder, Occupied, Slot, WouldDeadlock};
use crate::sync::RawLock;
use crate::transition::Transition;

/// What was settled of a device, the device, and what tells its holders.
type Left<'a, R, D, L> = (R, Departed<D, L>, Farewell<'a, D, L>);

/// A claim, and what its device was admitted with.
type Claimed<R, D, L> = (Claim<D, L>, R);

impl<D, L: RawLock> Registry<D, L> {
    /// Takes an address for a new device of the host.
    pub(crate) fn arrive(&self, address: Sbdf) -> Result<Arriving<'_, D, L>, AddRefused> {
        Arriving::reserve(&self.core, address, &self.core.host)
    }

    /// Takes an address for a device that has no owner yet.
    pub(crate) fn arrive_unowned(&self, address: Sbdf) -> Result<Arriving<'_, D, L>, AddRefused> {
        Arriving::reserve(&self.core, address, &self.core.unowned)
    }

    /// Closes a device that has no uses, but for the `held` ones that the caller owns.
    pub(crate) fn close(&self, address: Sbdf, held: u32) -> Result<Closing<'_, D, L>, RemoveError> {
        Closing::close(&self.core, address, held)
    }

    /// Claims a device that `admit` lets through.
    pub(crate) fn claim<R, E: From<ClaimRefused>>(
        &self,
        address: Sbdf,
        kind: Transition,
        admit: impl FnOnce(&mut Candidate<'_, D, L>) -> Result<Option<R>, E>,
    ) -> Result<Option<Claimed<R, D, L>>, E> {
        Claim::take(&self.core, address, kind, admit)
    }

    /// Moves what is claimed.
    pub(crate) fn relocate<E: From<MoveError>>(
        &self,
        travellers: &[Traveller<D, L>],
        to: Owner,
        journey: &mut impl Journey<E>,
    ) -> Result<(), E> {
        match (self.core.owner(to), to) {
            (Some(target), _) => relocate(&self.core, travellers, &target, journey),
            (None, Owner::Guest(id)) => Err(MoveError::NoDomain(id).into()),
            (None, _) => Err(MoveError::NoMemory(NoMemory).into()),
        }
    }

    /// A surprise removal of a device that somebody has closed, who will see; `false` if nobody has.
    pub(crate) fn lose(&self, address: Sbdf) -> Result<bool, WouldDeadlock> {
        self.core.arena.find(address).map_or(Ok(false), Slot::lose)
    }

    /// Whether a device is present at `address`.
    pub(crate) fn is_present(&self, address: Sbdf) -> bool {
        self.core.arena.find(address).is_some_and(|slot| slot.glance().is_present())
    }

    /// A surprise removal whose leavings the caller settles. Its holders are told when the last of what is returned
    /// is dropped.
    pub(crate) fn depart<R>(
        &self,
        address: Sbdf,
        settle: impl FnMut(&mut D, InHands) -> R,
    ) -> Result<Left<'_, R, D, L>, GoneError> {
        let slot = self.core.arena.find(address).ok_or(GoneError::NotFound(address))?;
        gone::depart(&self.core, slot, settle)?.ok_or(GoneError::NotFound(address))
    }

    /// Who is at `address`, or on the way there or away.
    pub(crate) fn occupant(&self, address: Sbdf) -> Option<Busy> {
        let kind = match self.core.arena.find(address)?.occupied()? {
            Occupied::Present | Occupied::Arriving => Transition::Add,
            Occupied::Removing | Occupied::Closing => Transition::Remove,
            Occupied::Teardown => return None,
        };
        Some(Busy::because(Holder::Transition(kind)))
    }

    /// Whether `address` is not free although its device is gone.
    pub(crate) fn is_kept(&self, address: Sbdf) -> bool {
        self.core.arena.find(address).is_some_and(Slot::keeps_address_when_gone)
    }

    /// The first, by what `pick` makes of them, of a device's holders.
    pub(crate) fn find_holder<R: Ord>(&self, address: Sbdf, pick: impl Fn(Holder) -> Option<R>) -> Option<R> {
        self.core.arena.find(address)?.find_holder(pick)
    }

    /// Where there are devices, from an address on: a walk, with no lock held between its steps.
    pub(crate) fn addresses_from(&self, from: Sbdf) -> impl Iterator<Item = Sbdf> + '_ {
        self.core.arena.present_from(from).map(Slot::address)
    }

    /// The first present device at `from` or after it.
    pub(crate) fn next_device(&self, from: Sbdf) -> Option<Sbdf> {
        self.addresses_from(from).next()
    }

    /// From now on this guest takes no devices. Returns those it has; `None` if there is no such guest.
    pub(crate) fn condemn(&self, id: DomainId) -> Result<Option<Devices<D, L>>, NoMemory> {
        let Some(domain) = self.core.guest(id) else { return Ok(None) };
        domain.members.lock().dying = true;
        Devices::of(&domain).map(Some)
    }

    /// Whether the guest is known, and not being released.
    pub(crate) fn accepts_devices(&self, id: DomainId) -> Option<bool> {
        let domain = self.core.guest(id)?;
        let members = domain.members.lock();
        Some(!members.dying && !members.closed)
    }
}
