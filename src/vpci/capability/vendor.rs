//! Vendor-specific capabilities: bytes whose meaning only the device and its driver know (PCIe 6.0 §7.9.4).

use crate::platform::Width;
use crate::vpci::function::{Effects, Model};
use crate::vpci::registers::{At, Read, Register, Write};

pub(in crate::vpci) const ID: u8 = 0x09;

/// The registers of a capability of `length` bytes at this place, but for its header: its length, and what is the
/// device's own, byte by byte where it is not a whole dword.
pub(in crate::vpci) fn registers(at: u16, length: u8) -> impl Iterator<Item = Register<Model, Effects>> {
    let end = at + u16::from(length);
    let first = [Register::constant(at + 2, Width::Byte, length.into()), own(at + 3, Width::Byte)];
    let dwords = (at + 4..end & !3).step_by(4).map(move |offset| own(offset, Width::Dword));
    let bytes = ((end & !3).max(at + 4)..end).map(move |offset| own(offset, Width::Byte));
    first.into_iter().chain(dwords).chain(bytes)
}

/// A register that the device itself answers for.
pub(in crate::vpci) fn own(offset: u16, width: Width) -> Register<Model, Effects> {
    Register::new(offset, width, Read::Handler(read), Write::Handler(write)).tagged(width as u16)
}

fn read(model: &mut Model, at: At) -> u32 {
    model.backing.config_read(at.offset, width(at))
}

fn write(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    if !model.is_read_only {
        model.backing.config_write(at.offset, width(at), value);
    }
    None
}

fn width(at: At) -> Width {
    match at.tag {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}
