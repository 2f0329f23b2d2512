//! The PCI device-lifecycle core for Rust hypervisors and VMMs.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod address;
pub mod device;
#[cfg(feature = "std")]
pub mod topology;

pub use address::Sbdf;
