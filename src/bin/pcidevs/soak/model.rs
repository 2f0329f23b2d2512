//! A modelled device, and what outlives it so that it can be told on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pcidevs::{Hold, Holder, Owner, Registry};

use super::ledger::Ticket;
use super::world::{Books, World};

/// The registry of the storm.
pub(crate) type Machine = Registry<Model>;

/// One life of one device: what its threads may still find of it is checked against this, from outside the
/// registry.
pub(crate) struct Life {
    /// Which function of the machine.
    pub(crate) place: usize,
    /// Its removal, or its loss, has been reported to the one who asked: nothing may reach it any more.
    over: AtomicBool,
    destroyed: AtomicU32,
    /// Handles that certainly exist.
    pub(crate) handles: AtomicU32,
    /// Its owner according to who moved it last.
    owner: AtomicU32,
}

impl Life {
    pub(crate) fn new(place: usize) -> Arc<Self> {
        Arc::new(Self {
            place,
            over: AtomicBool::new(false),
            destroyed: AtomicU32::new(0),
            handles: AtomicU32::new(0),
            owner: AtomicU32::new(code(Owner::Host)),
        })
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn times_destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::SeqCst)
    }

    pub(crate) fn set_owner(&self, owner: Owner) {
        self.owner.store(code(owner), Ordering::SeqCst);
    }

    pub(crate) fn is_owner(&self, owner: Owner) -> bool {
        self.owner.load(Ordering::SeqCst) == code(owner)
    }
}

/// An owner as a number; 0 is nobody.
pub(crate) fn code(owner: Owner) -> u32 {
    match owner {
        Owner::Host => 1,
        Owner::Quarantine => 2,
        Owner::Hidden => 3,
        Owner::Guest(id) => id.number() + 4,
        _ => 0,
    }
}

/// What the registry keeps per device.
pub(crate) struct Model {
    pub(crate) life: Arc<Life>,
    /// Its configuration space.
    pub(crate) config: Vec<u8>,
    /// Its uses of its PF and of the bridge it is behind.
    links: Vec<Link>,
}

impl Model {
    pub(crate) fn new(life: Arc<Life>, config: Vec<u8>, links: Vec<Link>) -> Self {
        Self { life, config, links }
    }

    /// The doubleword at this offset, all ones where there is none.
    pub(crate) fn read(&self, offset: usize) -> u32 {
        let bytes = self.config.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_le_bytes)
    }

    /// Writes a doubleword; nothing where there is none.
    pub(crate) fn write(&mut self, offset: usize, value: u32) {
        if let Some(bytes) = self.config.get_mut(offset..offset + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.life.destroyed.fetch_add(1, Ordering::SeqCst);
        self.config.fill(0xff);
        self.links.clear();
    }
}

/// A named hold that is written down in the ledger.
pub(crate) struct Link {
    hold: Option<Hold<Model>>,
    books: Arc<Books>,
    place: usize,
    ticket: Ticket,
}

impl Link {
    /// Holds the device at `place`, unless it is not there or on its way out.
    pub(crate) fn new(world: &World, place: usize, holder: Holder) -> Option<Self> {
        let books = world.books();
        let ticket = books.ledger(place).ask(&books.clock, holder);
        let hold = world.machine().hold(world.address(place), holder).ok().flatten();
        if hold.is_some() {
            books.ledger(place).have(&books.clock, ticket);
        } else {
            books.ledger(place).rid(&books.clock, ticket);
        }
        hold.map(|hold| Self { hold: Some(hold), books, place, ticket })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let (ledger, clock) = (self.books.ledger(self.place), &self.books.clock);
        ledger.let_go(clock, self.ticket);
        drop(self.hold.take());
        ledger.rid(clock, self.ticket);
    }
}
