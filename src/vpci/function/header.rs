//! The first 64 bytes of a function (PCIe 6.0 §7.5.1), but for command, status, BARs and the capability pointer.

use super::effect::{Effect, Effects};
use super::model::Model;
use crate::device::SubsystemId;
use crate::platform::Width;
use crate::vpci::registers::{At, Masks, Read, Register, Write};

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Who built the board.
    pub subsystem: Option<SubsystemId>,
}

/// What the header says beyond the identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vpci) struct Rest {
    pub(in crate::vpci) is_multifunction: bool,
    pub(in crate::vpci) is_bridge: bool,
    /// 0 is none, 1 to 4 are INTA to INTD.
    pub(in crate::vpci) pin: u8,
}

const BUSES: u16 = 0x18;

/// The registers that both header types have.
pub(in crate::vpci) fn registers(
    identity: &Identity,
    rest: Rest,
) -> impl Iterator<Item = Register<Model, Effects>> {
    let header_type = u32::from(rest.is_bridge) | u32::from(rest.is_multifunction) << 7;
    let ids = u32::from(identity.vendor) | u32::from(identity.device) << 16;
    let class = u32::from(identity.revision) | identity.class << 8;
    let byte = |offset, value| Register::constant(offset, Width::Byte, value);
    let common = [
        Register::constant(0x00, Width::Dword, ids),
        Register::constant(0x08, Width::Dword, class),
        Register::value(0x0c, Width::Byte, 0),
        byte(0x0d, 0),
        byte(0x0e, header_type),
        byte(0x0f, 0),
        byte(0x35, 0),
        Register::constant(0x36, Width::Word, 0),
        Register::value(0x3c, Width::Byte, 0),
        byte(0x3d, rest.pin.into()),
    ];
    let (endpoint, bridge) = if rest.is_bridge {
        (None, Some(of_bridge()))
    } else {
        (Some(of_endpoint(identity.subsystem)), None)
    };
    common.into_iter().chain(endpoint.into_iter().flatten()).chain(bridge.into_iter().flatten())
}

/// The rest of a type 0 header.
fn of_endpoint(subsystem: Option<SubsystemId>) -> [Register<Model, Effects>; 4] {
    let subsystem = subsystem.map_or(0, |id| u32::from(id.vendor) | u32::from(id.device) << 16);
    let dword = |offset, value| Register::constant(offset, Width::Dword, value);
    [dword(0x28, 0), dword(0x2c, subsystem), dword(0x38, 0), Register::constant(0x3e, Width::Word, 0)]
}

/// The rest of a type 1 header: what software writes it reads back; only bus numbers do something.
fn of_bridge() -> [Register<Model, Effects>; 12] {
    let keeps = |offset, width, bits: u32, fixed| {
        let masks = Masks { ro: all(width) & !bits, ..Masks::default() };
        Register::value(offset, width, fixed).masked(masks)
    };
    let bus = |number: u16| {
        let register =
            Register::new(BUSES + number, Width::Byte, Read::Handler(read_bus), Write::Handler(write_bus));
        register.tagged(number)
    };
    [
        bus(0),
        bus(1),
        bus(2),
        Register::constant(0x1b, Width::Byte, 0),
        // I/O window, 16 bits: none until it is programmed, and then 4 KiB each.
        keeps(0x1c, Width::Word, 0xf0f0, 0),
        Register::value(0x1e, Width::Word, 0).masked(Masks { rw1c: 0xf900, ro: 0x06ff, ..Masks::default() }),
        keeps(0x20, Width::Dword, 0xfff0_fff0, 0),
        // Prefetchable memory: 64 bits.
        keeps(0x24, Width::Dword, 0xfff0_fff0, 0x0001_0001),
        Register::value(0x28, Width::Dword, 0),
        Register::value(0x2c, Width::Dword, 0),
        Register::constant(0x30, Width::Dword, 0),
        keeps(0x3e, Width::Word, 0x005f, 0),
    ]
}

fn read_bus(model: &mut Model, at: At) -> u32 {
    model.buses.get(usize::from(at.tag)).copied().unwrap_or_default().into()
}

fn write_bus(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let bus = model.buses.get_mut(usize::from(at.tag))?;
    let number = value.to_le_bytes()[0];
    let changed = core::mem::replace(bus, number) != number;
    Effects::default().and_if(changed, Effect::Buses).or_none()
}

const fn all(width: Width) -> u32 {
    crate::vpci::registers::all_bits(width)
}
