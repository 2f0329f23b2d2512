//! The configuration space that a device's owner sees: a model of registers in front of the hardware, or instead of it.
//!
//! A model is data behind the device's lock. An access takes that lock and nothing wider, and costs the same however
//! many registers there are:
//!
//! - [`registers`](Register): what one register is: where, how wide, which bits a write may change, and what answers;
//!   all registers of one function ([`Space`]), and what is between them ([`Behind`]).
//! - [`Ecam`], [`AddressPort`]: which function and which register a guest's memory or port access is.
//!
//! Handlers do not call back into the registry, and do not wait: what has to happen outside the lock is *returned* by
//! the write that asks for it.
#![forbid(unsafe_code)]

mod backing;
mod bar_map;
mod bus;
mod capability;
mod decode;
mod endpoint;
mod function;
mod registers;

pub use backing::Backing;
pub use bar_map::{
    AddressRange, BarId, BarMap, BarMapError, BarSpace, Bars, Change, Piece, Reason, Refusal, Region,
};
pub use bus::{Bus, Layout, Modelled, Pending, PortError, RestoreFailed, Target, Vcpu, Wiring, Written};
pub use capability::{Level, Message, MsixPlace, PowerState, Signals, VectorWork};
pub use decode::{ADDRESS_PORT, AddressPort, DATA_PORT, Ecam, EcamError, ExtendedRegisters, parts};
pub use endpoint::{Endpoint, EndpointError, MsixFault};
pub use function::{
    Asked, Bar, BarFault, BarKind, Effect, Effects, Function, Identity, ROM, RestoreError, Viewer,
};
pub use registers::{At, Behind, Invalid, Masks, Outcomes, Read, Register, RegisterError, Space, Write};
