//! The PCI device-lifecycle core for Rust hypervisors and VMMs.
//!
//! Whoever uses a device holds a *reference*. Exactly one party *owns* it. Moving it is all or nothing. Taking it
//! away is *exact*: `Ok` means nobody can reach that function any more; otherwise `Busy` says who still can.
//!
//! Begin with [`Lifecycle`](lifecycle::Lifecycle), which moves devices on your [`Platform`](platform::Platform), or
//! with [`Registry`], which is what is below it and moves them without one. A vCPU thread uses [`Domain::lock`], a
//! long-lived user a [`Hold`], a list or a dump [`Weak`] handles. A hypervisor without `std` brings its lock as a
//! [`RawLock`].
//!
//! The layers, each importing only from those above it in this list:
//!
//! | module | what |
//! |---|---|
//! | [`address`], `owner`, `transition`, `errno`, [`sync`], `memory` | addresses and names; locks, atomics and the places where they can be weakened; allocation that can fail |
//! | [`device`] | what configuration bytes say |
//! | [`platform`] | what an embedder brings; a simulated machine |
//! | `refcount` | the reference protocol: knows addresses, not PCI |
//! | `registry` | owners, lists, guests, add, remove, moves: safe code on the protocol |
//! | [`lifecycle`] | transitions: lists of steps on a platform, undone when one fails |
//! | [`vpci`] | the configuration space that an owner sees |
//! | `topology` (`std`) | reading machines |
//! | `host` (`host`, Linux) | the host manager: real devices between host drivers and guests |
//! | `xen` (`xen`, Linux) | giving devices to Xen's guests |
//! | `adapters` (`vm-device`, `cloud-hypervisor-shape`) | the shapes that other VMMs expect |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

#[cfg(any(feature = "vm-device", feature = "cloud-hypervisor-shape"))]
pub mod adapters;
pub mod address;
pub mod device;
mod errno;
#[cfg(all(feature = "host", target_os = "linux", not(any(loom, shuttle))))]
pub mod host;
pub mod lifecycle;
mod memory;
mod owner;
pub mod platform;
mod refcount;
mod registry;
pub mod sync;
#[cfg(feature = "std")]
pub mod topology;
mod transition;
pub mod vpci;
#[cfg(all(feature = "xen", target_os = "linux", not(any(loom, shuttle))))]
pub mod xen;

pub use address::Sbdf;
pub use errno::Errno;
pub use memory::NoMemory;
pub use owner::{DomainId, Owner};
pub use refcount::{Busy, Holder, OnGone, WouldDeadlock};
pub use registry::*;
#[cfg(any(feature = "std", loom, shuttle))]
pub use sync::DefaultLock;
pub use sync::RawLock;
pub use transition::Transition;

/// What the models reach besides the public API.
#[cfg(any(loom, shuttle))]
pub mod modelled {
    pub use crate::memory::Shared;
}

/// The README's examples are tests.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// So is the guide's.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../docs/vpci.md")]
struct VpciGuide;
