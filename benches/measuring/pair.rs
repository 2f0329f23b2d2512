//! A pair of lock and unlock: the floor that figures are compared with.

use pcidevs::{DefaultLock, RawLock};

use super::order::always;
use super::rounds::Candidate;

/// Something on cache lines of its own.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// A lock whose pair of lock and unlock is a floor.
pub(crate) trait Pair: Send + Sync {
    fn new() -> Self;
    /// Locks, reads under the lock, unlocks.
    fn with<R>(&self, step: impl FnOnce() -> R) -> R;
}

/// A lock of the crate's own trait.
pub(crate) struct Raw<L>(L);

/// The lock a registry has by default.
pub(crate) type ParkingLot = Raw<DefaultLock>;

impl<L: RawLock> Pair for Raw<L> {
    fn new() -> Self {
        Self(L::new())
    }

    #[inline]
    fn with<R>(&self, step: impl FnOnce() -> R) -> R {
        self.0.lock();
        let result = step();
        // SAFETY: taken above, on this thread.
        unsafe { self.0.unlock() };
        result
    }
}

/// The lock of the floor, and the visits to it.
pub(crate) struct Floor<P> {
    lock: Apart<P>,
    visits: [Vec<()>; 1],
}

/// The name of the floor in every group.
pub(crate) const LOCK_PAIR: &str = "lock pair";

impl<P: Pair> Floor<P> {
    pub(crate) fn new() -> Self {
        Self { lock: Apart(P::new()), visits: [always(&())] }
    }

    pub(crate) fn candidate(&self, name: &str) -> Candidate<'_> {
        Candidate::visiting(name, &self.visits, |()| self.lock.0.with(|| ()))
    }
}
