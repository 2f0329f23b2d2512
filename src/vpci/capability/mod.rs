//! Capabilities that are modelled: what each one's registers are and do. Those that are not are not shown to a guest.

pub(in crate::vpci) mod chain;
pub(in crate::vpci) mod express;
pub(in crate::vpci) mod features;
mod interrupts;
pub(in crate::vpci) mod msi;
pub(in crate::vpci) mod msix;
pub(in crate::vpci) mod power;
mod vector;
pub(in crate::vpci) mod vendor;

pub(in crate::vpci) use interrupts::Interrupts;
pub use interrupts::{Level, Message, Signals, VectorWork};
pub use msix::MsixPlace;
pub(in crate::vpci) use power::Power;
pub use power::PowerState;
