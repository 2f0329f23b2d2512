//! The scaffold of the models: a machine small enough for loom, and what its devices remember.
//!
//! The models themselves are in `tests/`, one file for one part of the contract, one test for one race, named
//! after its id (`l14_…`). They drive the public API, so what is explored is the shipped code: the word, the
//! slots, the lists and the moves. `mutants` weakens that code site by site and expects a model to notice.
//!
//! loom explores a few threads that do little (`cargo loom`); shuttle runs a stated number of schedules of what is too
//! long for that (`cargo shuttle`): whole lives, in `tests/lives.rs`, `tests/neighbours.rs` and
//! `tests/config_lives.rs`.
#![cfg(any(loom, shuttle))]

pub mod cards;
#[cfg(shuttle)]
pub mod deeds;
#[cfg(loom)]
mod exploration;
pub mod hardware;
pub mod machine;
#[cfg(shuttle)]
mod schedules;
mod settled;
#[cfg(shuttle)]
pub mod world;

#[cfg(loom)]
pub use exploration::{Unlocked, explore};
#[cfg(loom)]
pub use loom as checker;
#[cfg(shuttle)]
pub use schedules::schedule;
#[cfg(shuttle)]
pub use shuttle as checker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::{DomainId, Registry, Sbdf};

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
pub struct Destroyed {
    destroyed: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
}

impl Destroyed {
    /// None so far.
    pub fn none() -> Self {
        Self::default()
    }

    /// A device that reports to this counter.
    pub fn device(&self, register: u32) -> Device {
        self.made.fetch_add(1, Ordering::Relaxed);
        Device { destroyed: Arc::clone(&self.destroyed), register }
    }

    /// How many were destroyed.
    pub fn count(&self) -> usize {
        self.destroyed.load(Ordering::Relaxed)
    }

    /// How many were made.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
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
