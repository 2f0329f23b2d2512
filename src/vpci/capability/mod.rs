//! Capabilities that are modelled: what each one's registers are and do. Those that are not are not shown to a guest.

pub(in crate::vpci) mod chain;
pub(in crate::vpci) mod express;
pub(in crate::vpci) mod features;
pub(in crate::vpci) mod hardware;
mod interrupts;
pub(in crate::vpci) mod msi;
pub(in crate::vpci) mod msix;
pub(in crate::vpci) mod power;
pub(in crate::vpci) mod rebar;
pub(in crate::vpci) mod sriov;
mod vector;
pub(in crate::vpci) mod vendor;

pub(in crate::vpci) use interrupts::Interrupts;
pub use interrupts::{Level, Message, Signals, VectorWork};
pub use msix::MsixPlace;
pub(in crate::vpci) use power::Power;
pub use power::PowerState;
pub(in crate::vpci) use rebar::Resizable;
pub(in crate::vpci) use sriov::Sriov;
pub use sriov::VirtualFunction;
