//! An access of 1, 2 or 4 bytes: which registers and which gaps it meets, in the order of their addresses.

use super::behind::Behind;
use super::register::{At, END, Read, Write, all_bits};
use super::space::{Place, SPLIT, Space};
use crate::platform::Width;

/// What a write asks for outside the device's lock, in order: at most one thing for each register it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what a write asks for is to be carried out"]
pub struct Outcomes<O>([Option<O>; 4]);

impl<O> Outcomes<O> {
    const fn none() -> Self {
        Self([const { None }; 4])
    }

    fn one(outcome: Option<O>) -> Self {
        Self([outcome, None, None, None])
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl<O> IntoIterator for Outcomes<O> {
    type Item = O;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<O>, 4>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl<M: Behind, O> Space<M, O> {
    /// Reads from registers and the gaps between them. An access that is not aligned, or beyond the end, reads ones.
    #[inline]
    pub fn read(&mut self, model: &mut M, offset: u16, width: Width) -> u32 {
        if !is_possible(offset, width) {
            return all_bits(width);
        }
        match self.dword(offset) {
            0 => model.read_gap(offset, width) & all_bits(width),
            split if split & SPLIT != 0 => self.read_split(model, self.split(split), offset, width),
            whole => self.read_register(model, whole, offset & !3) >> (8 * (offset & 3)) & all_bits(width),
        }
    }

    /// Writes registers and the gaps between them. An access that is not aligned, or beyond the end, writes nothing.
    #[inline]
    pub fn write(&mut self, model: &mut M, offset: u16, width: Width, value: u32) -> Outcomes<O> {
        if !is_possible(offset, width) {
            return Outcomes::none();
        }
        let value = value & all_bits(width);
        match self.dword(offset) {
            0 => {
                model.write_gap(offset, width, value);
                Outcomes::none()
            }
            split if split & SPLIT != 0 => self.write_split(model, self.split(split), (offset, width, value)),
            whole => {
                let shift = 8 * (offset & 3);
                let written = Written { value: value << shift, bits: all_bits(width) << shift };
                Outcomes::one(self.write_register(model, whole, offset & !3, written))
            }
        }
    }

    fn read_split(&mut self, model: &mut M, split: [Place; 4], offset: u16, width: Width) -> u32 {
        let mut result = 0;
        for part in Parts::new(split, offset, width) {
            let value = match part.place {
                0 => model.read_gap(part.at, part.width),
                place => {
                    let start = self.start(place, part.at);
                    self.read_register(model, place, start) >> (8 * (part.at - start))
                }
            };
            result |= (value & all_bits(part.width)) << (8 * (part.at - offset));
        }
        result
    }

    fn write_split(
        &mut self,
        model: &mut M,
        split: [Place; 4],
        (offset, width, value): (u16, Width, u32),
    ) -> Outcomes<O> {
        let mut outcomes = Outcomes::none();
        for (part, outcome) in Parts::new(split, offset, width).zip(&mut outcomes.0) {
            let written = value >> (8 * (part.at - offset)) & all_bits(part.width);
            if part.place == 0 {
                model.write_gap(part.at, part.width, written);
                continue;
            }
            let start = self.start(part.place, part.at);
            let shift = 8 * (part.at - start);
            let written = Written { value: written << shift, bits: all_bits(part.width) << shift };
            *outcome = self.write_register(model, part.place, start, written);
        }
        outcomes
    }

    /// Where the register at this place begins that has this byte.
    fn start(&mut self, place: Place, byte: u16) -> u16 {
        self.register(place).map_or(byte, |(_, kind)| byte & !(kind.width as u16 - 1))
    }

    #[inline]
    fn read_register(&mut self, model: &mut M, place: Place, offset: u16) -> u32 {
        let Some((stored, kind)) = self.register(place) else { return u32::MAX };
        let value = match kind.read {
            Read::Ones => u32::MAX,
            Read::Value => stored.value,
            Read::Handler(handler) => handler(model, At { offset, tag: stored.tag }),
        };
        value & kind.readable
    }

    #[inline]
    fn write_register(&mut self, model: &mut M, place: Place, offset: u16, written: Written) -> Option<O> {
        let (stored, kind) = self.register(place)?;
        let (masks, all) = (kind.masks, all_bits(kind.width));
        let at = At { offset, tag: stored.tag };
        let preserved = masks.ro | masks.rsvdp;
        let mut value = written.value;
        if written.bits != all || preserved != 0 {
            let current = match kind.read {
                Read::Ones => u32::MAX,
                Read::Value => stored.value,
                Read::Handler(handler) => handler(model, at),
            };
            // What is not written stays, but for bits that a one would clear.
            value = written.value & written.bits | current & !masks.rw1c & !written.bits;
            value = value & !preserved | current & preserved;
        }
        value &= !masks.rsvdz & all;
        match kind.write {
            Write::Drop => None,
            Write::Value => {
                stored.value = value & !masks.rw1c | stored.value & masks.rw1c & !value;
                None
            }
            Write::Handler(handler) => handler(model, at, value),
        }
    }
}

fn is_possible(offset: u16, width: Width) -> bool {
    offset < END && offset.is_multiple_of(width as u16)
}

/// What is written of a register: the value, in its place, and which bits.
#[derive(Clone, Copy)]
struct Written {
    value: u32,
    bits: u32,
}

/// A run of bytes in one dword that one register has, or none.
#[derive(Clone, Copy)]
struct Part {
    place: Place,
    at: u16,
    width: Width,
}

/// An access to a dword that several registers share, cut into aligned parts.
struct Parts {
    split: [Place; 4],
    next: u16,
    end: u16,
}

impl Parts {
    fn new(split: [Place; 4], offset: u16, width: Width) -> Self {
        Self { split, next: offset, end: offset + width as u16 }
    }

    fn place(&self, byte: u16) -> Place {
        self.split[usize::from(byte & 3)]
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let at = self.next;
        if at >= self.end {
            return None;
        }
        let place = self.place(at);
        // No register of a split is wider than two bytes, so a pair of one place is all of it; and a gap of three bytes is
        // an aligned pair and a byte.
        let is_pair = at.is_multiple_of(2) && at + 1 < self.end && self.place(at + 1) == place;
        let width = if is_pair { Width::Word } else { Width::Byte };
        self.next = at + width as u16;
        Some(Part { place, at, width })
    }
}
