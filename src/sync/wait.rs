//! Where those who wait for a removal register, and how the last put finds them.
//!
//! A put that leaves only the creation reference must wake the ticket. But the instant its subtraction is
//! visible the ticket may complete, and the memory of the slot may go: after its read-modify-write a put may
//! not touch the slot any more. So waiters do not live in slots. They live in a static table, hashed by the
//! slot's *address*, which is only a number to the waker. Slots that share a bucket, or a new slot at an old
//! address, cost a needless wake-up: a wake is a hint, and whoever is woken looks at the word again.
//!
//! Registering never allocates at the moment of waiting: a ticket takes its place in the bucket when it is
//! made, where running out of memory can still be reported.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::task::Waker;

use super::{Lock, Ordering, RawLock};
use crate::memory::NoMemory;

/// How many buckets a [`WaitTable`] has. In a model one: which bucket it is must not depend on where memory is.
pub const WAIT_BUCKETS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 64 };

/// One bucket: the tickets whose slots hash to it.
pub type WaitBucket<L> = Lock<Vec<Waiter>, L>;

/// The tickets that wait for the last use of a device, of all registries with one lock type.
///
/// An embedder declares one as a `static` for its lock type and returns it from
/// [`RawLock::waiters`]:
///
/// ```ignore
/// static WAITERS: WaitTable<Spin> =
///     WaitTable::new([const { WaitBucket::from_raw(Spin::UNLOCKED, Vec::new()) }; WAIT_BUCKETS]);
/// ```
pub struct WaitTable<L> {
    buckets: [WaitBucket<L>; WAIT_BUCKETS],
}

/// A ticket's place in a bucket.
#[derive(Debug)]
pub struct Waiter {
    slot: usize,
    number: Number,
    waker: Option<Waker>,
}

/// Tells one ticket's place from all others: a slot may have a pending ticket, one that is being refused, and
/// stale ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u64);

impl Number {
    fn next() -> Self {
        // Not a model's: it outlives the execution, and no interleaving is decided by it.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How many wakers [`WaitTable::wake`] collects under one hold of the bucket lock. A slot has one ticket, and
/// stale ones only where its device was reported gone and nobody has looked at them since.
const WAKES_AT_ONCE: usize = 4;

impl<L> WaitTable<L> {
    /// A table of empty buckets.
    pub const fn new(buckets: [WaitBucket<L>; WAIT_BUCKETS]) -> Self {
        Self { buckets }
    }
}

impl<L: RawLock> WaitTable<L> {
    fn bucket(&self, slot: usize) -> &WaitBucket<L> {
        // Slots are 64 bytes apart or more; Fibonacci hashing spreads what remains of the address.
        let hash = (slot as u64 >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.buckets[(hash >> 32) as usize % WAIT_BUCKETS]
    }

    /// Takes a place for a ticket of the slot at this address.
    pub(crate) fn join(&self, slot: usize) -> Result<Number, NoMemory> {
        let number = Number::next();
        let mut bucket = self.bucket(slot).lock();
        bucket.try_reserve(1)?;
        bucket.push(Waiter { slot, number, waker: None });
        Ok(number)
    }

    /// Leaves the waker that the next [`wake`](Self::wake) is to use.
    pub(crate) fn register(&self, slot: usize, number: Number, waker: &Waker) {
        // Cloned before and dropped after the lock is held: wakers are the embedder's code.
        let mut waker = Some(waker.clone());
        let mut bucket = self.bucket(slot).lock();
        if let Some(waiter) = bucket.iter_mut().find(|waiter| waiter.number == number) {
            core::mem::swap(&mut waiter.waker, &mut waker);
        }
        drop(bucket);
    }

    /// Gives the ticket's place back.
    pub(crate) fn leave(&self, slot: usize, number: Number) {
        let mut bucket = self.bucket(slot).lock();
        let place = bucket.iter().position(|waiter| waiter.number == number);
        let waiter = place.map(|place| bucket.swap_remove(place));
        drop(bucket);
        drop(waiter);
    }

    /// Wakes whoever waits for the slot at this address, which need not exist any more.
    pub(crate) fn wake(&self, slot: usize) {
        loop {
            let mut wakers = [const { None }; WAKES_AT_ONCE];
            let mut bucket = self.bucket(slot).lock();
            let waiting = bucket.iter_mut().filter(|waiter| waiter.slot == slot && waiter.waker.is_some());
            for (place, waiter) in wakers.iter_mut().zip(waiting) {
                *place = waiter.waker.take();
            }
            drop(bucket);
            let more = wakers[WAKES_AT_ONCE - 1].is_some();
            wakers.into_iter().flatten().for_each(Waker::wake);
            if !more {
                return;
            }
        }
    }
}

impl<L> fmt::Debug for WaitTable<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitTable").finish_non_exhaustive()
    }
}
