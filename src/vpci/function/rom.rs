//! The expansion ROM's register (PCIe 6.0 §7.5.1.2.4): where the ROM is, and whether it is decoded.

use super::bar::{Bar, ROM, halves};
use super::effect::{Effect, Effects};
use super::model::{Model, Viewer};
use crate::platform::Width;
use crate::vpci::registers::{At, Read, Register, Write, bits_if};

/// In a type 0 header, and in a type 1 header.
const ENDPOINT: u16 = 0x30;
const BRIDGE: u16 = 0x38;
const ROM_ENABLE: u32 = 1;

/// The hardware's register of an expansion ROM, of which a guest has a say only in whether it is enabled.
#[derive(Clone, Copy, Debug)]
pub(in crate::vpci) struct HardwareRom {
    pub(in crate::vpci) offset: u16,
    /// What it holds.
    pub(in crate::vpci) value: u32,
}

/// Where the register is.
pub(in crate::vpci) const fn rom_offset(is_bridge: bool) -> u16 {
    if is_bridge { BRIDGE } else { ENDPOINT }
}

/// The expansion ROM's register.
pub(in crate::vpci) fn rom_register(is_bridge: bool, rom: Option<Bar>) -> Register<Model, Effects> {
    let offset = rom_offset(is_bridge);
    match rom {
        Some(_) => Register::new(offset, Width::Dword, Read::Handler(read_rom), Write::Handler(write_rom)),
        None => Register::constant(offset, Width::Dword, 0),
    }
}

fn read_rom(model: &mut Model, _: At) -> u32 {
    let enabled = bits_if(model.bars.rom_enabled, ROM_ENABLE);
    model.bars.get(ROM).map_or(0, |rom| halves(rom.address)[0] | enabled)
}

fn write_rom(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    let was_decoding = model.is_decoding(ROM);
    let enabled = value & ROM_ENABLE != 0;
    let changed = model.bars.rom_enabled != enabled;
    model.bars.rom_enabled = enabled;
    let rom = model.bars.all[usize::from(ROM)].as_mut()?;
    if !was_decoding {
        rom.address = u64::from(value & !ROM_ENABLE) & !(rom.bar.size - 1);
        model.write_rom_enable();
    }
    Effects::default().and_if(changed && model.command.is_memory_wanted(), Effect::Decode).or_none()
}

impl Model {
    /// Brings the hardware's ROM register, if there is one, to whether the ROM is mapped.
    pub(in crate::vpci) fn write_rom_enable(&mut self) {
        let Some(rom) = self.bars.hardware_rom else { return };
        let base = match (self.viewer, self.bars.get(ROM)) {
            (Viewer::Host, Some(placed)) => halves(placed.address)[0],
            _ => rom.value & !ROM_ENABLE,
        };
        let value = base | bits_if(self.bars.mapped & 1 << ROM != 0, ROM_ENABLE);
        if value != rom.value {
            self.bars.hardware_rom = Some(HardwareRom { value, ..rom });
            self.write_hardware(rom.offset, Width::Dword, value);
        }
    }
}
