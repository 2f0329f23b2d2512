//! The ledger: who really held what, and when, on a clock that only counts.
//!
//! Whoever will hold a device writes down when it asked, when it certainly had it, when it began to let go and when
//! it was rid of it. A removal's answer, between its own two readings of the clock, is then checked both ways: a name
//! in `Busy` must have been asked for and not yet given back at some instant of the call, and whoever certainly had
//! the device during the whole call must have been named, and must have kept it from being removed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcidevs::Holder;

/// An instant of the counting clock.
pub(crate) type Tick = u64;

const NEVER: Tick = Tick::MAX;

/// One hold, from the asking to the last trace.
struct Entry {
    holder: Holder,
    /// When it was asked for, which names it.
    asked: Tick,
    had: Tick,
    letting_go: Tick,
    rid: Tick,
}

/// The clock, and one ledger per function.
pub(crate) struct Books {
    now: AtomicU64,
    /// The beginning of the oldest call that is still to be checked.
    watermark: AtomicU64,
    ledgers: Vec<Mutex<Vec<Entry>>>,
}

impl Books {
    pub(crate) fn new(functions: usize) -> Arc<Self> {
        let ledgers = (0..functions).map(|_| Mutex::default()).collect();
        Arc::new(Self { now: AtomicU64::new(0), watermark: AtomicU64::new(0), ledgers })
    }

    pub(crate) fn tick(&self) -> Tick {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// Begins a call that will be checked; entries that ended before it may be forgotten. One thread makes such calls.
    pub(crate) fn begin_checked_call(&self) -> Tick {
        let now = self.tick();
        self.watermark.store(now, Ordering::SeqCst);
        now
    }

    fn entries(&self, place: usize) -> MutexGuard<'_, Vec<Entry>> {
        self.ledgers[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is about to ask for a hold.
    pub(crate) fn note(self: &Arc<Self>, place: usize, holder: Holder) -> Note {
        let asked = self.tick();
        let mut entries = self.entries(place);
        let watermark = self.watermark.load(Ordering::SeqCst);
        entries.retain(|entry| entry.rid >= watermark);
        entries.push(Entry { holder, asked, had: NEVER, letting_go: NEVER, rid: NEVER });
        drop(entries);
        Note { books: Arc::clone(self), place, asked }
    }

    /// The device was lost: who holds it holds what is gone, not what comes next.
    pub(crate) fn lose(&self, place: usize) {
        for entry in self.entries(place).iter_mut() {
            entry.letting_go = entry.letting_go.min(self.tick());
        }
    }

    /// Whether the holder may have had a hold at some instant between these two.
    pub(crate) fn possible(&self, place: usize, holder: Holder, from: Tick, to: Tick) -> bool {
        let may = |entry: &Entry| entry.holder == holder && entry.asked < to && entry.rid > from;
        self.entries(place).iter().any(may)
    }

    /// The holders that certainly had one from the one instant to the other.
    pub(crate) fn certain(&self, place: usize, from: Tick, to: Tick) -> Vec<Holder> {
        let entries = self.entries(place);
        let certain = entries.iter().filter(|entry| entry.had < from && entry.letting_go > to);
        certain.map(|entry| entry.holder).collect()
    }
}

/// An entry that is still changing. Dropping it writes down that the holder is rid of the hold, or never got it.
pub(crate) struct Note {
    books: Arc<Books>,
    place: usize,
    asked: Tick,
}

impl Note {
    fn change(&self, change: impl FnOnce(&mut Entry, Tick)) {
        let mut entries = self.books.entries(self.place);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.asked == self.asked) {
            change(entry, self.books.tick());
        }
    }

    /// It has the hold, perhaps again.
    pub(crate) fn have(&self) {
        self.change(|entry, now| (entry.had, entry.letting_go) = (now, NEVER));
    }

    /// It begins to let go.
    pub(crate) fn let_go(&self) {
        self.change(|entry, now| entry.letting_go = entry.letting_go.min(now));
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.change(|entry, now| entry.rid = now);
    }
}
