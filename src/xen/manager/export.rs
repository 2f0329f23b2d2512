//! To a guest and back.

use super::error::XenError;
use super::operation::Kind;
use super::{Held, XenManager, locked};
use crate::Sbdf;
use crate::owner::{DomainId, Owner};
use crate::xen::assignable::AssignableError;
use crate::xen::pciback::{Export, PcibackError, Place, Released, State, Toolstack};
use crate::xen::store::{NodePath, Store, StoreError};
use crate::{Member, lifecycle::TransitionError};

/// Whether a guest's first devices are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// The guest need not run yet: it finds them when it does.
    #[default]
    No,
    /// The guest runs, and is to have them before this ends.
    UntilConnected,
}

/// How a guest got its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// Driver and guest were at it when the time was up: the set is the guest's, and whether it has seen it is not known.
    /// The next operation finds out; `release` ends it if the guest is dead.
    pub pending: Option<PcibackError>,
}

impl XenManager {
    /// Gives devices that are on pciback to a guest: all of them at once, or none.
    pub fn attach(&self, guest: DomainId, set: &[Export], waiting: Waiting) -> Result<Attached, XenError> {
        if set.is_empty() {
            return Err(PcibackError::Set.into());
        }
        let mut store = self.connect()?;
        let name = self.check_guest(&mut *store, guest)?;
        for export in set {
            self.check_device(guest, export.device)?;
        }
        self.known(guest)?;
        let mut holds = Vec::new();
        for export in set {
            holds.push((export.device, self.hold(guest, export.device)?));
        }
        let kind = Kind::Export { guest, name, set: set.to_vec(), waiting };
        let operation = self.carry_out(kind, || self.lifecycle.assign(&Self::members(set), guest))?;
        let mut held = locked(&self.held);
        held.extend(holds.into_iter().map(|(device, hold)| (device, Held { guest, _hold: hold })));
        drop(held);
        let pending = operation.state().pending.take();
        Ok(Attached { pending })
    }

    /// Takes devices from a guest that runs: it lets each go, then the hypervisor takes back what it allowed. They stay on
    /// pciback.
    pub fn detach(&self, guest: DomainId, set: &[Sbdf]) -> Result<(), XenError> {
        if set.is_empty() {
            return Err(PcibackError::Set.into());
        }
        if let Some(other) = set.iter().find(|device| self.owner(**device) != Some(Owner::Guest(guest))) {
            return Err(PcibackError::NotExported(*other).into());
        }
        let members: Vec<Member> = set.iter().copied().map(Member::new).collect();
        let kind = Kind::Withdraw;
        self.carry_out(kind, || self.lifecycle.deassign(&members, Owner::Guest(guest)))?;
        locked(&self.held).retain(|device, held| held.guest != guest || !set.contains(device));
        Ok(())
    }

    /// Takes everything from a guest that is dead, or whose backend has given up. Nothing of it is left in the store, and
    /// the devices stay on pciback.
    pub fn release(&self, guest: DomainId) -> Result<Released, XenError> {
        let mut store = self.connect()?;
        let at_state = Place::new(guest).backend()?.child("state").map_err(StoreError::from)?;
        let is_over = store.find(None, &at_state)?.is_some_and(|state| State::read(&state).is_over());
        if store.is_introduced(guest)? && !is_over {
            return Err(XenError::Alive(guest));
        }
        self.known(guest)?;
        let released = self.carry_out(Kind::Release, || self.lifecycle.release_domain(guest));
        // What has come back has come back, whatever became of the others.
        locked(&self.held)
            .retain(|device, held| held.guest != guest || self.owner(*device) == Some(Owner::Guest(guest)));
        let released = released?.state().released.take();
        match released {
            Some(released) => Ok(released),
            // It had none that the engine knows; what is left in the store goes all the same.
            None => Ok(Toolstack::new(&mut *store, guest).with_patience(self.core.patience()).release()?),
        }
    }

    /// Whether a guest can be given devices; its name.
    fn check_guest<S: Store + ?Sized>(&self, store: &mut S, guest: DomainId) -> Result<String, XenError> {
        self.core.hypervisor.domain(guest)?.takes_devices()?;
        let home = NodePath::new(&format!("/local/domain/{guest}")).map_err(StoreError::from)?;
        let mut has =
            |leaf: &str| -> Result<bool, StoreError> { Ok(store.find(None, &home.child(leaf)?)?.is_some()) };
        // libxl writes whom a stub domain serves, and a folder of its own for a driver domain.
        if has("target")? {
            return Err(XenError::StubDomain(guest));
        }
        if has("libxl")? {
            return Err(XenError::DriverDomain(guest));
        }
        let name = store.find(None, &home.child("name").map_err(StoreError::from)?)?;
        Ok(name.map_or_else(|| guest.to_string(), |name| String::from_utf8_lossy(&name).into_owned()))
    }

    fn check_device(&self, guest: DomainId, device: Sbdf) -> Result<(), XenError> {
        match self.owner(device) {
            None => Err(AssignableError::NotFound(device).into()),
            Some(Owner::Quarantine) => Ok(()),
            Some(Owner::Guest(holder)) if holder == guest => Err(PcibackError::Already(device).into()),
            Some(Owner::Guest(holder)) => Err(PcibackError::Held { device, guest: holder }.into()),
            Some(Owner::Host | Owner::Unowned) => Err(AssignableError::NotAssignable(device).into()),
            Some(Owner::Hidden) => Err(XenError::transition(TransitionError::Hidden(device), Vec::new())),
        }
    }
}
