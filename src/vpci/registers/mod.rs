//! Registers: what one is, all of a function's, and how an access meets them and the gaps between them.

mod access;
mod behind;
mod register;
mod space;

pub use access::Outcomes;
pub use behind::Behind;
pub use register::{At, Invalid, Masks, Read, Register, RegisterError, Write};
pub(in crate::vpci) use register::{all_bits, bits_if};
pub use space::Space;
