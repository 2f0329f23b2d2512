//! A [`Vcpu`] for each thread, where dispatch is by `&self`.
//!
//! A `Vcpu` remembers where the last access went, so it wants `&mut`; the traits of other VMMs share one object among
//! all vCPU threads. Tried and rejected: a new `Vcpu` for each access, which costs all threads a write to the one line
//! where the clones of a bus are counted. Here a thread has a lane of its own, on lines of its own; two that happen to
//! have the same do not wait for each other: one of them makes a new `Vcpu`.

use std::boxed::Box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};
use std::vec::Vec;

use crate::memory::NoMemory;
use crate::sync::RawLock;
use crate::vpci::{Bus, Modelled, Vcpu, Wiring};

/// More than most guests have vCPUs.
const LANES: usize = 64;

/// The ways of all threads to one bus.
pub(super) struct Lanes<D, W, L: RawLock> {
    bus: Bus<D, W, L>,
    lanes: Box<[Lane<D, W, L>]>,
}

/// Two lines, since processors fetch them in pairs.
#[repr(align(128))]
struct Lane<D, W, L: RawLock>(Mutex<Vcpu<D, W, L>>);

impl<D: Modelled, W: Wiring, L: RawLock> Lanes<D, W, L> {
    pub(super) fn new(bus: Bus<D, W, L>) -> Result<Self, NoMemory> {
        let mut lanes = Vec::new();
        lanes.try_reserve_exact(LANES).map_err(NoMemory::from)?;
        lanes.extend((0..LANES).map(|_| Lane(Mutex::new(bus.vcpu()))));
        Ok(Self { bus, lanes: lanes.into_boxed_slice() })
    }

    pub(super) fn bus(&self) -> &Bus<D, W, L> {
        &self.bus
    }

    /// Runs an access. It may block, and come back here: what an access asks for is carried out on this thread.
    pub(super) fn with<R>(&self, access: impl FnOnce(&mut Vcpu<D, W, L>) -> R) -> R {
        match self.lanes[own_lane() % LANES].0.try_lock() {
            Ok(mut vcpu) => access(&mut vcpu),
            // What it remembers is looked at again at every access, so half of an access does no harm.
            Err(TryLockError::Poisoned(vcpu)) => access(&mut vcpu.into_inner()),
            Err(TryLockError::WouldBlock) => access(&mut self.bus.vcpu()),
        }
    }
}

/// Threads are numbered as they come.
fn own_lane() -> usize {
    // Relaxed: only that the numbers differ.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is at its end has none any more; any will do.
    OWN.try_with(|own| *own).unwrap_or(0)
}
