//! Decoding: which function and which register a guest's access is.

mod cf8;
mod ecam;

pub use cf8::{ADDRESS_PORT, AddressPort, DATA_PORT, ExtendedRegisters};
pub use ecam::{Ecam, EcamError, parts};
