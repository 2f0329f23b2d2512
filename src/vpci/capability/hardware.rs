//! Registers of which the model knows nothing: the device behind it answers.

use crate::platform::Width;
use crate::vpci::function::{Effects, Model};
use crate::vpci::registers::{At, Read, Register, Write};

/// A register that the device itself answers for.
pub(in crate::vpci) fn own(offset: u16, width: Width) -> Register<Model, Effects> {
    Register::new(offset, width, Read::Handler(read), Write::Handler(write)).tagged(width as u16)
}

/// A register that shows the device's, and drops writes.
pub(in crate::vpci) fn shown(offset: u16, width: Width) -> Register<Model, Effects> {
    Register::new(offset, width, Read::Handler(read), Write::Drop).tagged(width as u16)
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
