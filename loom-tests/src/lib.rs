//! The scaffold of the models: a machine small enough for loom, and what its devices remember.
//!
//! The models themselves are in `tests/`, one file for one part of the contract, one test for one race, named
//! after its id (`l14_…`). They drive the public API, so what is explored is the shipped code: the word, the
//! slots, the lists and the moves. `mutants` weakens that code site by site and expects a model to notice.
#![cfg(loom)]

pub mod hardware;
pub mod machine;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use pcidevs::{DomainId, Registry, Sbdf};

/// Explores every interleaving of `model`, with at most `preemptions` of them forced where a bound is named.
///
/// `LOOM_MAX_PREEMPTIONS` lowers the bound, for a quick look.
pub fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match (builder.preemption_bound, preemptions) {
        (Some(asked), Some(named)) => Some(asked.min(named)),
        (asked, named) => asked.or(named),
    };
    builder.max_branches = 100_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// What a model's devices are made of: it counts its destructor's runs.
///
/// The counter is the standard library's: loom must not explore it, it only observes.
#[derive(Debug)]
pub struct Device {
    destroyed: Arc<AtomicUsize>,
    /// A register, so that accesses read and write something under the device lock.
    pub register: u32,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.register = u32::MAX;
        self.destroyed.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often the devices made with it were destroyed.
#[derive(Clone, Default)]
pub struct Destroyed(Arc<AtomicUsize>);

impl Destroyed {
    /// None so far.
    pub fn none() -> Self {
        Self::default()
    }

    /// A device that reports to this counter.
    pub fn device(&self, register: u32) -> Device {
        Device { destroyed: Arc::clone(&self.0), register }
    }

    /// How many were destroyed.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Memory of the embedder's that no lock of ours protects: only the order of references does. loom reports a
/// race if that order does not hold.
pub struct Unlocked(UnsafeCell<u32>);

// SAFETY: none, on purpose: loom checks every access.
unsafe impl Sync for Unlocked {}
// SAFETY: as above.
unsafe impl Send for Unlocked {}

impl Unlocked {
    /// Memory that holds this.
    pub fn new(value: u32) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Writes it.
    pub fn set(&self, value: u32) {
        self.0.with_mut(|place| unsafe { *place = value });
    }

    /// Reads it.
    pub fn get(&self) -> u32 {
        self.0.with(|place| unsafe { *place })
    }
}

/// The first device's address.
pub const ONE: Sbdf = Sbdf::from_u32(0);
/// The second device's address, on the same bus.
pub const TWO: Sbdf = Sbdf::from_u32(0x8);

/// The first guest.
pub const GUEST: DomainId = DomainId::new(1);

/// Another guest.
pub const OTHER: DomainId = DomainId::new(2);

/// A registry with one device at [`ONE`], whose register reads 1.
pub fn one_device(destroyed: &Destroyed) -> Registry<Device> {
    let registry = Registry::new().expect("memory");
    registry.add(ONE, destroyed.device(1)).expect("added");
    registry
}
