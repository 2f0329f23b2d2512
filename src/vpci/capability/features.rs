//! Advanced Features: function-level reset for functions without the PCI Express capability (PCI AF ECN).

use crate::platform::Width;
use crate::vpci::function::{Effect, Effects, Model};
use crate::vpci::registers::{At, Read, Register, Write};

pub(in crate::vpci) const ID: u8 = 0x13;
/// In bytes.
pub(in crate::vpci) const LENGTH: u16 = 6;

/// The capability's own length, then: transactions pending and function-level reset are there.
const CAPABILITIES: u32 = 0x0306;
const INITIATE_RESET: u32 = 1;
const STATUS: u16 = 5;
const TRANSACTIONS_PENDING: u32 = 1;

/// The registers of a capability at this place, but for its header.
pub(in crate::vpci) fn registers(at: u16) -> [Register<Model, Effects>; 3] {
    [
        Register::constant(at + 2, Width::Word, CAPABILITIES),
        Register::new(at + 4, Width::Byte, Read::Handler(|_, _| 0), Write::Handler(write)),
        Register::new(at + STATUS, Width::Byte, Read::Handler(read_status), Write::Drop),
    ]
}

fn write(_: &mut Model, _: At, value: u32) -> Option<Effects> {
    Effects::default().and_if(value & INITIATE_RESET != 0, Effect::Reset).or_none()
}

fn read_status(model: &mut Model, at: At) -> u32 {
    model.read_hardware(at.offset, Width::Byte).unwrap_or(0) & TRANSACTIONS_PENDING
}
