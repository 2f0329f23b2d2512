//! Cloud Hypervisor's shape: its config ports, ECAM and buses in front of a guest's bus, its `PciDevice` behind our model.
//!
//! | file | what |
//! |---|---|
//! | `shape` | the traits, named again: its crates are not published |
//! | `front` | a guest's bus as `BusDeviceSync`, for ports and for memory |
//! | `seat` | one function as a `PciDevice`, for who keeps its own dispatch of configuration accesses |
//! | `release` | a write that is pending as the barrier that a vCPU thread waits at |
//! | `behind` | a `PciDevice` as what is behind an endpoint |
//! | `barriers` | the barriers that such a device hands out, waited at outside the device's lock |
//!
//! There a write returns `Option<Arc<Barrier>>`: two threads meet at it, the vCPU that wrote, once it has left all locks
//! of the dispatch, and whoever does what the write asked for. Here that is an effect, and a vCPU waits for its effects.
//! So each is turned into the other.

mod barriers;
mod behind;
mod front;
mod release;
mod seat;
mod shape;

pub use barriers::Barriers;
pub use behind::PciDeviceBacking;
pub use front::{GuestBus, Memory, Ports};
pub use seat::Seat;
pub use shape::{BarReprogrammingParams, BusDevice, BusDeviceSync, PciBarRegionType, PciDevice};
