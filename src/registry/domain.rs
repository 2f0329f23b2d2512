//! Owners' lists, and guests: who has which devices, and at which addresses.

use core::fmt;
use core::ops::Deref;

use super::AccessError;
use super::binding::{Guest, Place, Record};
use super::claim::is_claimed;
use super::handle::Locked;
use super::snapshot::Devices;
use super::visitor::Visitor;
use crate::Sbdf;
use crate::address::Segment;
use crate::memory::{NoMemory, Shared};
use crate::owner::{DomainId, Owner};
use crate::refcount::{self, Arena, Directory, List, Slot};
use crate::sync::{Lock, RawLock, Site, weakened, with_default_lock};

/// The lowest guest addresses are handed out device by device, function 0 only, on buses 0 to 255.
const PLACES: u16 = 256 * 32;

/// One owner: its list, and for a guest its addresses.
pub(super) struct DomainState<D, L: RawLock> {
    pub(super) owner: Owner,
    /// Which life of its number a guest is; see [`Guest`].
    life: u32,
    pub(super) members: Lock<Members<D, L>, L>,
    /// Written under the lock of `members`.
    pub(super) directory: Directory<Record<D>, L>,
}

/// An owner's state, for as long as somebody needs it.
pub(super) enum OwnerState<'a, D, L: RawLock> {
    /// The host's, and the others that are as old as the registry.
    Always(&'a DomainState<D, L>),
    /// A guest's, which may be destroyed meanwhile.
    Guest(Shared<DomainState<D, L>>),
}

impl<D, L: RawLock> Deref for OwnerState<'_, D, L> {
    type Target = DomainState<D, L>;

    #[inline]
    fn deref(&self) -> &DomainState<D, L> {
        match self {
            Self::Always(state) => state,
            Self::Guest(state) => state,
        }
    }
}

/// What the list lock of an owner protects.
pub(super) struct Members<D, L: RawLock> {
    pub(super) list: List<Record<D>, L>,
    /// Room on the list that moves under way have been promised.
    promised: usize,
    /// The guest is going: no device comes any more, those it has can leave.
    pub(super) dying: bool,
    /// The guest is gone.
    pub(super) closed: bool,
    /// No guest address below this one is free, counted in devices.
    lowest_free: u16,
    /// How often a guest address has been freed.
    freed: u64,
}

impl<D, L: RawLock> DomainState<D, L> {
    pub(super) fn new(owner: Owner, life: u32, arena: &Shared<Arena<Record<D>, L>>) -> Self {
        let list = List::new(arena.clone());
        let members = Members { list, promised: 0, dying: false, closed: false, lowest_free: 0, freed: 0 };
        Self { owner, life, members: Lock::new(members), directory: Directory::new(arena.clone()) }
    }

    /// This owner as a place; a guest sees the device at `at`.
    pub(super) fn place(&self, at: Sbdf) -> Place {
        match self.owner {
            Owner::Unowned => Place::Unowned,
            Owner::Host => Place::Host,
            Owner::Quarantine => Place::Quarantine,
            Owner::Hidden => Place::Hidden,
            Owner::Guest(id) => Place::Guest(Guest { id, life: self.life }, at),
        }
    }

    /// Finds a free guest address, or checks the one asked for, and points it at the slot.
    pub(super) fn occupy(
        &self,
        members: &mut Members<D, L>,
        wanted: Option<Sbdf>,
        slot: &Slot<Record<D>, L>,
    ) -> Result<Sbdf, CannotOccupy> {
        let at = match wanted {
            Some(at) => at,
            None => {
                let free = (members.lowest_free..PLACES)
                    .find(|place| self.directory.find_to_write(place_address(*place)).is_none());
                members.lowest_free = free.unwrap_or(PLACES);
                place_address(free.ok_or(CannotOccupy::NoFreeSlot)?)
            }
        };
        if self.directory.find_to_write(at).is_some() {
            return Err(CannotOccupy::SlotTaken(at));
        }
        self.directory.set(at, slot).map_err(|NoMemory| CannotOccupy::NoMemory)?;
        Ok(at)
    }

    /// Frees a guest address if it points at this slot.
    pub(super) fn vacate(&self, members: &mut Members<D, L>, at: Sbdf, slot: &Slot<Record<D>, L>) {
        self.directory.clear(at, slot);
        members.freed += 1;
        if at.segment().number() == 0 && at.function() == 0 {
            members.lowest_free = members.lowest_free.min(at.bdf() >> 3);
        }
    }
}

fn place_address(place: u16) -> Sbdf {
    Sbdf::from_bdf(Segment::new(0), place << 3)
}

/// Why a device has no address in a guest.
pub(super) enum CannotOccupy {
    SlotTaken(Sbdf),
    NoFreeSlot,
    NoMemory,
}

impl<D, L: RawLock> Members<D, L> {
    /// Promises room for `more` devices, so that their arrival cannot fail.
    pub(super) fn promise(&mut self, more: usize) -> Result<(), NoMemory> {
        self.list.reserve(self.promised + more)?;
        self.promised += more;
        Ok(())
    }

    /// Takes back what was promised and not used.
    pub(super) fn release(&mut self, room: usize) {
        self.promised -= room;
    }

    /// A promised device arrives.
    pub(super) fn arrive(&mut self, slot: &Slot<Record<D>, L>) {
        self.promised -= 1;
        self.list.push(slot);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.list.len() == 0 && self.promised == 0
    }
}

with_default_lock! {
    /// A guest, as its vCPU threads use it: lookups by guest address, without any lock but the device's own.
    ///
    /// Cheap to clone. It keeps the registry's memory, not its devices, and outlives the registry value safely:
    /// every lookup then finds nothing.
    ///
    /// ```
    /// use pcidevs::{Domain, DomainId, Member, Owner, Registry, Sbdf};
    /// let registry: Registry<u32> = Registry::new()?;
    /// let nic: Sbdf = "00:03.0".parse()?;
    /// registry.add(nic, 0x8086)?;
    /// let guest = registry.create_domain(DomainId::new(1))?;
    /// registry.move_devices(&[Member::at(nic, "00:00.0".parse()?)], Owner::Guest(guest.id()))?;
    /// assert_eq!(*guest.lock("00:00.0".parse()?)?, 0x8086);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct Domain<D; L> {
        state: Shared<DomainState<D, L>>,
        guest: Guest,
    }
}

impl<D, L: RawLock> Domain<D, L> {
    pub(super) fn new(state: Shared<DomainState<D, L>>, id: DomainId) -> Self {
        let guest = Guest { id, life: state.life };
        Self { state, guest }
    }

    /// The guest's name.
    pub fn id(&self) -> DomainId {
        self.guest.id
    }

    /// Locked access to the device that this guest sees at this address (R6): no count, one lock pair.
    ///
    /// The assignment covers the access: under the device lock the owner and the guest address are checked, so
    /// a device that was moved away, removed or reported gone is [`AccessError::NotFound`] and the guest reads
    /// ones. [`AccessError::WouldDeadlock`] if this thread is inside the device already.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "as a call it costs half as much again: 1.4 lock pairs, not 0.9"
    )]
    pub fn lock(&self, at: Sbdf) -> Result<Locked<'_, D, L>, AccessError> {
        let slot = self.state.directory.find(at).ok_or(AccessError::NotFound)?;
        let locked = slot.lock()?.ok_or(AccessError::NotFound)?;
        if !self.has(&locked, at) {
            return Err(AccessError::NotFound);
        }
        Ok(Locked::new(locked))
    }

    /// Whether this guest has the device, and sees it here.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `lock`")]
    pub(super) fn has(&self, device: &refcount::Locked<'_, Record<D>, L>, at: Sbdf) -> bool {
        device.binding.is_guest(self.guest, at) || weakened(Site::AccessChecksOwner)
    }

    /// The slot that a guest address points at.
    pub(super) fn find(&self, at: Sbdf) -> Option<&Slot<Record<D>, L>> {
        self.state.directory.find(at)
    }

    /// A way to the guest's devices for one of its vCPUs.
    pub(crate) fn visitor<const PLACES: usize>(&self) -> Visitor<D, L, PLACES> {
        Visitor::new(self.clone(), self.state.directory.memo())
    }

    /// A published register of the device that this guest sees at this address, read without a lock or a write: any
    /// number of threads at once, each as fast as one alone. See [`Locked::publish`].
    ///
    /// `None` if there is nothing to read this way at this moment: not published, on the move, or not this guest's.
    /// Ask [`lock`](Self::lock), which says which.
    ///
    /// ```
    /// use pcidevs::{DomainId, Member, Owner, Registry, Sbdf};
    /// let registry: Registry<()> = Registry::new()?;
    /// let (nic, seen): (Sbdf, Sbdf) = ("00:03.0".parse()?, "00:00.0".parse()?);
    /// registry.add(nic, ())?;
    /// registry.lock(nic)?.publish(&[0x1572_8086])?;
    /// let guest = registry.create_domain(DomainId::new(1))?;
    /// assert_eq!(guest.read_published(seen, 0), None);
    /// registry.move_devices(&[Member::at(nic, seen)], Owner::Guest(guest.id()))?;
    /// assert_eq!(guest.read_published(seen, 0), Some(0x1572_8086));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn read_published(&self, at: Sbdf, register: usize) -> Option<u32> {
        self.state.directory.find(at)?.read_published(Some(self.guest.audience(at)), register)
    }

    /// The guest's devices at this moment, as weak handles in address order.
    pub fn devices(&self) -> Result<Devices<D, L>, NoMemory> {
        Devices::of(&self.state)
    }

    /// The guest was reset and has seen nothing of its former devices: the slots of all that are gone are free again.
    /// Returns how many.
    pub fn acknowledge_reset(&self) -> Result<usize, AccessError> {
        let mut freed = 0;
        let mut next = Some(Sbdf::default());
        while let Some(at) = next.and_then(|from| self.state.directory.first_taken(from)) {
            freed += usize::from(self.acknowledge_gone(at)?);
            next = at.successor();
        }
        Ok(freed)
    }

    /// The guest has seen that the device at this address is gone: its slot is free again.
    ///
    /// Until then, or until the guest is reset, the address of a device reported gone stays taken and reads
    /// ones. `false` if there is a device the guest can use, or nothing at all.
    pub fn acknowledge_gone(&self, at: Sbdf) -> Result<bool, AccessError> {
        // A claimed device may be on its way here, with the address reserved and its binding not yet marked.
        let in_use = |device: refcount::Locked<'_, _, _>| {
            is_claimed(&device) || device.binding.concerns(self.guest, at)
        };
        loop {
            let freed = self.state.members.lock().freed;
            let Some(slot) = self.state.directory.find(at) else { return Ok(false) };
            if slot.lock()?.is_some_and(in_use) {
                return Ok(false);
            }
            // While the address points at this slot no move can take the address, so what was found holds;
            // unless somebody else has freed an address meanwhile, perhaps this one.
            let mut members = self.state.members.lock();
            if members.freed == freed || weakened(Site::AcknowledgeRechecks) {
                self.state.vacate(&mut members, at, slot);
                return Ok(true);
            }
        }
    }
}

impl<D, L: RawLock> Clone for Domain<D, L> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), guest: self.guest }
    }
}

impl<D, L: RawLock> fmt::Debug for Domain<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Domain").field(&self.guest.id).finish()
    }
}
