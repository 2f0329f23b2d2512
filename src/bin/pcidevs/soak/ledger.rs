//! The ledger: who really held what, and when, on a clock that only counts.
//!
//! A holder writes down when it asked for a hold, when it had it, when it began to let go and when it was rid
//! of it. A removal's answer, between its own two readings of the clock, is then checked both ways: a name in
//! `Busy` must have been asked for and not yet given back at some instant of the call, and whoever certainly
//! had the device during the whole call must have been named, and must have kept it from being removed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcidevs::Holder;

/// An instant of the counting clock.
pub(crate) type Tick = u64;

const NEVER: Tick = Tick::MAX;

/// One hold, from the asking to the last trace.
struct Entry {
    holder: Holder,
    number: u64,
    asked: Tick,
    had: Tick,
    letting_go: Tick,
    rid: Tick,
}

/// The clock of all ledgers, and the beginning of the oldest call that is still to be checked.
#[derive(Default)]
pub(crate) struct Clock {
    now: AtomicU64,
    watermark: AtomicU64,
}

impl Clock {
    pub(crate) fn tick(&self) -> Tick {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// Begins a call that will be checked; entries that ended before it may be forgotten.
    pub(crate) fn begin_checked_call(&self) -> Tick {
        let now = self.tick();
        self.watermark.store(now, Ordering::SeqCst);
        now
    }
}

/// The holds of one address.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Vec<Entry>>);

/// Names an entry for its later changes.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is about to ask for a hold.
    pub(crate) fn ask(&self, clock: &Clock, holder: Holder) -> Ticket {
        let asked = clock.tick();
        let mut entries = self.entries();
        let watermark = clock.watermark.load(Ordering::SeqCst);
        entries.retain(|entry| entry.rid >= watermark);
        entries.push(Entry { holder, number: asked, asked, had: NEVER, letting_go: NEVER, rid: NEVER });
        Ticket(asked)
    }

    fn change(&self, ticket: Ticket, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.number == ticket.0) {
            change(entry);
        }
    }

    /// It has the hold.
    pub(crate) fn have(&self, clock: &Clock, ticket: Ticket) {
        self.change(ticket, |entry| entry.had = clock.tick());
    }

    /// It begins to let go.
    pub(crate) fn let_go(&self, clock: &Clock, ticket: Ticket) {
        self.change(ticket, |entry| entry.letting_go = clock.tick());
    }

    /// It is rid of the hold, or never got it.
    pub(crate) fn rid(&self, clock: &Clock, ticket: Ticket) {
        self.change(ticket, |entry| entry.rid = clock.tick());
    }

    /// The device was lost: who holds it holds what is gone, not what comes next.
    pub(crate) fn lose(&self, clock: &Clock) {
        for entry in self.entries().iter_mut() {
            entry.letting_go = entry.letting_go.min(clock.tick());
        }
    }

    /// Ends all entries of a holder.
    pub(crate) fn rid_of(&self, clock: &Clock, holder: Holder) {
        for entry in self.entries().iter_mut().filter(|entry| entry.holder == holder && entry.rid == NEVER) {
            entry.rid = clock.tick();
        }
    }

    /// Whether the holder may have had a hold at some instant between these two.
    pub(crate) fn possible(&self, holder: Holder, from: Tick, to: Tick) -> bool {
        self.entries().iter().any(|entry| entry.holder == holder && entry.asked < to && entry.rid > from)
    }

    /// The holders that certainly had one from the one instant to the other.
    pub(crate) fn certain(&self, from: Tick, to: Tick) -> Vec<Holder> {
        let entries = self.entries();
        let certain = entries.iter().filter(|entry| entry.had < from && entry.letting_go > to);
        certain.map(|entry| entry.holder).collect()
    }
}
