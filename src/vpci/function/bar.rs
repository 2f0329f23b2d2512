//! Base address registers: what a BAR is, how it is sized and moved, and what of it is mapped.
//!
//! # Invariants
//!
//! A BAR's address does not change from the moment its mapping is wanted until it is unmapped: writes in between are
//! ignored. So what is mapped is always where its register says.

use super::effect::Effects;
use super::model::{Model, Viewer};
use super::rom::HardwareRom;
use crate::platform::Width;
use crate::vpci::registers::{At, Read, Register, Write};

/// The number of the expansion ROM, beside the six BARs.
pub const ROM: u8 = 6;
/// BARs and the ROM.
pub(in crate::vpci) const ALL: usize = 7;

const FIRST: u16 = 0x10;
/// Below an address of a memory BAR: what kind it is (PCIe 6.0 §7.5.1.2.1).
pub(super) const IS_IO: u32 = 1;
pub(super) const IS_64: u32 = 4;
pub(super) const PREFETCHABLE: u32 = 8;
/// In the tag of a register: it is the upper half of the BAR.
const UPPER: u16 = 1 << 8;

/// What kind of addresses a BAR takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two slots.
    Memory64,
    /// I/O ports.
    Io,
}

/// A base address register, or an expansion ROM.
///
/// ```
/// use pcidevs::vpci::Bar;
/// let registers = Bar::memory64(0x4000).prefetchable();
/// let frame_buffer = Bar::memory32(16 << 20).direct();
/// # let _ = (registers, frame_buffer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    pub(in crate::vpci) kind: BarKind,
    pub(in crate::vpci) size: u64,
    pub(in crate::vpci) is_prefetchable: bool,
    pub(in crate::vpci) is_direct: bool,
}

impl Bar {
    /// Memory below 4 GiB; `size` in bytes, a power of two from 16 to 2 GiB.
    pub const fn memory32(size: u32) -> Self {
        Self { kind: BarKind::Memory32, size: size as u64, is_prefetchable: false, is_direct: false }
    }

    /// Memory anywhere; `size` in bytes, a power of two from 16. It takes this slot and the next.
    pub const fn memory64(size: u64) -> Self {
        Self { kind: BarKind::Memory64, size, is_prefetchable: false, is_direct: false }
    }

    /// I/O ports; `size` in bytes, a power of two from 4 to 256.
    pub const fn io(size: u32) -> Self {
        Self { kind: BarKind::Io, size: size as u64, is_prefetchable: false, is_direct: false }
    }

    /// Reads have no side effect, and writes may be merged.
    #[must_use]
    pub const fn prefetchable(self) -> Self {
        Self { is_prefetchable: true, ..self }
    }

    /// The guest reaches it without an exit, but for what must be seen (an MSI-X table): mapping and unmapping it are
    /// effects. Of another BAR every access comes to the model.
    #[must_use]
    pub const fn direct(self) -> Self {
        Self { is_direct: true, ..self }
    }

    /// Every access comes to the model.
    pub(in crate::vpci) const fn trapped(self) -> Self {
        Self { is_direct: false, ..self }
    }

    /// In bytes.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// What kind of addresses it takes.
    pub const fn kind(self) -> BarKind {
        self.kind
    }

    /// Whether reads have no side effect.
    pub const fn is_prefetchable(self) -> bool {
        self.is_prefetchable
    }

    pub(in crate::vpci) const fn is_io(self) -> bool {
        matches!(self.kind, BarKind::Io)
    }

    /// Which rule of PCIe 6.0 §7.5.1.2 it breaks in this slot, of so many; `None` if it can be.
    pub(in crate::vpci) const fn fault(self, slot: u8, slots: u8) -> Option<BarFault> {
        if slot >= slots {
            return Some(BarFault::NoSuchSlot);
        }
        if !self.size.is_power_of_two() {
            return Some(BarFault::NoPowerOfTwo);
        }
        match self.kind {
            BarKind::Memory64 if slot + 1 >= slots => Some(BarFault::NoUpperHalf),
            BarKind::Memory32 if self.size > 1 << 31 => Some(BarFault::TooLarge),
            BarKind::Memory32 | BarKind::Memory64 if self.size < 16 => Some(BarFault::TooSmall),
            BarKind::Io if self.size < 4 => Some(BarFault::TooSmall),
            BarKind::Io if self.size > 256 => Some(BarFault::TooLarge),
            BarKind::Io if self.is_prefetchable => Some(BarFault::PrefetchableIo),
            _ => None,
        }
    }

    /// Which rule it breaks as an expansion ROM.
    pub(in crate::vpci) const fn rom_fault(self) -> Option<BarFault> {
        if !matches!(self.kind, BarKind::Memory32) || self.is_prefetchable {
            Some(BarFault::RomKind)
        } else if !self.size.is_power_of_two() {
            Some(BarFault::NoPowerOfTwo)
        } else if self.size < 2048 {
            Some(BarFault::TooSmall)
        } else if self.size > 16 << 20 {
            Some(BarFault::TooLarge)
        } else {
            None
        }
    }

    /// What its register reads below the address.
    const fn flags(self) -> u32 {
        let kind = match self.kind {
            BarKind::Memory32 => 0,
            BarKind::Memory64 => IS_64,
            BarKind::Io => IS_IO,
        };
        kind | if self.is_prefetchable { PREFETCHABLE } else { 0 }
    }
}

/// Which rule a BAR breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BarFault {
    /// There are six slots in a type 0 header, two in a type 1 header.
    #[error("there is no such slot (PCIe 6.0 §7.5.1.2.1, §7.5.1.3)")]
    NoSuchSlot,
    /// Another BAR takes the slot, or its upper half does.
    #[error("the slot is taken, by another BAR or its upper half (PCIe 6.0 §7.5.1.2.1)")]
    SlotTaken,
    /// Sizes are powers of two.
    #[error("its size is no power of two (PCIe 6.0 §7.5.1.2.1)")]
    NoPowerOfTwo,
    /// Memory has 16 bytes at least, I/O 4, a ROM 2 KiB.
    #[error("it is too small (PCIe 6.0 §7.5.1.2.1, §7.5.1.2.4)")]
    TooSmall,
    /// 32-bit memory has 2 GiB at most, I/O 256 bytes, a ROM 16 MiB.
    #[error("it is too large (PCIe 6.0 §7.5.1.2.1, §7.5.1.2.4)")]
    TooLarge,
    /// A 64-bit BAR in the last slot has no place for its upper half.
    #[error("a 64-bit BAR cannot be in the last slot (PCIe 6.0 §7.5.1.2.1)")]
    NoUpperHalf,
    /// A virtual function has no I/O.
    #[error("a virtual function cannot have I/O (PCIe 6.0 §9.3.3.14)")]
    VirtualIo,
    /// I/O is not prefetchable.
    #[error("I/O cannot be prefetchable (PCIe 6.0 §7.5.1.2.1)")]
    PrefetchableIo,
    /// A ROM is 32-bit memory, and its register does not say that it is prefetchable.
    #[error("a ROM is 32-bit memory that is not said to be prefetchable (PCIe 6.0 §7.5.1.2.4)")]
    RomKind,
}

/// One BAR and where it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::vpci) struct Placed {
    pub(in crate::vpci) bar: Bar,
    pub(in crate::vpci) address: u64,
    /// Where it is after a reset: 0, unless the register is none of its own (a virtual function's).
    pub(in crate::vpci) home: u64,
}

impl Placed {
    /// Where it is, now and after a reset.
    pub(in crate::vpci) const fn at(bar: Bar, address: u64) -> Self {
        Self { bar, address, home: address }
    }
}

/// A set of BARs: bit n for BAR n, bit [`ROM`] for the ROM.
pub(in crate::vpci) type BarSet = u8;

/// All BARs of a function.
#[derive(Clone, Debug, Default)]
pub(in crate::vpci) struct Bars {
    pub(in crate::vpci) all: [Option<Placed>; ALL],
    /// The ROM's enable bit, as it was written.
    pub(in crate::vpci) rom_enabled: bool,
    pub(in crate::vpci) hardware_rom: Option<HardwareRom>,
    /// What answers at its addresses.
    pub(in crate::vpci) mapped: BarSet,
    /// What is being mapped at this moment.
    pub(in crate::vpci) coming: BarSet,
}

impl Bars {
    pub(in crate::vpci) fn get(&self, bar: u8) -> Option<&Placed> {
        self.all.get(usize::from(bar))?.as_ref()
    }

    /// Every BAR to where it is after a reset, none mapped.
    pub(in crate::vpci) fn reset(&mut self) {
        self.all.iter_mut().flatten().for_each(|placed| placed.address = placed.home);
        self.rom_enabled = false;
    }

    /// Those whose addresses may be decoded.
    pub(in crate::vpci) fn wanted(&self, memory: bool, io: bool) -> BarSet {
        let is_wanted = |(bar, placed): (usize, &Option<Placed>)| {
            let placed = placed.as_ref()?;
            let enabled = if placed.bar.is_io() { io } else { memory };
            (enabled && (bar != usize::from(ROM) || self.rom_enabled)).then_some(1 << bar)
        };
        self.all.iter().enumerate().filter_map(is_wanted).sum()
    }
}

/// The registers of a BAR in this slot.
pub(in crate::vpci) fn registers(slot: u8, bar: Bar) -> impl Iterator<Item = Register<Model, Effects>> {
    let offset = FIRST + 4 * u16::from(slot);
    let lower = Register::new(offset, Width::Dword, Read::Handler(read), Write::Handler(write));
    let upper = Register::new(offset + 4, Width::Dword, Read::Handler(read), Write::Handler(write));
    let upper = upper.tagged(u16::from(slot) | UPPER);
    [Some(lower.tagged(slot.into())), (bar.kind == BarKind::Memory64).then_some(upper)].into_iter().flatten()
}

/// A slot that no BAR takes reads 0.
pub(in crate::vpci) fn unused(slot: u8) -> Register<Model, Effects> {
    Register::constant(FIRST + 4 * u16::from(slot), Width::Dword, 0)
}

fn read(model: &mut Model, at: At) -> u32 {
    let Some(placed) = model.bars.get(at.tag.to_le_bytes()[0]) else { return 0 };
    let [lower, upper] = halves(placed.address);
    if at.tag & UPPER != 0 { upper } else { lower | placed.bar.flags() }
}

fn write(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let slot = at.tag.to_le_bytes()[0];
    if model.is_decoding(slot) {
        return None;
    }
    let placed = model.bars.all.get_mut(usize::from(slot))?.as_mut()?;
    let [lower, upper] = halves(placed.address);
    let address = if at.tag & UPPER != 0 { join(lower, value) } else { join(value, upper) };
    let width = if placed.bar.is_io() { 0xffff_ffff } else { u64::MAX };
    // The bits below the size cannot be set: that is how software finds the size.
    placed.address = address & width & !(placed.bar.size - 1);
    if model.viewer == Viewer::Host {
        // The host's addresses are the hardware's; a guest's are not.
        model.write_hardware(at.offset, Width::Dword, value);
    }
    None
}

pub(super) const fn halves(address: u64) -> [u32; 2] {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = address.to_le_bytes();
    [u32::from_le_bytes([b0, b1, b2, b3]), u32::from_le_bytes([b4, b5, b6, b7])]
}

pub(in crate::vpci) const fn join(lower: u32, upper: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_reset_a_bar_is_where_its_register_says_that_it_is() {
        let mut bars = Bars::default();
        let own = Placed { address: 0x2000, ..Placed::at(Bar::memory32(0x1000), 0) };
        // A virtual function's has no register of its own.
        let virtual_function = Placed::at(Bar::memory32(0x1000), 0x3000);
        bars.all = [Some(own), Some(virtual_function), None, None, None, None, None];
        bars.reset();
        let addresses = bars.all.map(|placed| placed.map(|placed| placed.address));
        assert_eq!(addresses[..3], [Some(0), Some(0x3000), None]);
    }
}
