//! MSI-X: up to 2048 vectors, each with a message and a mask of its own, in a table that lies in a BAR
//! (PCIe 6.0 §7.7.2).

use alloc::vec::Vec;
use core::ops::Range;

use super::interrupts::VectorWork;
use super::vector::{Vector, Vectors};
use crate::memory::NoMemory;
use crate::platform::Width;
use crate::vpci::function::{Effect, Effects, Model, Reader, RestoreError};
use crate::vpci::registers::{At, Masks, Read, Register, Write, bits_if};

pub(in crate::vpci) const ID: u8 = 0x11;
/// In bytes.
pub(in crate::vpci) const LENGTH: u16 = 12;
/// The most vectors there can be.
pub(in crate::vpci) const MOST: u16 = 2048;

const CONTROL: u16 = 2;
const TABLE: u16 = 4;
const PENDING: u16 = 8;

pub(in crate::vpci) const ENABLE: u32 = 1 << 15;
const FUNCTION_MASK: u32 = 1 << 14;
const SIZE: u32 = 0x7ff;
/// Of a table entry, and of a vector's control word.
const ENTRY: u64 = 16;
const VECTOR_MASK: u32 = 1;

/// Where the table and the pending bits of MSI-X are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// The memory BAR that has the table.
    pub table_bar: u8,
    /// From the start of that BAR, in bytes; a multiple of 8.
    pub table: u32,
    /// The memory BAR that has the pending bits.
    pub pending_bar: u8,
    /// From the start of that BAR, in bytes; a multiple of 8.
    pub pending: u32,
}

/// The capability's shape and state.
#[derive(Debug)]
pub(in crate::vpci) struct Msix {
    vectors: Vectors,
    place: MsixPlace,
    is_enabled: bool,
    is_masked: bool,
}

/// What of MSI-X a place in a BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) enum Part {
    /// This many bytes into the table.
    Table(u64),
    /// This many bytes into the pending bits.
    Pending(u64),
}

impl Msix {
    pub(in crate::vpci) fn new(count: u16, place: MsixPlace) -> Result<Self, NoMemory> {
        Ok(Self { vectors: Vectors::new(count, true)?, place, is_enabled: false, is_masked: false })
    }

    /// How many vectors a control register announces, and where their table and pending bits are by the other two.
    pub(in crate::vpci) fn shape(control: u16, table: u32, pending: u32) -> (u16, MsixPlace) {
        let [table_bar, pending_bar] = [table, pending].map(|register| register.to_le_bytes()[0] & 7);
        let place = MsixPlace { table_bar, table: table & !7, pending_bar, pending: pending & !7 };
        (u16::try_from(u32::from(control) & SIZE).unwrap_or_default() + 1, place)
    }

    pub(in crate::vpci) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    pub(in crate::vpci) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    pub(in crate::vpci) fn vectors_mut(&mut self) -> &mut Vectors {
        &mut self.vectors
    }

    /// The bytes of the table in its BAR.
    pub(in crate::vpci) fn table(count: u16, place: &MsixPlace) -> Range<u64> {
        let start = u64::from(place.table);
        start..start + u64::from(count) * ENTRY
    }

    /// The bytes of the pending bits in their BAR: whole quadwords.
    pub(in crate::vpci) fn pending(count: u16, place: &MsixPlace) -> Range<u64> {
        let start = u64::from(place.pending);
        start..start + u64::from(count.div_ceil(64)) * 8
    }

    fn count(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(MOST)
    }

    /// The parts of a BAR that the model has to see.
    pub(in crate::vpci) fn parts_in(&self, bar: u8) -> [Option<Range<u64>>; 2] {
        let (count, place) = (self.count(), &self.place);
        [
            (place.table_bar == bar).then(|| Self::table(count, place)),
            (place.pending_bar == bar).then(|| Self::pending(count, place)),
        ]
    }

    /// What of MSI-X this place is.
    #[inline]
    pub(in crate::vpci) fn part(&self, bar: u8, offset: u64) -> Option<Part> {
        let (count, place) = (self.count(), &self.place);
        if place.table_bar == bar && Self::table(count, place).contains(&offset) {
            return Some(Part::Table(offset - u64::from(place.table)));
        }
        if place.pending_bar == bar && Self::pending(count, place).contains(&offset) {
            return Some(Part::Pending(offset - u64::from(place.pending)));
        }
        None
    }

    /// The registers of a capability at this place, but for its header.
    pub(in crate::vpci) fn registers(&self, at: u16) -> [Register<Model, Effects>; 3] {
        let rsvdp = Masks { rsvdp: 0x3800, ..Masks::default() };
        let control = Register::new(
            at + CONTROL,
            Width::Word,
            Read::Handler(read_control),
            Write::Handler(write_control),
        );
        let place = &self.place;
        let table = place.table | u32::from(place.table_bar);
        let pending = place.pending | u32::from(place.pending_bar);
        [
            control.masked(rsvdp),
            Register::constant(at + TABLE, Width::Dword, table),
            Register::constant(at + PENDING, Width::Dword, pending),
        ]
    }

    /// A dword of the table.
    pub(in crate::vpci) fn read_table(&self, offset: u64) -> u32 {
        let Some(vector) = self.vectors.get(entry(offset)) else { return u32::MAX };
        match offset % ENTRY {
            0 => low(vector.message.address),
            4 => low(vector.message.address >> 32),
            8 => vector.message.data,
            _ => bits_if(vector.is_masked, VECTOR_MASK),
        }
    }

    /// Writes a dword of the table. Whether somebody may have to act.
    pub(in crate::vpci) fn write_table(&mut self, offset: u64, value: u32) -> bool {
        self.vectors.change(entry(offset), |vector| {
            let message = &mut vector.message;
            match offset % ENTRY {
                0 => message.address = message.address >> 32 << 32 | u64::from(value & !3),
                4 => message.address = u64::from(low(message.address)) | u64::from(value) << 32,
                8 => message.data = value,
                _ => vector.is_masked = value & VECTOR_MASK != 0,
            }
        });
        self.is_enabled
    }

    /// A dword of the pending bits.
    pub(in crate::vpci) fn read_pending(&self, offset: u64) -> u32 {
        let first = entry_of_bit(offset);
        let is_pending = |vector| self.vectors.get(vector).is_some_and(|vector: &Vector| vector.is_pending);
        (0..32).map(|bit| u32::from(is_pending(first + bit)) << bit).sum()
    }

    fn is_live(&self, vector: &Vector) -> bool {
        self.is_enabled && !self.is_masked && !vector.is_masked
    }

    pub(in crate::vpci) fn raise(&mut self, vector: u16) -> bool {
        let is_live = self.vectors.get(vector.into()).is_some_and(|vector| self.is_live(vector));
        self.vectors.raise(vector, is_live)
    }

    pub(in crate::vpci) fn next_work(&mut self) -> Option<(u16, VectorWork)> {
        let is_on = self.is_enabled && !self.is_masked;
        self.vectors.next_work(|vector| is_on && !vector.is_masked)
    }

    /// Appends its two flags and its vectors.
    pub(in crate::vpci) fn save(&self, state: &mut Vec<u8>) {
        state.extend([u8::from(self.is_enabled), u8::from(self.is_masked)]);
        self.vectors.save(state);
    }

    pub(in crate::vpci) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), RestoreError> {
        let [is_enabled, is_masked] = from.take()?;
        (self.is_enabled, self.is_masked) = (is_enabled != 0, is_masked != 0);
        self.vectors.restore(from)
    }

    pub(in crate::vpci) fn reset(&mut self) {
        (self.is_enabled, self.is_masked) = (false, false);
        self.vectors.reset(true);
    }
}

fn read_control(model: &mut Model, _: At) -> u32 {
    let Some(msix) = &model.interrupts.msix else { return 0 };
    let size = u32::from(msix.count().wrapping_sub(1)) & SIZE;
    size | bits_if(msix.is_enabled, ENABLE) | bits_if(msix.is_masked, FUNCTION_MASK)
}

fn write_control(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    let msix = model.interrupts.msix.as_mut()?;
    let after = (value & ENABLE != 0, value & FUNCTION_MASK != 0);
    if after == (msix.is_enabled, msix.is_masked) {
        return None;
    }
    (msix.is_enabled, msix.is_masked) = after;
    msix.vectors.change_all(|_, _| {});
    if let Some(msi) = &mut model.interrupts.msi {
        msi.look_again();
    }
    model.write_command();
    Some(Effects::from(Effect::Vectors).and(Effect::Intx))
}

fn entry(offset: u64) -> usize {
    usize::try_from(offset / ENTRY).unwrap_or(usize::MAX)
}

/// The vector of the first bit of a dword of pending bits.
fn entry_of_bit(offset: u64) -> usize {
    usize::try_from((offset & !3) * 8).unwrap_or(usize::MAX)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}
