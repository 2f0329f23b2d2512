//! The command and the status register (PCIe 6.0 §7.5.1.1.3 and .4).
//!
//! Decoding shows what *is*: a guest that turns it on reads the bit as one only once its BARs are mapped, and one that
//! turns it off reads zero only once they are not. What was written last is what is wanted; an effect closes the gap.
//! The two bytes are registers of their own, so that a write of one does not merge what is shown of the other.

use super::effect::{Effect, Effects};
use super::model::{Model, Viewer};
use crate::platform::Width;
use crate::sync::{Site, weakened};
use crate::vpci::registers::{At, Masks, Read, Register, Write, bits_if};

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;

const IO: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const PARITY: u32 = 1 << 6;
/// In the upper byte.
const SERR: u32 = 1 << 0;
const FAST_BACK_TO_BACK: u32 = 1 << 1;
const INTX_DISABLE: u32 = 1 << 2;

/// In the hardware's register.
const HARDWARE_DECODE: u32 = IO | MEMORY;
const HARDWARE_INTX_DISABLE: u32 = INTX_DISABLE << 8;
const PLATFORM: u16 = 0x0340;

const STATUS_INTERRUPT: u32 = 1 << 3;
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// Errors, cleared by writing ones.
const STATUS_ERRORS: u32 = 0xf900;
const STATUS_RSVDZ: u32 = 0x0006;

/// The command register, as it was written last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vpci) struct Command {
    pub(in crate::vpci) lower: u8,
    pub(in crate::vpci) upper: u8,
    /// Memory and I/O decoding that is in effect.
    pub(in crate::vpci) shown: u8,
    /// What of the hardware's register a guest has no say in: how errors are reported is the platform's.
    pub(in crate::vpci) platform: u16,
}

impl Command {
    pub(in crate::vpci) fn is_memory_wanted(self) -> bool {
        u32::from(self.lower) & MEMORY != 0
    }

    pub(in crate::vpci) fn is_io_wanted(self) -> bool {
        u32::from(self.lower) & IO != 0
    }

    pub(in crate::vpci) fn is_master(self) -> bool {
        u32::from(self.lower) & BUS_MASTER != 0
    }

    pub(in crate::vpci) fn is_intx_disabled(self) -> bool {
        u32::from(self.upper) & INTX_DISABLE != 0
    }

    /// Decoding is as it was wanted; what could not be mapped is off, also of what is wanted.
    pub(in crate::vpci) fn show(&mut self, memory: bool, io: bool) {
        let shown = bits_if(memory, MEMORY) | bits_if(io, IO);
        self.shown = low_byte(shown);
    }

    /// Takes over what the hardware's register holds. Firmware may have left decoding on: then that is wanted.
    pub(in crate::vpci) fn take_over(&mut self, hardware: u16, viewer: Viewer) {
        let [lower, upper] = hardware.to_le_bytes();
        match viewer {
            Viewer::Host => {
                (self.lower, self.upper) = (lower, upper & low_byte(SERR | FAST_BACK_TO_BACK | INTX_DISABLE));
                self.shown = lower & low_byte(HARDWARE_DECODE);
            }
            Viewer::Guest => self.platform = hardware & PLATFORM,
        }
    }

    /// As after a reset, but for what is still mapped, and for what is the platform's.
    pub(in crate::vpci) fn reset(&mut self) {
        *self = Self { shown: self.shown, platform: self.platform, ..Self::default() };
    }

    /// A map has failed: nobody wants what he did not get.
    pub(in crate::vpci) fn give_up_decoding(&mut self) {
        self.lower = low_byte(u32::from(self.lower) & !HARDWARE_DECODE) | self.shown;
    }
}

/// The registers.
pub(in crate::vpci) fn registers(has_capabilities: bool) -> [Register<Model, Effects>; 3] {
    let byte =
        |offset, read, write| Register::new(offset, Width::Byte, Read::Handler(read), Write::Handler(write));
    let masks =
        Masks { rw1c: STATUS_ERRORS, ro: 0x06b8 | STATUS_CAPABILITIES, rsvdz: STATUS_RSVDZ, rsvdp: 0 };
    let status = Register::new(STATUS, Width::Word, Read::Handler(read_status), Write::Handler(write_status));
    [
        byte(COMMAND, read_lower, write_lower),
        byte(COMMAND + 1, read_upper, write_upper),
        status.masked(masks).tagged(has_capabilities.into()),
    ]
}

fn read_lower(model: &mut Model, _: At) -> u32 {
    if weakened(Site::DecodingShowsWhatIs) {
        return model.command.lower.into();
    }
    u32::from(model.command.lower) & !HARDWARE_DECODE | u32::from(model.command.shown)
}

fn write_lower(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    let before = model.command;
    model.command.lower = low_byte(value & model.writable_lower());
    model.write_command();
    let changed = u32::from(before.lower ^ model.command.lower);
    // Nor is it as it is wanted while another vCPU's write is under way, or when something could not be unmapped.
    let differs = u32::from(before.shown ^ model.command.lower);
    Effects::default()
        .and_if((changed | differs) & HARDWARE_DECODE != 0, Effect::Decode)
        .and_if(changed & BUS_MASTER != 0, Effect::BusMaster)
        .or_none()
}

fn read_upper(model: &mut Model, _: At) -> u32 {
    model.command.upper.into()
}

fn write_upper(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    let was_disabled = model.command.is_intx_disabled();
    model.command.upper = low_byte(value & model.writable_upper());
    model.write_command();
    Effects::default().and_if(was_disabled != model.command.is_intx_disabled(), Effect::Intx).or_none()
}

fn read_status(model: &mut Model, at: At) -> u32 {
    let own =
        model.read_hardware(STATUS, Width::Word).unwrap_or(u32::from(model.status)) & !STATUS_CAPABILITIES;
    let is_pending = !model.has_hardware() && model.interrupts.intx.is_pending;
    own | bits_if(is_pending, STATUS_INTERRUPT) | bits_if(at.tag != 0, STATUS_CAPABILITIES)
}

fn write_status(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    let cleared = value & STATUS_ERRORS;
    model.write_hardware(STATUS, Width::Word, cleared);
    model.status &= !u16::try_from(cleared).unwrap_or_default();
    None
}

impl Model {
    /// Brings the hardware's command register, if there is hardware, to what is wanted and in effect.
    pub(in crate::vpci) fn write_command(&mut self) {
        if !self.has_hardware() {
            return;
        }
        let forced = if self.interrupts.uses_messages() { HARDWARE_INTX_DISABLE } else { 0 };
        let lower = u32::from(self.command.lower) & !HARDWARE_DECODE | u32::from(self.command.shown);
        let command = u32::from(self.command.upper) << 8 | lower | forced | u32::from(self.command.platform);
        self.write_hardware(COMMAND, Width::Word, command);
        self.write_rom_enable();
    }

    /// Puts back what the register was, as far as it could have been.
    pub(in crate::vpci) fn put_command(&mut self, lower: u8, upper: u8) {
        self.command.lower = lower & low_byte(self.writable_lower());
        self.command.upper = upper & low_byte(self.writable_upper());
    }

    /// The bits of the lower byte that stick. A virtual function has neither I/O nor the rest of conventional PCI; its
    /// memory enable is ours (PCIe 6.0 §9.3.4.1.3).
    fn writable_lower(&self) -> u32 {
        let possible = if self.is_vf { MEMORY | BUS_MASTER } else { 0x7f };
        match self.viewer {
            Viewer::Host => possible,
            Viewer::Guest if self.maps_io => possible & !PARITY,
            Viewer::Guest => possible & !(PARITY | IO),
        }
    }

    /// The bits of the upper byte that stick.
    fn writable_upper(&self) -> u32 {
        match self.viewer {
            _ if self.is_vf => 0,
            Viewer::Host => SERR | FAST_BACK_TO_BACK | INTX_DISABLE,
            Viewer::Guest => INTX_DISABLE,
        }
    }
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}
