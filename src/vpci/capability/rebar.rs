//! Resizable BARs: software chooses among the sizes that the device offers (PCIe 6.0 §7.8.6).
//!
//! The BAR's register follows: the bits below the new size cannot be set any more. A BAR that is mapped, or about to be,
//! keeps its size.

use crate::device::ConfigSpace;
use crate::platform::Width;
use crate::vpci::function::{BarKind, BarSet, Effects, Model, Placed};
use crate::vpci::registers::{At, Read, Register, Write};

pub(in crate::vpci) const ID: u16 = 0x15;

const CAPABILITIES: u16 = 4;
const CONTROL: u16 = 8;
/// From one BAR's pair of registers to the next.
const ENTRY: u16 = 8;
const SLOTS: usize = 6;

/// In Control.
const SLOT: u32 = 7;
const COUNT_SHIFT: u32 = 5;
const SIZE_SHIFT: u32 = 8;
const SIZE: u32 = 0x3f;
/// In Capabilities: bit 4 is 1 MiB. The sizes beyond 128 TiB, which Control announces, are not offered.
const OFFERED_SHIFT: u32 = 4;
const SMALLEST_LOG: u32 = 20;
/// Of a 32-bit BAR.
const LARGEST_32: u64 = 1 << 31;

/// A BAR that can be resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) struct Resizable {
    /// Its Control register.
    control: u16,
    /// Bit n: 1 MiB shifted by n.
    offered: u32,
}

/// What a capability holds that can be shown: its BARs, in the order of their registers.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vpci) struct Found {
    bars: [Option<(u8, Resizable)>; SLOTS],
    count: u8,
}

impl Found {
    /// In bytes.
    pub(in crate::vpci) fn length(&self) -> u16 {
        CAPABILITIES + ENTRY * u16::from(self.count)
    }

    /// Which BARs it is about.
    pub(in crate::vpci) fn bars(&self) -> impl Iterator<Item = (u8, Resizable)> {
        self.bars.into_iter().flatten()
    }

    /// The registers of the capability at this place, but for its header.
    pub(in crate::vpci) fn registers(&self, at: u16) -> impl Iterator<Item = Register<Model, Effects>> {
        let count = self.count;
        (0..).zip(self.bars()).flat_map(move |(entry, (slot, resizable))| {
            let first = at + ENTRY * entry;
            // How many there are only the first one says.
            let count = if entry == 0 { u16::from(count) } else { 0 };
            let control = Register::new(
                first + CONTROL,
                Width::Dword,
                Read::Handler(read_control),
                Write::Handler(write_control),
            );
            [
                Register::constant(first + CAPABILITIES, Width::Dword, resizable.offered << OFFERED_SHIFT),
                control.tagged(u16::from(slot) | count << COUNT_SHIFT),
            ]
        })
    }
}

/// What the capability at this place offers; `None` if it makes no sense: no BAR or too many, a BAR that is none, or is
/// named twice, or has a size of which nothing is said.
pub(in crate::vpci) fn read(config: ConfigSpace<'_>, at: u16, model: &Model) -> Option<Found> {
    let count = config.u32(usize::from(at + CONTROL))? >> COUNT_SHIFT & 7;
    let mut found = Found { count: u8::try_from(count).ok()?, ..Found::default() };
    if found.count == 0 || usize::from(found.count) > SLOTS {
        return None;
    }
    let mut named: BarSet = 0;
    for (place, first) in found.bars.iter_mut().take(count as usize).zip((at..).step_by(ENTRY.into())) {
        let offered = config.u32(usize::from(first.checked_add(CAPABILITIES)?))? >> OFFERED_SHIFT;
        let control = first.checked_add(CONTROL)?;
        let [slot, ..] = (config.u32(control.into())? & SLOT).to_le_bytes();
        if usize::from(slot) >= SLOTS || named & 1 << slot != 0 {
            return None;
        }
        named |= 1 << slot;
        let placed = model.bars.get(slot)?;
        let possible = (0..28).filter(|log| is_possible(model, slot, placed, *log)).map(|log| 1_u32 << log);
        let offered = offered & possible.sum::<u32>();
        if offered & 1_u32.checked_shl(log_size(placed)?)? == 0 {
            return None;
        }
        *place = Some((slot, Resizable { control, offered }));
    }
    Some(found)
}

/// Control registers that a capability which makes no sense may have: those that are there.
pub(in crate::vpci) fn controls(config: ConfigSpace<'_>, at: u16) -> impl Iterator<Item = u16> {
    let count = config.u32(usize::from(at + CONTROL)).unwrap_or_default() >> COUNT_SHIFT & 7;
    (at + CONTROL..).step_by(ENTRY.into()).take(count.max(1) as usize)
}

/// Whether a BAR can have 1 MiB shifted by this.
fn is_possible(model: &Model, slot: u8, placed: &Placed, log: u32) -> bool {
    let size = 1 << (SMALLEST_LOG + log);
    let fits = match placed.bar.kind {
        BarKind::Memory32 => size <= LARGEST_32,
        BarKind::Memory64 => true,
        BarKind::Io => false,
    };
    // The table of MSI-X stays inside.
    let parts = model.interrupts.msix.as_ref().map(|msix| msix.parts_in(slot)).unwrap_or_default();
    fits && parts.into_iter().flatten().all(|part| part.end <= size)
}

/// A BAR's size as Control says it.
fn log_size(placed: &Placed) -> Option<u32> {
    placed.bar.size.trailing_zeros().checked_sub(SMALLEST_LOG)
}

fn read_control(model: &mut Model, at: At) -> u32 {
    let [slot, ..] = (u32::from(at.tag) & SLOT).to_le_bytes();
    let size = model.bars.get(slot).and_then(log_size).unwrap_or_default();
    u32::from(at.tag) | size << SIZE_SHIFT
}

fn write_control(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let [slot, ..] = (u32::from(at.tag) & SLOT).to_le_bytes();
    if !model.is_decoding(slot) {
        model.choose(slot.into(), value >> SIZE_SHIFT & SIZE);
    }
    None
}

impl Model {
    /// Every BAR that can be resized has the size that its hardware has: a reset may have changed it.
    pub(in crate::vpci) fn read_sizes(&mut self) {
        (0..SLOTS).for_each(|slot| self.read_size(slot));
    }

    /// Gives a BAR that can be resized this size, if it is offered.
    pub(in crate::vpci) fn resize(&mut self, slot: usize, size: u64) {
        let log = size.trailing_zeros().checked_sub(SMALLEST_LOG).filter(|_| size.is_power_of_two());
        if let Some(log) = log {
            self.choose(slot, log);
        }
    }

    /// Has hardware take a size, if it is offered.
    fn choose(&mut self, slot: usize, log: u32) {
        let Some(resizable) = self.resizable.get(slot).copied().flatten() else { return };
        if resizable.offered & 1_u32.checked_shl(log).unwrap_or_default() != 0 {
            let control = self.read_hardware(resizable.control, Width::Dword).unwrap_or_default();
            let control = control & !(SIZE << SIZE_SHIFT) | log << SIZE_SHIFT;
            self.write_hardware(resizable.control, Width::Dword, control);
            self.read_size(slot);
        }
    }

    /// A size that was not offered is not believed.
    fn read_size(&mut self, place: usize) {
        let Some(resizable) = self.resizable.get(place).copied().flatten() else { return };
        let Some(control) = self.read_hardware(resizable.control, Width::Dword) else { return };
        let log = control >> SIZE_SHIFT & SIZE;
        if resizable.offered & 1_u32.checked_shl(log).unwrap_or_default() == 0 {
            return;
        }
        if let Some(placed) = self.bars.all.get_mut(place).and_then(Option::as_mut) {
            placed.bar.size = 1 << (SMALLEST_LOG + log);
            placed.address &= !(placed.bar.size - 1);
        }
    }
}
