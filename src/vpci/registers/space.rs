//! All registers of one function.
//!
//! # Invariants
//!
//! A byte of configuration space belongs to no register or to one; a register's bytes all name it. A dword is empty, or
//! names the one register that fills it, or a *split*, which names one for each of its bytes. So an access finds what
//! it meets in two steps, whatever else there is: 2 KiB for the dwords, 8 bytes a register. What registers have in
//! common (handlers, masks, width) they share as a *kind*: a thousand vectors have one.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::register::{END, Masks, Read, Register, RegisterError, Write, all_bits};
use crate::memory::{NoMemory, try_box};
use crate::platform::Width;

const DWORDS: usize = END as usize / 4;

/// The registers of one function. `M` is the model their handlers work on, `O` what a write can ask for.
///
/// ```
/// use pcidevs::platform::Width;
/// use pcidevs::vpci::{At, Behind, Read, Register, Space, Write};
/// struct Counter { reads: u32 }
/// impl Behind for Counter {}
/// let mut space = Space::<Counter, ()>::new()?;
/// space.add(Register::constant(0, Width::Dword, 0x1234_8086))?;
/// let count: fn(&mut Counter, At) -> u32 = |counter, _| { counter.reads += 1; counter.reads };
/// space.add(Register::new(0x40, Width::Word, Read::Handler(count), Write::Drop))?;
///
/// let mut model = Counter { reads: 0 };
/// assert_eq!(space.read(&mut model, 2, Width::Word), 0x1234);
/// assert_eq!(space.read(&mut model, 0x40, Width::Dword), 0xffff_0001);
/// # Ok::<(), pcidevs::vpci::RegisterError>(())
/// ```
pub struct Space<M, O> {
    dwords: Box<[Dword; DWORDS]>,
    splits: Vec<[Place; 4]>,
    registers: Vec<Stored>,
    kinds: Vec<Kind<M, O>>,
    /// Registers that keep what is written to them, and what they held at first.
    first_values: Vec<(Place, u32)>,
    /// Places in `splits` and `registers` that nothing names, and for which there is room here.
    free_splits: Vec<u16>,
    free_registers: Vec<u16>,
}

/// What a dword is made of: 0, or one more than the place of its register, or the place of a split and [`SPLIT`].
pub(super) type Dword = u16;
pub(super) const SPLIT: Dword = 1 << 15;
/// 0, or one more than the place of a register.
pub(super) type Place = u16;

/// What a register has of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) value: u32,
    pub(super) kind: u16,
    pub(super) tag: u16,
}

/// What registers have in common.
#[derive(Debug)]
pub(super) struct Kind<M, O> {
    pub(super) read: Read<M>,
    pub(super) write: Write<M, O>,
    pub(super) masks: Masks,
    pub(super) width: Width,
    /// The bits that can be read.
    pub(super) readable: u32,
    /// How many registers are of it; of 0 it may become another kind.
    registers: u16,
}

impl<M, O> Space<M, O> {
    /// No registers.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(Self {
            dwords: try_box([0; DWORDS])?,
            splits: Vec::new(),
            registers: Vec::new(),
            kinds: Vec::new(),
            first_values: Vec::new(),
            free_splits: Vec::new(),
            free_registers: Vec::new(),
        })
    }

    /// Adds a register. If that fails nothing has changed.
    pub fn add(&mut self, register: Register<M, O>) -> Result<(), RegisterError> {
        register.check()?;
        if let Some(taken) = (register.offset..register.end()).find_map(|byte| self.register_of(byte)) {
            return Err(RegisterError::Exists(taken.start));
        }
        // All memory first.
        let Register { offset, width, tag, value, .. } = register;
        let needs_split = width != Width::Dword && self.dwords[dword(offset)] == 0;
        self.reserve(needs_split)?;
        let keeps = matches!(register.write, Write::Value);
        self.first_values.try_reserve(usize::from(keeps)).map_err(NoMemory::from)?;
        let kind = self.kind_of(&register)?;
        let stored = Stored { value, kind, tag };
        let place = match self.free_registers.pop() {
            Some(free) => {
                self.registers[usize::from(free)] = stored;
                free
            }
            None => {
                let place = number(self.registers.len());
                self.registers.push(stored);
                place
            }
        };
        if keeps {
            self.first_values.push((place, value));
        }
        if width == Width::Dword {
            self.dwords[dword(offset)] = place + 1;
            return Ok(());
        }
        if needs_split {
            let split = self.free_splits.pop().unwrap_or_else(|| {
                let split = number(self.splits.len());
                self.splits.push([0; 4]);
                split
            });
            self.dwords[dword(offset)] = SPLIT | split;
        }
        if let Some(split) = self.split_mut(offset) {
            split[usize::from(offset & 3)..][..width as usize].fill(place + 1);
        }
        Ok(())
    }

    /// Removes the registers in a range of bytes. If one of them is only partly inside, none is removed.
    pub fn remove(&mut self, range: Range<u16>) -> Result<(), RegisterError> {
        let range = range.start..range.end.min(END);
        for byte in range.clone() {
            if let Some(register) = self.register_of(byte)
                && (register.start < range.start || register.end > range.end)
            {
                return Err(RegisterError::PartialOverlap(register.start));
            }
        }
        // Memory first: what becomes free is remembered.
        let bytes = range.len();
        self.free_registers.try_reserve(bytes).map_err(NoMemory::from)?;
        self.free_splits.try_reserve(bytes).map_err(NoMemory::from)?;
        let mut next = range.start;
        while next < range.end {
            next = match self.register_of(next) {
                Some(register) => {
                    self.remove_register(register.clone());
                    register.end
                }
                None => next + 1,
            };
        }
        Ok(())
    }

    /// Every register that keeps what is written to it holds what it held at first.
    pub fn reset(&mut self) {
        for (place, value) in &self.first_values {
            self.registers[usize::from(*place)].value = *value;
        }
    }

    /// What the registers that keep what is written to them hold, in the order in which they were added.
    pub(in crate::vpci) fn values(&self) -> impl Iterator<Item = u32> + '_ {
        self.first_values.iter().map(|(place, _)| self.registers[usize::from(*place)].value)
    }

    /// The same, to be changed.
    pub(in crate::vpci) fn set_values<E>(
        &mut self,
        mut value: impl FnMut() -> Result<u32, E>,
    ) -> Result<(), E> {
        for (place, _) in &self.first_values {
            self.registers[usize::from(*place)].value = value()?;
        }
        Ok(())
    }

    /// How many registers there are.
    pub fn len(&self) -> usize {
        self.registers.len() - self.free_registers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn dword(&self, offset: u16) -> Dword {
        self.dwords[dword(offset)]
    }

    #[inline]
    pub(super) fn split(&self, dword: Dword) -> [Place; 4] {
        self.splits.get(usize::from(dword & !SPLIT)).copied().unwrap_or_default()
    }

    /// The register at a place, and its kind.
    #[inline]
    pub(super) fn register(&mut self, place: Place) -> Option<(&mut Stored, &Kind<M, O>)> {
        let stored = self.registers.get_mut(usize::from(place).wrapping_sub(1))?;
        let kind = self.kinds.get(usize::from(stored.kind))?;
        Some((stored, kind))
    }

    fn place(&self, byte: u16) -> Place {
        match self.dword(byte) {
            split if split & SPLIT != 0 => self.split(split)[usize::from(byte & 3)],
            whole => whole,
        }
    }

    /// The bytes of the register that has this one.
    fn register_of(&self, byte: u16) -> Option<Range<u16>> {
        let stored = self.registers.get(usize::from(self.place(byte)).checked_sub(1)?)?;
        let width = self.kinds.get(usize::from(stored.kind))?.width as u16;
        let start = byte & !(width - 1);
        Some(start..start + width)
    }

    fn split_mut(&mut self, offset: u16) -> Option<&mut [Place; 4]> {
        let split = self.dword(offset);
        if split & SPLIT == 0 { None } else { self.splits.get_mut(usize::from(split & !SPLIT)) }
    }

    fn reserve(&mut self, needs_split: bool) -> Result<(), NoMemory> {
        if self.free_registers.is_empty() {
            self.registers.try_reserve(1)?;
        }
        if needs_split && self.free_splits.is_empty() {
            self.splits.try_reserve(1)?;
        }
        Ok(())
    }

    /// The kind of a register, with one register more.
    fn kind_of(&mut self, register: &Register<M, O>) -> Result<u16, NoMemory> {
        let found = self.kinds.iter().position(|kind| kind.registers > 0 && kind.is_of(register));
        let place = match found.or_else(|| self.kinds.iter().position(|kind| kind.registers == 0)) {
            Some(place) => place,
            None => {
                self.kinds.try_reserve(1)?;
                self.kinds.push(Kind::of(register));
                self.kinds.len() - 1
            }
        };
        let kind = &mut self.kinds[place];
        if kind.registers == 0 {
            *kind = Kind::of(register);
        }
        kind.registers += 1;
        Ok(number(place))
    }

    /// Takes one out; there is room to remember it.
    fn remove_register(&mut self, bytes: Range<u16>) {
        let place = self.place(bytes.start);
        let Some(freed) = place.checked_sub(1) else { return };
        if let Some(split) = self.split_mut(bytes.start) {
            split[usize::from(bytes.start & 3)..][..bytes.len()].fill(0);
            let is_empty = *split == [0; 4];
            if is_empty {
                self.free_splits.push(self.dwords[dword(bytes.start)] & !SPLIT);
                self.dwords[dword(bytes.start)] = 0;
            }
        } else {
            self.dwords[dword(bytes.start)] = 0;
        }
        self.first_values.retain(|(place, _)| *place != freed);
        let kind = self.registers[usize::from(freed)].kind;
        self.kinds[usize::from(kind)].registers -= 1;
        self.free_registers.push(freed);
    }
}

impl<M, O> fmt::Debug for Space<M, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = 0;
        let ranges = core::iter::from_fn(|| {
            let register = (next..END).find_map(|byte| self.register_of(byte))?;
            next = register.end;
            Some(register)
        });
        f.debug_list().entries(ranges).finish()
    }
}

impl<M, O> Kind<M, O> {
    fn of(register: &Register<M, O>) -> Self {
        let Register { read, write, masks, width, .. } = *register;
        let readable = all_bits(width) & !(masks.rsvdp | masks.rsvdz);
        Self { read, write, masks, width, readable, registers: 0 }
    }

    fn is_of(&self, register: &Register<M, O>) -> bool {
        let is_read = match (self.read, register.read) {
            (Read::Ones, Read::Ones) | (Read::Value, Read::Value) => true,
            (Read::Handler(mine), Read::Handler(other)) => core::ptr::fn_addr_eq(mine, other),
            _ => false,
        };
        let is_write = match (self.write, register.write) {
            (Write::Drop, Write::Drop) | (Write::Value, Write::Value) => true,
            (Write::Handler(mine), Write::Handler(other)) => core::ptr::fn_addr_eq(mine, other),
            _ => false,
        };
        is_read && is_write && self.masks == register.masks && self.width == register.width
    }
}

/// Which dword a byte is in; a byte beyond the end is the last one's.
#[inline]
fn dword(offset: u16) -> usize {
    usize::from(offset >> 2) & (DWORDS - 1)
}

/// The place of a register, a split or a kind: there are no more of them than bytes.
fn number(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(SPLIT - 1)
}
