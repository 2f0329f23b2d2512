//! The word: generation, state and count of one slot, in one 64-bit atomic.
//!
//! ```text
//!  63            32 31 30 29             0
//! +----------------+-----+----------------+
//! |   generation   |state|   references   |
//! +----------------+-----+----------------+
//! ```
//!
//! ```text
//!    reserve      open                close: exactly 1 reference
//!  CLOSED|0 -> CLOSED|1 -> LIVE|1+  ---------------------------->  CLOSED|1
//!     ^   (abandoned)     |  ^  |  <------------ reopen --------------|
//!     |      begin_removal|  |  |gone                                  | teardown,
//!     |                   v  |  |          close                       | destructor
//!     |            REMOVING|1+ -|--------------------------------------+
//!     |                   |     v                                      |
//!     |                   +-> GONE|n --- last put --> GONE|0 ----------+
//!     |                                                                |
//!     +----------------------------- vacate ---------------------------+
//! ```
//!
//! `CLOSED|1` and `GONE|0` belong to one thread, the one whose step led there: it builds the device up, or tears
//! it down and destroys it. The count includes the creation reference, so a live device counts at least one. A
//! closer that owns references itself (a set that is closed together) closes at its own count, and keeps it.
//!
//! A get is a compare-exchange from LIVE, never a blind addition. That is the one place where this protocol
//! departs from the plan it started from, and it buys three things: a get that loses leaves no trace at all
//! (R3), the step from 1 to 0 of a gone device happens once, so its put need not touch the slot to find out
//! whether it was the last, and nothing that is not LIVE can overflow. `docs/decisions` has the interleaving
//! that made the additive form unsound. Clone and put stay single additions: whoever does them holds a
//! reference, so the state cannot be CLOSED.
//!
//! Every write is a read-modify-write, so each continues the release sequence of the ones before.

use super::abort;
use crate::sync::{AtOnce, AtomicU64, Ordering, Site, fence, load_to_write_u64, ordering, weakened};

const COUNT_BITS: u32 = 30;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const STATE: u64 = 0b11 << COUNT_BITS;
const GENERATION_SHIFT: u32 = 32;

/// More references than this on one device abort: they are leaked, not used (2^29).
pub(crate) const MOST_REFERENCES: u32 = 1 << (COUNT_BITS - 1);

/// The last generation a slot can have; then it is retired, since the next would name a device a second time.
pub(crate) const LAST_GENERATION: u32 = if cfg!(loom) { 3 } else { u32::MAX };

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A device is here and may be used.
    Live,
    /// A device is here, its removal has been asked for: no new uses.
    Removing,
    /// The hardware is gone; who still holds a reference keeps the object, nothing else.
    Gone,
    /// Nothing is here, or (count 1) it is being torn down.
    Closed,
}

impl State {
    const fn bits(self) -> u64 {
        (match self {
            Self::Live => 0,
            Self::Removing => 1,
            Self::Gone => 2,
            Self::Closed => 3,
        }) << COUNT_BITS
    }
}

/// One observation of a [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    const fn new(generation: u32, state: State, references: u32) -> Self {
        Self((generation as u64) << GENERATION_SHIFT | state.bits() | references as u64)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// References, including the creation reference.
    pub(crate) const fn references(self) -> u32 {
        (self.0 & COUNT) as u32
    }

    pub(crate) const fn state(self) -> State {
        match (self.0 & STATE) >> COUNT_BITS {
            0 => State::Live,
            1 => State::Removing,
            2 => State::Gone,
            _ => State::Closed,
        }
    }

    /// Nothing is here and nobody is at work here.
    pub(crate) const fn is_vacant(self) -> bool {
        matches!(self.state(), State::Closed) && self.references() == 0
    }

    /// A device is here, in use or on its way out.
    pub(crate) const fn is_present(self) -> bool {
        matches!(self.state(), State::Live | State::Removing)
    }

    const fn in_state(self, state: State) -> Self {
        Self(self.0 & !STATE | state.bits())
    }

    const fn with_references(self, references: u32) -> Self {
        Self(self.0 & !COUNT | references as u64)
    }
}

/// What a put has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterPut {
    /// Nothing.
    Done,
    /// Wake the ticket: only the creation reference is left. The slot may not be touched any more.
    Wake,
    /// Destroy: this was the last reference of a device that is gone.
    Destroy,
}

/// The word of one slot.
#[derive(Debug)]
pub(crate) struct Word {
    bits: AtomicU64,
    /// Stands beside the state in models.
    gone: AtOnce,
}

impl Word {
    /// Vacant, before its first device.
    pub(crate) fn new() -> Self {
        Self { bits: AtomicU64::new(Seen::new(0, State::Closed, 0).0), gone: AtOnce::new() }
    }

    /// The word now, for a decision that a read-modify-write or a lock will confirm.
    #[inline]
    pub(crate) fn glance(&self) -> Seen {
        Seen(self.bits.load(Ordering::Relaxed))
    }

    /// Whether the device was reported gone by now.
    #[inline]
    pub(crate) fn is_gone_by_now(&self) -> bool {
        self.gone.look(|| self.glance().state() == State::Gone)
    }

    /// The same for somebody about to change it.
    #[inline]
    fn glance_to_write(&self) -> Seen {
        Seen(load_to_write_u64(&self.bits, Ordering::Relaxed))
    }

    /// The word, and with it everything the opener of this generation wrote.
    #[inline]
    pub(crate) fn look(&self, site: Site) -> Seen {
        // Acquire: pairs with the Release of `open` (locked access) or of `vacate` (the next opener).
        Seen(self.bits.load(ordering(site, Ordering::Acquire)))
    }

    /// Counts a use of a live device. `None` at once, without a write, for any other (R3).
    #[inline]
    pub(crate) fn get(&self) -> Option<Seen> {
        let mut seen = self.glance_to_write();
        while seen.state() == State::Live || weakened(Site::GetChecksState) {
            match self.count_one(seen, Site::GetAcquire) {
                Ok(()) => return Some(seen),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Counts a use if the device is still the one of this generation and live (R7).
    pub(crate) fn upgrade(&self, generation: u32) -> bool {
        let mut seen = self.glance_to_write();
        while seen.state() == State::Live
            && (seen.generation() == generation || weakened(Site::UpgradeChecksGeneration))
        {
            match self.count_one(seen, Site::UpgradeAcquire) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    #[inline]
    fn count_one(&self, seen: Seen, site: Site) -> Result<(), Seen> {
        if seen.references() >= MOST_REFERENCES {
            abort("more than 2^29 references to one device: they leak");
        }
        // Acquire: pairs with the Release of `open`, so that the device is seen as its creator made it.
        let (success, failure) = (ordering(site, Ordering::Acquire), Ordering::Relaxed);
        self.bits.compare_exchange_weak(seen.0, seen.0 + 1, success, failure).map(drop).map_err(Seen)
    }

    /// Counts one more use on behalf of somebody who holds one, or who keeps the creation reference from being
    /// put by holding the device lock. Cannot fail, whatever the state (R5).
    #[inline]
    pub(crate) fn get_more(&self) {
        // Relaxed: the caller already sees the device.
        let seen = Seen(self.bits.fetch_add(1, Ordering::Relaxed));
        if seen.references() >= MOST_REFERENCES || seen.references() == 0 {
            abort("a clone of no reference, or more than 2^29 references to one device");
        }
    }

    /// Takes a use back. After this call the slot may be touched only if it says [`AfterPut::Destroy`].
    #[inline]
    pub(crate) fn put(&self) -> AfterPut {
        // Release: pairs with the Acquire of `close` and of the last put below: all that was done under this
        // reference happens before the teardown.
        let seen = Seen(self.bits.fetch_sub(1, ordering(Site::PutRelease, Ordering::Release)));
        match (seen.state(), seen.references()) {
            (State::Live | State::Removing, 0 | 1) | (State::Gone, 0) | (State::Closed, _) => {
                abort("a put without a reference")
            }
            (State::Removing, 2) if !weakened(Site::PutWakes) => AfterPut::Wake,
            (State::Gone, 1) => {
                if !weakened(Site::LastPutAcquire) {
                    // Acquire: pairs with the Release of every other put.
                    fence(Ordering::Acquire);
                }
                AfterPut::Destroy
            }
            _ => AfterPut::Done,
        }
    }

    /// LIVE with only the creation reference, and the `held` ones that the closer owns, becomes closing;
    /// otherwise what stands in the way.
    pub(crate) fn close(&self, held: u32) -> Result<Seen, Seen> {
        self.close_if(held, |seen| seen.state() == State::Live)
    }

    /// The same for a device in removal, by its ticket.
    pub(crate) fn close_removing(&self, generation: u32) -> Result<Seen, Seen> {
        self.close_if(0, |seen| {
            seen.generation() == generation
                && (seen.state() == State::Removing || weakened(Site::TicketChecksState))
        })
    }

    fn close_if(&self, held: u32, state: impl Fn(Seen) -> bool) -> Result<Seen, Seen> {
        // Acquire: pairs with the Release of puts, so that the teardown comes after every use.
        self.update(ordering(Site::CloseAcquire, Ordering::Acquire), |seen| {
            let unused = seen.references() == 1 + held || weakened(Site::CloseChecksCount);
            (state(seen) && unused).then(|| seen.in_state(State::Closed).with_references(1 + held))
        })
    }

    /// LIVE becomes REMOVING: no new uses.
    pub(crate) fn begin_removal(&self, generation: u32) -> Result<Seen, Seen> {
        self.update(Ordering::Relaxed, |seen| {
            (seen.state() == State::Live && seen.generation() == generation)
                .then(|| seen.in_state(State::Removing))
        })
    }

    /// REMOVING becomes LIVE again.
    pub(crate) fn cancel_removal(&self, generation: u32) -> Result<Seen, Seen> {
        self.update(Ordering::Relaxed, |seen| {
            (seen.state() == State::Removing && seen.generation() == generation)
                .then(|| seen.in_state(State::Live))
        })
    }

    /// A device that is here becomes GONE, whoever uses it.
    pub(crate) fn gone(&self) -> Result<Seen, Seen> {
        let before =
            self.update(Ordering::Acquire, |seen| seen.is_present().then(|| seen.in_state(State::Gone)))?;
        self.gone.set(true);
        Ok(before)
    }

    /// A vacant slot becomes the caller's, who opens it or vacates it. Only under the segment writer lock.
    pub(crate) fn reserve(&self) {
        let before = self.glance_to_write();
        debug_assert!(before.is_vacant(), "reserved {before:?}");
        // Relaxed: nothing is published. The caller has acquired what was here before.
        self.bits.swap(before.with_references(1).0, Ordering::Relaxed);
    }

    /// A reserved slot becomes LIVE with the creation reference, one generation on. Only by who reserved it, with
    /// the device in place.
    pub(crate) fn open(&self) -> Seen {
        let before = self.glance_to_write();
        debug_assert_eq!((before.state(), before.references()), (State::Closed, 1), "opened {before:?}");
        self.gone.set(false);
        let step = u32::from(!weakened(Site::OpenAdvancesGeneration));
        let open = Seen::new(before.generation() + step, State::Live, 1);
        // Release: pairs with the Acquire of get, upgrade and locked access.
        self.bits.swap(open.0, ordering(Site::OpenRelease, Ordering::Release));
        open
    }

    /// The closer gives the device back: LIVE again, the same device. Only by who closed it.
    pub(crate) fn reopen(&self) {
        let closed = self.glance_to_write();
        debug_assert_eq!(closed.state(), State::Closed, "reopened {closed:?}");
        // Release: as in `open`.
        let live = closed.in_state(State::Live);
        self.bits.swap(live.0, ordering(Site::ReopenRelease, Ordering::Release));
    }

    /// The closer is done: `CLOSED|1` or `GONE|0` becomes vacant. The slot may be reused at once.
    pub(crate) fn vacate(&self) {
        let seen = self.glance_to_write();
        let vacant = seen.in_state(State::Closed).with_references(0);
        // Release: pairs with the Acquire with which the next opener looks for a vacant slot.
        self.bits.swap(vacant.0, ordering(Site::VacateRelease, Ordering::Release));
    }

    fn update(&self, success: Ordering, step: impl Fn(Seen) -> Option<Seen>) -> Result<Seen, Seen> {
        let mut seen = self.glance_to_write();
        loop {
            let Some(next) = step(seen) else { return Err(seen) };
            match self.bits.compare_exchange_weak(seen.0, next.0, success, Ordering::Relaxed) {
                Ok(_) => return Ok(seen),
                Err(now) => seen = Seen(now),
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_word_do_not_touch_each_other() {
        for state in [State::Live, State::Removing, State::Gone, State::Closed] {
            for generation in [0, 1, u32::MAX] {
                for references in [0, 1, MOST_REFERENCES] {
                    let seen = Seen::new(generation, state, references);
                    assert_eq!(
                        (seen.generation(), seen.state(), seen.references()),
                        (generation, state, references)
                    );
                }
            }
        }
    }

    #[test]
    fn r3_get_on_anything_but_live_writes_nothing() {
        let word = Word::new();
        assert_eq!(word.get(), None);
        assert!(word.glance().is_vacant());
        word.reserve();
        word.open();
        word.begin_removal(1).unwrap();
        let before = word.glance();
        assert_eq!(word.get(), None);
        assert_eq!(word.glance(), before);
    }

    #[test]
    fn r1_a_device_is_born_with_one_reference() {
        let word = Word::new();
        word.reserve();
        assert_eq!(word.open().references(), 1);
    }

    #[test]
    fn the_last_put_of_a_gone_device_is_told_to_destroy_and_no_other() {
        let word = Word::new();
        word.reserve();
        word.open();
        word.get().unwrap();
        word.gone().unwrap();
        assert_eq!(word.put(), AfterPut::Done);
        assert_eq!(word.put(), AfterPut::Destroy);
    }
}
