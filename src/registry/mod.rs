//! The registry: which devices there are, whose they are, and how they come, move and go.
//!
//! It is generic over the embedder's per-device data `D`, which lives in the device's slot and is reached under
//! the device's own lock, and over the lock `L`. There is no lock of the whole registry. What there is:
//!
//! | lock | protects |
//! |---|---|
//! | device lock | the device's binding (owner, guest address), its claim mark, the embedder's data |
//! | segment writer lock | which slots of a segment are live |
//! | an owner's list lock | who is on the list; a guest's address table |
//! | domain table lock (leaf) | which guests exist |
//!
//! Lookups take none of them. A device lock is never taken while a list or segment lock is held, nor the
//! reverse; a move bridges the two with its claim. The one nesting is add: segment writer lock, then the host's
//! list lock.
//!
//! *Owner* and *list* cannot disagree for long: the binding in the slot is the truth, the lists are how one
//! iterates, and a move changes all of them at one instant (`moves`). Every present device is on exactly one
//! list.

mod add;
mod binding;
mod claim;
mod domain;
mod gone;
mod handle;
mod moves;
mod parts;
mod relocation;
mod remove;
mod snapshot;
mod status;
mod ticket;
mod visitor;

use alloc::vec::Vec;
use core::fmt;

pub use add::{AddError, AddRefused};
pub(crate) use add::{Afterwards, Arriving};
pub(crate) use claim::{Candidate, Claim, ClaimRefused};
pub use domain::Domain;
pub use gone::GoneError;
pub(crate) use gone::{Departed, InHands};
pub use handle::{AccessError, Handle, Hold, Locked, Weak};
pub use moves::{Member, MoveError};
pub(crate) use moves::{in_order, with_room};
pub(crate) use relocation::{Journey, Traveller};
pub(crate) use remove::Closing;
pub use remove::RemoveError;
pub use snapshot::{Devices, Listed};
pub use status::{Phase, Status};
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
pub(crate) use ticket::block_on;
pub use ticket::{RemovalTicket, TicketError};
pub(crate) use visitor::Visitor;

use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::{NoMemory, Shared};
use crate::owner::{DomainId, Owner};
use crate::refcount::{self, Arena, Holder};
use crate::sync::unexplored::AtomicU32;
use crate::sync::{Lock, Ordering, RawLock, Site, weakened, with_default_lock};
use binding::Record;
use domain::{DomainState, OwnerState};

/// What a registry's handles share.
struct Core<D, L: RawLock> {
    arena: Shared<Arena<Record<D>, L>>,
    unowned: DomainState<D, L>,
    host: DomainState<D, L>,
    quarantine: DomainState<D, L>,
    hidden: DomainState<D, L>,
    /// The guests, by number.
    guests: Lock<Guests<D, L>, L>,
    /// Guests made so far.
    lives: AtomicU32,
}

type Guests<D, L> = Vec<(DomainId, Shared<DomainState<D, L>>)>;

impl<D, L: RawLock> Core<D, L> {
    fn try_new() -> Result<Shared<Self>, NoMemory> {
        let arena = Arena::try_new()?;
        let owner = |owner| DomainState::new(owner, 0, &arena);
        Shared::try_new(Self {
            unowned: owner(Owner::Unowned),
            host: owner(Owner::Host),
            quarantine: owner(Owner::Quarantine),
            hidden: owner(Owner::Hidden),
            guests: Lock::new(Vec::new()),
            lives: AtomicU32::new(0),
            arena,
        })
    }

    /// The registry goes: removes what nobody uses and reports the rest gone.
    fn end_devices(&self) {
        for slot in self.arena.present() {
            if let Ok(closed) = slot.close(0, |_| true) {
                remove::Closing::of(self, closed).finish();
            } else if gone::depart(self, slot, |_, _| ()).is_err() {
                // This very thread is inside, through a domain handle, and cannot wait for itself.
                slot.abandon();
            }
        }
    }

    fn owner(&self, owner: Owner) -> Option<OwnerState<'_, D, L>> {
        let always = match owner {
            Owner::Unowned => &self.unowned,
            Owner::Host => &self.host,
            Owner::Quarantine => &self.quarantine,
            Owner::Hidden => &self.hidden,
            Owner::Guest(id) => return self.guest(id).map(OwnerState::Guest),
        };
        Some(OwnerState::Always(always))
    }

    fn guest(&self, id: DomainId) -> Option<Shared<DomainState<D, L>>> {
        let guests = self.guests.lock();
        let place = guests.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(guests[place].1.clone())
    }
}

with_default_lock! {
    /// All PCI devices of one machine, each found by its address and reached under its own lock.
    ///
    /// `D` is what the embedder keeps per device. `L` is the embedder's lock; under the feature `std` it may be
    /// left out. A registry is shared by reference, or in an `Arc`; its methods take `&self`.
    ///
    /// Dropping it removes the devices nobody uses and reports the others gone. Handles that outlive it are safe:
    /// they keep their device's object until the last put.
    pub struct Registry<D; L> {
        core: Shared<Core<D, L>>,
    }
}

impl<D, L: RawLock> Registry<D, L> {
    /// An empty registry: segment 0 and three empty lists.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(Self { core: Core::try_new()? })
    }

    /// Makes a device known, live and on the host's list, with its creation reference (R1).
    ///
    /// On failure nothing was added and the data comes back.
    pub fn add(&self, address: Sbdf, data: D) -> Result<(), AddError<D>> {
        add::add(&self.core, address, data)
    }

    /// A use of the device at this address; `None`, at once, if there is none or its removal has begun (R3).
    #[inline]
    pub fn get(&self, address: Sbdf) -> Option<Handle<D, L>> {
        self.core.arena.find(address)?.get().map(Handle)
    }

    /// A named use of the device at this address (R2); `None` as for [`get`](Self::get).
    #[inline]
    pub fn hold(&self, address: Sbdf, holder: Holder) -> Result<Option<Hold<D, L>>, NoMemory> {
        match self.core.arena.find(address) {
            Some(slot) => Ok(slot.hold(holder)?.map(Hold)),
            None => Ok(None),
        }
    }

    /// Locked access to the device at this address, whoever owns it: no count, one lock pair.
    ///
    /// Goes on while a removal is pending; [`AccessError::NotFound`] once the device is closed or gone.
    #[inline]
    pub fn lock(&self, address: Sbdf) -> Result<Locked<'_, D, L>, AccessError> {
        let slot = self.core.arena.find(address).ok_or(AccessError::NotFound)?;
        slot.lock()?.map(Locked::new).ok_or(AccessError::NotFound)
    }

    /// A published register of the device at this address, whoever owns it, read without a lock or a write. See
    /// [`Locked::publish`]. `None`: ask [`lock`](Self::lock).
    #[inline]
    pub fn read_published(&self, address: Sbdf, register: usize) -> Option<u32> {
        self.core.arena.find(address)?.read_published(None, register)
    }

    /// Removes the device if nobody uses it.
    ///
    /// `Ok` means that nobody can reach that function any more: no handle exists, no access is inside, its
    /// destructor has run. [`RemoveError::Busy`] says who still can; then nothing has changed.
    pub fn remove_device(&self, address: Sbdf) -> Result<(), RemoveError> {
        remove::remove(&self.core, address)
    }

    /// Refuses new uses of the device and waits, through the ticket, for the last one to go.
    pub fn begin_removal(&self, address: Sbdf) -> Result<RemovalTicket<D, L>, RemoveError> {
        ticket::begin(&self.core, address)
    }

    /// The hardware is gone already: no new use, no access, off every list at once; the object is freed at its
    /// last put. Returns when no access is inside any more. Holders that asked for it are told.
    ///
    /// If a guest had the device, the guest's slot stays taken and reads ones until
    /// [`Domain::acknowledge_gone`].
    pub fn report_gone(&self, address: Sbdf) -> Result<(), GoneError> {
        gone::report_gone(&self.core, address)
    }

    /// Moves a set of devices to another owner: all at one instant, or none.
    ///
    /// To `Guest`, `Quarantine`, `Host` and, if unused, `Hidden`. A device whose removal is pending goes to no
    /// guest. Members that are with that owner already stay as they are. An empty set moves nothing.
    pub fn move_devices(&self, set: &[Member], to: Owner) -> Result<(), MoveError> {
        moves::move_devices(&self.core, set, to)
    }

    /// Makes a guest known, without devices.
    pub fn create_domain(&self, id: DomainId) -> Result<Domain<D, L>, CreateDomainError> {
        let life = self.core.lives.fetch_add(1, Ordering::Relaxed);
        let domain = Shared::try_new(DomainState::new(Owner::Guest(id), life, &self.core.arena))?;
        let mut guests = self.core.guests.lock();
        let Err(place) = guests.binary_search_by_key(&id, |(id, _)| *id) else {
            return Err(CreateDomainError::Exists(id));
        };
        guests.try_reserve(1).map_err(NoMemory::from)?;
        guests.insert(place, (id, domain.clone()));
        drop(guests);
        Ok(Domain::new(domain, id))
    }

    /// A guest that was made known, for its vCPU threads.
    pub fn domain(&self, id: DomainId) -> Option<Domain<D, L>> {
        Some(Domain::new(self.core.guest(id)?, id))
    }

    /// Forgets a guest that has no devices. From then on none can be moved to it.
    pub fn destroy_domain(&self, id: DomainId) -> Result<(), DestroyDomainError> {
        let domain = self.core.guest(id).ok_or(DestroyDomainError::NotFound(id))?;
        let mut members = domain.members.lock();
        if members.closed && !weakened(Site::DestroyOnce) {
            return Err(DestroyDomainError::NotFound(id));
        }
        if !members.is_idle() {
            return Err(DestroyDomainError::NotEmpty { domain: id, devices: members.list.len() });
        }
        members.closed = true;
        drop(members);
        let mut guests = self.core.guests.lock();
        // Closed by this thread alone, so what is there under the number is still this guest.
        if let Ok(place) = guests.binary_search_by_key(&id, |(id, _)| *id) {
            guests.remove(place);
        }
        Ok(())
    }

    /// An owner's devices at this moment, as weak handles in address order; `None` if there is no such guest.
    pub fn devices_of(&self, owner: Owner) -> Result<Option<Devices<D, L>>, NoMemory> {
        self.core.owner(owner).map(|domain| Devices::of(&domain)).transpose()
    }

    /// Every present device, in address order: a walk, which sees what comes and goes meanwhile.
    pub fn devices(&self) -> impl Iterator<Item = Status> + '_ {
        self.core.arena.present().map(Status::of)
    }

    /// Count, holders and owner of the device at this address (R10).
    pub fn status(&self, address: Sbdf) -> Option<Status> {
        let slot = self.core.arena.find(address)?;
        slot.glance().is_present().then(|| Status::of(slot))
    }
}

impl<D, L: RawLock> Drop for Registry<D, L> {
    fn drop(&mut self) {
        /// Goes on with the rest of the devices, also when a destructor has panicked.
        struct Rest<'a, D, L: RawLock>(&'a Core<D, L>);

        impl<D, L: RawLock> Drop for Rest<'_, D, L> {
            fn drop(&mut self) {
                self.0.end_devices();
            }
        }

        let rest = Rest(&self.core);
        rest.0.end_devices();
    }
}

impl<D, L: RawLock> fmt::Debug for Registry<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.core.arena.present().map(refcount::Slot::address)).finish()
    }
}

/// A guest was not made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateDomainError {
    /// It is known already (EEXIST).
    #[error("domain {0} exists")]
    Exists(DomainId),
    /// Nothing was made (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

/// A guest was not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DestroyDomainError {
    /// It is not known (ESRCH).
    #[error("there is no domain {0}")]
    NotFound(DomainId),
    /// It has devices, or some are on their way to it: move them away first (EBUSY).
    #[error("domain {domain} still has {devices} devices, or a move to it is under way")]
    NotEmpty {
        /// The guest.
        domain: DomainId,
        /// How many devices are on its list.
        devices: usize,
    },
}

impl CreateDomainError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Exists(_) => Errno::EEXIST,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

impl DestroyDomainError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_) => Errno::ESRCH,
            Self::NotEmpty { .. } => Errno::EBUSY,
        }
    }
}
