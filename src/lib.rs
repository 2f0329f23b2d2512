//! The PCI device-lifecycle core for Rust hypervisors and VMMs.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod address;
pub mod device;
mod memory;
mod refcount;
mod registry;
pub mod sync;
#[cfg(feature = "std")]
pub mod topology;

pub use address::Sbdf;
pub use memory::NoMemory;
pub use refcount::{Busy, DomainId, Holder, OnGone, Transition, WouldDeadlock};
pub use registry::*;
#[cfg(any(feature = "std", loom))]
pub use sync::DefaultLock;
pub use sync::RawLock;

/// What the loom models reach besides the public API.
#[cfg(loom)]
pub mod modelled {
    pub use crate::memory::Shared;
}
