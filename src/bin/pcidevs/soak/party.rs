//! Parties: who a device, a DMA or an interrupt belongs to, in one life.
//!
//! Guests die, and the next one gets the same number. What the old one set up must not reach the new one, so the
//! storm tells them apart where the IOMMU's tables cannot.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pcidevs::{DomainId, Owner};

/// An owner in one life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party(u32);

impl Party {
    pub(crate) const NOBODY: Self = Self(0);
    pub(crate) const HOST: Self = Self(1);
    const FIRST_GUEST: u32 = 2;
}

/// A party that threads may look at.
#[derive(Default)]
pub(crate) struct AtomicParty(AtomicU32);

impl AtomicParty {
    pub(crate) fn get(&self) -> Party {
        Party(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn set(&self, party: Party) {
        self.0.store(party.0, Ordering::SeqCst);
    }
}

/// The guests by number, from 1.
pub(crate) struct Guests {
    guests: Vec<Guest>,
    next: AtomicU32,
}

struct Guest {
    party: AtomicParty,
    /// It is being released.
    dying: AtomicBool,
}

impl Guests {
    pub(crate) fn new(count: u32) -> Self {
        let guests = Self { guests: Vec::new(), next: AtomicU32::new(Party::FIRST_GUEST) };
        let new = |_| Guest {
            party: AtomicParty(guests.next.fetch_add(1, Ordering::SeqCst).into()),
            dying: AtomicBool::new(false),
        };
        Self { guests: (0..count).map(new).collect(), ..guests }
    }

    /// All numbers.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DomainId> + use<> {
        (1..=u32::try_from(self.guests.len()).unwrap_or(u32::MAX)).map(DomainId::new)
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.guests.len()).unwrap_or(u32::MAX)
    }

    fn guest(&self, id: DomainId) -> &Guest {
        &self.guests[id.number() as usize - 1]
    }

    /// Who this owner is now; nobody, where nobody's memory is reached.
    pub(crate) fn party(&self, owner: Owner) -> Party {
        match owner {
            Owner::Host => Party::HOST,
            Owner::Guest(id) => self.guest(id).party.get(),
            _ => Party::NOBODY,
        }
    }

    pub(crate) fn is_dying(&self, id: DomainId) -> bool {
        self.guest(id).dying.load(Ordering::SeqCst)
    }

    /// From now on its devices may leave it one by one.
    pub(crate) fn condemn(&self, id: DomainId) {
        self.guest(id).dying.store(true, Ordering::SeqCst);
    }

    /// The number is somebody else's now.
    pub(crate) fn begin_life(&self, id: DomainId) {
        self.guest(id).party.set(Party(self.next.fetch_add(1, Ordering::SeqCst)));
        self.guest(id).dying.store(false, Ordering::SeqCst);
    }
}
