//! rust-vmm's `vm-device`: its `IoManager` in front of a guest's bus, its devices behind our model.
//!
//! | file | what |
//! |---|---|
//! | `front` | a bus as the device of an `IoManager`, for all of its ranges |
//! | `ranges` | which ranges these are |
//! | `behind` | a `MutDeviceMmio` as what is behind an endpoint |
//!
//! With `vm-device` a device has its ranges registered, so plugging one, or a guest moving a BAR, changes the manager
//! under all vCPUs. Here the *windows* are registered, once: the manager never changes again, and can be shared without
//! a lock.

mod behind;
mod front;
mod ranges;

pub use behind::{MmioBacking, Unlocked};
pub use front::BusDevice;
pub use ranges::Registered;
