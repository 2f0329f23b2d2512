//! What has to be found from an interrupt: which function a requester ID stands for, and how often it faulted.
//!
//! One entry for every requester ID that was ever known. Entries stay, so a fault report takes no lock and no
//! reference: it counts here, and what has to be done about it waits for [`Lifecycle::run_deferred`].

use super::Lifecycle;
use super::error::TransitionError;
use super::known::Known;
use crate::Sbdf;
use crate::address::Segment;
use crate::memory::{Few, NoMemory};
use crate::platform::Platform;
use crate::refcount::SideTable;
use crate::sync::unexplored::AtomicU32;
use crate::sync::{AtomicBool, AtomicU64, Ordering, RawLock, unexplored};

/// Faults closer together than this count as many, in nanoseconds.
const SHORT: u64 = 10_000_000;
/// So many faults in a short time switch bus mastering off.
pub(super) const MOST_FAULTS: u32 = 10;

/// One requester ID.
pub(super) struct Requester {
    id: Sbdf,
    /// The function it stands for, itself or the real function of a phantom; `NOBODY` if no such device is known.
    function: AtomicU64,
    /// How many devices have it, those that are being added included.
    users: AtomicU32,
    /// Count in the upper 8 bits, the time of the last in the lower 56.
    faults: AtomicU64,
    /// How many events of this address there have been.
    events: unexplored::AtomicU64,
    /// Somebody who has it comes, leaves or is cleared up after.
    claimed: AtomicBool,
    /// In the queue of those that faulted too often.
    queued: AtomicBool,
    /// The next one in the queue, as `link` writes it.
    next: AtomicU64,
}

const COUNT_SHIFT: u32 = 56;
const TIME: u64 = (1 << COUNT_SHIFT) - 1;

/// Requester IDs that nobody else clears or comes with meanwhile. Dropping it releases them.
///
/// Whether an entry of the IOMMU is needed by others is asked before it is cleared; between the two nobody may come
/// who needs it, nor leave who was asked. Claimed by try, by those who come, those who leave, and whoever clears up
/// after the gone.
pub(super) struct RequesterClaims<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    ids: Few<Sbdf, 4>,
}

impl<'a, P: Platform> RequesterClaims<'a, P> {
    pub(super) fn new(lifecycle: &'a Lifecycle<P>) -> Self {
        Self { lifecycle, ids: Few::new() }
    }

    /// Claims those of one more device. Members of a set may share some.
    pub(super) fn add(&mut self, device: Sbdf, known: &Known<P::Lock>) -> Result<(), TransitionError> {
        self.ids.reserve(known.requesters.len())?;
        for id in &known.requesters {
            if self.lifecycle.requesters().claim(*id) {
                self.ids.push(*id);
            } else if !self.ids.contains(id) {
                return Err(TransitionError::GroupBusy(device));
            }
        }
        Ok(())
    }

    /// Claims one, of which there is an entry; `None` if somebody else has it.
    pub(super) fn of_one(lifecycle: &'a Lifecycle<P>, id: Sbdf) -> Option<Self> {
        lifecycle.requesters().claim(id).then(|| {
            let mut claims = Self::new(lifecycle);
            claims.ids.push(id);
            claims
        })
    }
}

impl<P: Platform> Drop for RequesterClaims<'_, P> {
    fn drop(&mut self) {
        for id in self.ids.iter() {
            self.lifecycle.requesters().release(*id);
        }
    }
}

/// No function.
const NOBODY: u64 = u64::MAX;

fn pack(function: Sbdf) -> u64 {
    u64::from(function.segment().number()) << 16 | u64::from(function.bdf())
}

fn unpack(function: u64) -> Sbdf {
    let [low, high, a, b, c, d, ..] = function.to_le_bytes();
    Sbdf::from_bdf(Segment::new(u32::from_le_bytes([a, b, c, d])), u16::from_le_bytes([low, high]))
}

impl Requester {
    pub(super) fn new(id: Sbdf) -> Self {
        Self {
            id,
            function: AtomicU64::new(NOBODY),
            users: AtomicU32::new(0),
            faults: AtomicU64::new(0),
            events: unexplored::AtomicU64::new(0),
            claimed: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            next: AtomicU64::new(0),
        }
    }

    /// Counts a fault: halved first if the last one is long ago, or the clock went back. Returns the count.
    fn count(&self, now: u64) -> u32 {
        let now = now & TIME;
        let mut before = self.faults.load(Ordering::Relaxed);
        loop {
            let (count, last) = (before >> COUNT_SHIFT, before & TIME);
            let recent = now.checked_sub(last).is_some_and(|since| since <= SHORT);
            let count = (if recent { count } else { count / 2 } + 1).min(0xff);
            let after = count << COUNT_SHIFT | now;
            match self.faults.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return u32::try_from(count).unwrap_or(u32::MAX),
                Err(other) => before = other,
            }
        }
    }
}

/// All requester IDs, and the queue of those that faulted too often.
pub(super) struct Requesters<L: RawLock> {
    table: SideTable<Requester, L>,
    /// The first in the queue; 0 for none.
    first: AtomicU64,
}

/// A queue's link to a requester; never 0.
fn link(id: Sbdf) -> u64 {
    pack(id) + 1
}

impl<L: RawLock> Requesters<L> {
    pub(super) fn new() -> Self {
        Self { table: SideTable::new(), first: AtomicU64::new(0) }
    }

    fn find(&self, id: Sbdf) -> Option<&Requester> {
        self.table.find(id)
    }

    fn find_or_make(&self, id: Sbdf) -> Result<&Requester, NoMemory> {
        self.table.find_or_make(id, || Requester::new(id))
    }

    /// The function that a requester ID stands for.
    fn function(&self, id: Sbdf) -> Option<Sbdf> {
        let function = self.find(id)?.function.load(Ordering::Relaxed);
        (function != NOBODY).then(|| unpack(function))
    }

    /// How many devices have a requester ID.
    fn users(&self, id: Sbdf) -> u32 {
        // What makes one of two devices that come at once see the other: each counts itself, and then looks, under
        // the other's lock, at whether that one is claimed; a claim is taken under that lock before this look.
        self.find(id).map_or(0, |requester| requester.users.load(Ordering::Relaxed))
    }

    /// Claims an ID; `false` if somebody else has claimed it.
    fn claim(&self, id: Sbdf) -> bool {
        // Acquire: pairs with the Release of `release`, so that what was counted and cleared before is seen.
        self.find(id).is_none_or(|requester| !requester.claimed.swap(true, Ordering::Acquire))
    }

    fn release(&self, id: Sbdf) {
        if let Some(requester) = self.find(id) {
            // Release: pairs with the Acquire of `claim`. Every write to the word is a read-modify-write.
            requester.claimed.swap(false, Ordering::Release);
        }
    }

    /// Queues a requester, once.
    fn push(&self, requester: &Requester) {
        if requester.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            requester.next.store(first, Ordering::Relaxed);
            // Release: pairs with the Acquire of `take_all`, which then sees `next`.
            match self.first.compare_exchange_weak(
                first,
                link(requester.id),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    /// Empties the queue.
    fn take_all(&self) -> impl Iterator<Item = &Requester> {
        // Acquire: pairs with the Release of `push`.
        let mut next = self.first.swap(0, Ordering::Acquire);
        core::iter::from_fn(move || {
            let requester = self.find(unpack(next.checked_sub(1)?))?;
            next = requester.next.load(Ordering::Relaxed);
            // From here on it may be queued again.
            requester.queued.swap(false, Ordering::Release);
            Some(requester)
        })
    }
}

impl<P: Platform> Lifecycle<P> {
    /// The function that a requester ID stands for: itself, or the real function of a phantom. `None` if no device
    /// is known there.
    pub fn real_function(&self, requester: Sbdf) -> Option<Sbdf> {
        self.requesters().function(requester)
    }

    /// Makes the entries of a new device's IDs, claims them, and then counts it among their users.
    pub(super) fn make_entries(
        &self,
        device: Sbdf,
        known: &Known<P::Lock>,
    ) -> Result<RequesterClaims<'_, P>, TransitionError> {
        known.requesters.iter().try_for_each(|id| self.requesters().find_or_make(*id).map(drop))?;
        let mut claims = RequesterClaims::new(self);
        claims.add(device, known)?;
        for requester in known.requesters.iter().filter_map(|id| self.requesters().find(*id)) {
            requester.users.fetch_add(1, Ordering::Relaxed);
        }
        Ok(claims)
    }

    /// The device is none of their users any more.
    pub(super) fn leave_entries(&self, known: &Known<P::Lock>) {
        for requester in known.requesters.iter().filter_map(|id| self.requesters().find(*id)) {
            requester.users.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many devices have a requester ID, those that are being added included.
    pub(super) fn users(&self, requester: Sbdf) -> usize {
        self.requesters().users(requester) as usize
    }

    /// From now on the device's own ID and its phantom functions stand for it.
    pub(super) fn remember(&self, device: Sbdf, known: &Known<P::Lock>) {
        self.stand_for(device, known, NOBODY, pack(device));
        if let Some(requester) = self.requesters().find(device) {
            // It is there itself, whatever had it for a phantom.
            requester.function.store(pack(device), Ordering::Relaxed);
        }
    }

    /// They stand for nobody.
    pub(super) fn forget(&self, device: Sbdf, known: &Known<P::Lock>) {
        self.stand_for(device, known, pack(device), NOBODY);
        self.forget_faults(device);
    }

    /// Whatever of the device's IDs stood for the one stands for the other.
    fn stand_for(&self, device: Sbdf, known: &Known<P::Lock>, before: u64, after: u64) {
        for id in core::iter::once(device).chain(known.phantoms(device)) {
            if let Some(requester) = self.requesters().find(id) {
                // It stands for another device: that one's it stays.
                let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
                let _stays = requester.function.compare_exchange(before, after, success, failure);
            }
        }
    }

    pub(super) fn forget_faults(&self, device: Sbdf) {
        if let Some(requester) = self.requesters().find(device) {
            // A read-modify-write, which comes before or after a count and not in the middle of one.
            requester.faults.swap(0, Ordering::Relaxed);
        }
    }

    /// The number of the next event of an address; 0 if no device was ever known there.
    pub(super) fn next_sequence(&self, device: Sbdf) -> u64 {
        self.requesters()
            .find(device)
            .map_or(0, |requester| requester.events.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The IOMMU reported a fault of this requester ID; the count of recent ones, `None` if no device is known.
    ///
    /// May be called from an interrupt: it takes no lock and allocates nothing. At ten in a short time the next
    /// [`run_deferred`](Self::run_deferred) switches the real function's bus mastering off. No event is sent from
    /// here; that one sends it.
    pub fn report_fault(&self, requester: Sbdf) -> Option<u32> {
        let function = self.real_function(requester)?;
        let entry = self.requesters().find(function)?;
        let count = entry.count(self.platform().now());
        if count >= MOST_FAULTS {
            self.requesters().push(entry);
        }
        Some(count)
    }

    /// Devices that faulted too often and are to be silenced; empties the queue.
    pub(super) fn noisy(&self) -> impl Iterator<Item = Sbdf> + '_ {
        self.requesters().take_all().map(|requester| requester.id)
    }

    /// How many recent faults of a device were counted.
    pub(super) fn faults(&self, device: Sbdf) -> u32 {
        let faults =
            self.requesters().find(device).map_or(0, |requester| requester.faults.load(Ordering::Relaxed));
        u32::try_from(faults >> COUNT_SHIFT).unwrap_or(u32::MAX)
    }
}
