//! The configuration space that a device's owner sees: a model of registers in front of the hardware, or instead of it.
//!
//! A model is data behind the device's lock. An access takes that lock and nothing wider, and costs the same however
//! many registers there are:
//!
//! - [`register`](Register): what one register is: where, how wide, which bits a write may change, and what answers.
//! - [`Space`]: all registers of one function, and how an access of 1, 2 or 4 bytes meets them and the gaps between.
//! - [`Behind`]: what gaps are: ones for a guest, the hardware for the host.
//! - [`Ecam`], [`AddressPort`]: which function and which register a guest's memory or port access is.
//! - [`BarMap`]: which BAR answers at an address of a guest, and what is to be mapped there.
//!
//! Handlers do not call back into the registry, and do not wait: what has to happen outside the lock is *returned* by
//! the write that asks for it.
#![forbid(unsafe_code)]

mod access;
mod bar_map;
mod behind;
mod cf8;
mod ecam;
mod register;
mod space;

pub use access::Outcomes;
pub use bar_map::{
    AddressRange, BarId, BarMap, BarMapError, BarSpace, Bars, Change, Piece, Reason, Refusal, Region,
};
pub use behind::{Behind, Ones};
pub use cf8::{ADDRESS_PORT, AddressPort, DATA_PORT, ExtendedRegisters};
pub use ecam::{Ecam, EcamError, parts};
pub use register::{At, Invalid, Masks, Read, Register, RegisterError, Write};
pub use space::Space;
