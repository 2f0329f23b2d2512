//! The shapes that other VMMs expect: a guest's [`Bus`](crate::vpci::Bus) put where they have theirs, and their devices
//! behind our model.
//!
//! | module | feature | whose shape |
//! |---|---|---|
//! | [`vm_device`] | `vm-device` | rust-vmm's crate of that name |
//! | [`cloud_hypervisor`] | `cloud-hypervisor-shape` | Cloud Hypervisor's `PciDevice` and `BusDeviceSync`; its crates are not published, so the traits are named again |
//!
//! Both ways are the same for each: *in front*, an exit that their dispatch takes reaches our devices; *behind*, a
//! device written for them answers for the BARs of an [`Endpoint`](crate::vpci::Endpoint), whose header, capabilities
//! and interrupts are the model's from then on.
//!
//! # Invariants
//!
//! An adapter adds no lock that two vCPUs contend for. Any access of any size at any address is possible: one that is
//! not PCI's reads ones and writes nothing. A vCPU goes on when its write has taken effect: an adapter waits, or hands
//! out what is to be waited for.
#![forbid(unsafe_code)]

#[cfg(feature = "cloud-hypervisor-shape")]
pub mod cloud_hypervisor;
mod interrupts;
mod lanes;
#[cfg(feature = "vm-device")]
pub mod vm_device;

pub use interrupts::Interrupts;
