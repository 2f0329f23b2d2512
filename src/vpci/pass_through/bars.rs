//! Which BARs a function has, how large they are, and where.

use super::{Build, COMMAND, DECODE, PassThrough, PassThroughError};
use crate::platform::Width;
use crate::vpci::function::{
    ALL_BARS, Bar, BarFault, BarKind, HardwareRom, Placed, ROM, Viewer, bar_registers, join, rom_offset,
    rom_register, size_bars, size_rom, unused_bar,
};

const FIRST: u16 = 0x10;
/// Kinds of BARs, below their addresses.
const IS_IO: u32 = 1;
const KIND: u32 = 6;
const IS_64: u32 = 4;

type AllBars = [Option<Bar>; ALL_BARS];

impl PassThrough {
    /// The BARs: given, the physical function's, or found out.
    pub(super) fn find_bars(
        &self,
        build: &mut Build<'_>,
        is_bridge: bool,
        command: u16,
    ) -> Result<AllBars, PassThroughError> {
        let slots = slots(is_bridge);
        if let Some(function) = self.virtual_function {
            let [b0, b1, b2, b3, b4, b5] = function.bars.map(|placed| placed.map(|(bar, _)| bar));
            let bars = [b0, b1, b2, b3, b4, b5, None];
            let io = bars.iter().position(|bar| bar.is_some_and(Bar::is_io));
            return match io.map(u8::try_from) {
                Some(Ok(bar)) => Err(PassThroughError::Bar { bar, fault: BarFault::VirtualIo }),
                _ => check(bars, slots),
            };
        }
        check_hardware(build, slots)?;
        match self.bars {
            Some(bars) => check(bars, slots),
            None => Ok(self.size(build, is_bridge, command)),
        }
    }

    /// Finds sizes out, with decoding off, and gives back what was there.
    fn size(&self, build: &mut Build<'_>, is_bridge: bool, command: u16) -> AllBars {
        let backing = &mut *build.model.backing;
        let command = u32::from(command);
        let decodes = command & DECODE != 0 && !self.is_read_only;
        if decodes {
            backing.config_write(COMMAND, Width::Word, command & !DECODE);
        }
        let mut bars = size_bars(backing, FIRST, slots(is_bridge));
        bars[usize::from(ROM)] = size_rom(backing, rom_offset(is_bridge));
        if decodes {
            backing.config_write(COMMAND, Width::Word, command);
        }
        bars.map(|bar| bar.map(|bar| if self.is_trapped { bar.trapped() } else { bar }))
    }

    /// Adds the registers of these BARs.
    pub(super) fn place_bars(
        &self,
        build: &mut Build<'_>,
        is_bridge: bool,
        bars: AllBars,
    ) -> Result<(), PassThroughError> {
        let is_guest = self.viewer == Viewer::Guest;
        // A BAR that can never be decoded is none.
        let bars = bars.map(|bar| bar.filter(|bar| self.maps_io || !is_guest || !bar.is_io()));
        let is_virtual = self.virtual_function.is_some();
        let slots = slots(is_bridge);
        let mut slot = 0;
        while slot < slots {
            match bars[usize::from(slot)] {
                // Its registers are 0 in hardware, and are the hardware's.
                Some(bar) if is_virtual && !is_guest => {
                    slot += if bar.kind() == BarKind::Memory64 { 2 } else { 1 };
                }
                Some(bar) => {
                    for register in bar_registers(slot, bar) {
                        build.space.add(register)?;
                        slot += 1;
                    }
                }
                None => {
                    if is_guest {
                        build.space.add(unused_bar(slot))?;
                    }
                    slot += 1;
                }
            }
        }
        let rom = bars[usize::from(ROM)];
        if is_guest || rom.is_some() {
            build.space.add(rom_register(is_bridge, rom))?;
        }
        for slot in 0..ROM {
            let placed = bars[usize::from(slot)].map(|bar| self.placed(build, slot, bar));
            build.model.bars.all[usize::from(slot)] = placed;
        }
        if let Some(rom) = rom {
            self.place_rom(build, rom_offset(is_bridge), rom);
        }
        Ok(())
    }

    fn placed(&self, build: &Build<'_>, slot: u8, bar: Bar) -> Placed {
        if self.viewer == Viewer::Guest {
            return Placed::at(bar, 0);
        }
        if let Some(function) = self.virtual_function {
            let place = function.bars.get(usize::from(slot)).copied().flatten();
            return Placed::at(bar, place.map_or(0, |(_, address)| address));
        }
        let offset = FIRST + 4 * u16::from(slot);
        let register = |offset: u16| build.config.u32(offset.into()).unwrap_or_default();
        let upper = if bar.kind() == BarKind::Memory64 { register(offset + 4) } else { 0 };
        let address = join(register(offset), upper) & !(bar.size() - 1);
        Placed { address, ..Placed::at(bar, 0) }
    }

    fn place_rom(&self, build: &mut Build<'_>, offset: u16, rom: Bar) {
        let value = build.config.u32(offset.into()).unwrap_or_default();
        let bars = &mut build.model.bars;
        bars.hardware_rom = Some(HardwareRom { offset, value });
        let mut placed = Placed::at(rom, 0);
        if self.viewer == Viewer::Host {
            placed.address = u64::from(value) & !(rom.size() - 1);
            bars.rom_enabled = value & 1 != 0;
        }
        bars.all[usize::from(ROM)] = Some(placed);
    }
}

const fn slots(is_bridge: bool) -> u8 {
    if is_bridge { 2 } else { 6 }
}

/// A 64-bit BAR in the last slot has no place for its upper half.
fn check_hardware(build: &Build<'_>, slots: u8) -> Result<(), PassThroughError> {
    let mut slot = 0;
    while slot < slots {
        let register = build.config.u32(usize::from(FIRST) + 4 * usize::from(slot)).unwrap_or_default();
        let is_64 = register & IS_IO == 0 && register & KIND == IS_64;
        if is_64 && slot + 1 == slots {
            return Err(PassThroughError::Bar { bar: slot, fault: BarFault::NoUpperHalf });
        }
        slot += if is_64 { 2 } else { 1 };
    }
    Ok(())
}

/// BARs that somebody says there are.
fn check(bars: AllBars, slots: u8) -> Result<AllBars, PassThroughError> {
    let mut is_upper_half = false;
    for (slot, bar) in (0_u8..).zip(&bars) {
        let was_64 = core::mem::take(&mut is_upper_half);
        let Some(bar) = bar else { continue };
        let fault = match (slot, was_64) {
            (ROM, _) => bar.rom_fault(),
            (_, true) => Some(BarFault::SlotTaken),
            _ => bar.fault(slot, slots),
        };
        if let Some(fault) = fault {
            return Err(PassThroughError::Bar { bar: slot, fault });
        }
        is_upper_half = bar.kind() == BarKind::Memory64;
    }
    Ok(bars)
}
