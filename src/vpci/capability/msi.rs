//! MSI: one to 32 vectors that differ in the low bits of their data (PCIe 6.0 §7.7.1).

use alloc::vec::Vec;

use super::interrupts::{Message, VectorWork};
use super::vector::{Vector, Vectors};
use crate::memory::NoMemory;
use crate::platform::Width;
use crate::vpci::function::{Effect, Effects, Model, Reader, RestoreError, save_message};
use crate::vpci::registers::{At, Masks, Read, Register, Write, bits_if};

pub(in crate::vpci) const ID: u8 = 0x05;

const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;
const UPPER_ADDRESS: u16 = 8;

pub(in crate::vpci) const ENABLE: u32 = 1;
const MULTIPLE_ENABLE: u32 = 7 << 4;
const IS_64: u32 = 1 << 7;
const HAS_MASKS: u32 = 1 << 8;

/// The capability's shape and state.
#[derive(Debug)]
pub(in crate::vpci) struct Msi {
    vectors: Vectors,
    is_64: bool,
    has_masks: bool,
    is_enabled: bool,
    /// The logarithm of how many vectors the guest uses.
    used: u8,
    message: Message,
    mask: u32,
}

impl Msi {
    /// Up to `count` vectors: a power of two from 1 to 32, which the caller has checked.
    pub(in crate::vpci) fn new(count: u8, is_64: bool, has_masks: bool) -> Result<Self, NoMemory> {
        let vectors = Vectors::new(count.into(), false)?;
        Ok(Self {
            vectors,
            is_64,
            has_masks,
            is_enabled: false,
            used: 0,
            message: Message::default(),
            mask: 0,
        })
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

    /// The shape that a control register announces, if there can be such a one: how many vectors, whether addresses have
    /// 64 bits, whether vectors have masks.
    pub(in crate::vpci) fn shape(control: u16) -> Option<(u8, bool, bool)> {
        let control = u32::from(control);
        let log_count = control >> 1 & 7;
        (log_count <= 5).then_some((1 << log_count, control & IS_64 != 0, control & HAS_MASKS != 0))
    }

    /// In bytes.
    pub(in crate::vpci) const fn length(is_64: bool, has_masks: bool) -> u16 {
        10 + if is_64 { 4 } else { 0 } + if has_masks { 10 } else { 0 }
    }

    /// The registers of a capability at this place, but for its header.
    pub(in crate::vpci) fn registers(&self, at: u16) -> impl Iterator<Item = Register<Model, Effects>> {
        let register = |offset: u16, width, read, write| {
            Some(Register::new(at + offset, width, Read::Handler(read), Write::Handler(write)))
        };
        let upper = if self.is_64 { 4 } else { 0 };
        let masks = |then| if self.has_masks { then } else { None };
        let rsvdp = Masks { rsvdp: 0xfe00, ..Masks::default() };
        [
            register(CONTROL, Width::Word, read_control, write_control).map(|control| control.masked(rsvdp)),
            register(ADDRESS, Width::Dword, read_address, write_address),
            if self.is_64 { register(UPPER_ADDRESS, Width::Dword, read_upper, write_upper) } else { None },
            register(8 + upper, Width::Word, read_data, write_data),
            masks(Some(Register::constant(at + 10 + upper, Width::Word, 0))),
            masks(register(12 + upper, Width::Dword, read_mask, write_mask)),
            masks(Some(Register::new(
                at + 16 + upper,
                Width::Dword,
                Read::Handler(read_pending),
                Write::Drop,
            ))),
        ]
        .into_iter()
        .flatten()
    }

    fn log_count(&self) -> u8 {
        u8::try_from(self.vectors.len().max(1).ilog2()).unwrap_or_default()
    }

    fn control(&self) -> u32 {
        let counts = (u32::from(self.log_count()) << 1) | (u32::from(self.used) << 4);
        counts
            | bits_if(self.is_enabled, ENABLE)
            | bits_if(self.is_64, IS_64)
            | bits_if(self.has_masks, HAS_MASKS)
    }

    /// Brings every vector to what the registers say.
    fn spread(&mut self) {
        let (message, mask, low) = (self.message, self.mask, (1_u32 << self.used) - 1);
        let used = 1_usize << self.used;
        self.vectors.change_all(|number, vector| {
            let bits = u32::try_from(number).unwrap_or_default();
            vector.message = Message { data: message.data & !low | bits & low, ..message };
            vector.is_masked = number >= used || mask >> bits & 1 != 0;
        });
    }

    fn is_live(&self, vector: u16) -> bool {
        self.is_enabled && self.vectors.get(vector.into()).is_some_and(|vector| !vector.is_masked)
    }

    pub(in crate::vpci) fn raise(&mut self, vector: u16) -> bool {
        let is_live = self.is_live(vector);
        self.vectors.raise(vector, is_live)
    }

    /// The next; `is_used` is whether it counts what MSI says.
    pub(in crate::vpci) fn next_work(&mut self, is_used: bool) -> Option<(u16, VectorWork)> {
        let is_enabled = is_used && self.is_enabled;
        self.vectors.next_work(|vector: &Vector| is_enabled && !vector.is_masked)
    }

    /// Whether it counts what MSI says is different: all vectors are looked at.
    pub(in crate::vpci) fn look_again(&mut self) {
        self.vectors.change_all(|_, _| {});
    }

    /// Appends its 18 bytes and its vectors.
    pub(in crate::vpci) fn save(&self, state: &mut Vec<u8>) {
        state.extend([u8::from(self.is_enabled), self.used]);
        save_message(state, self.message);
        state.extend(self.mask.to_le_bytes());
        self.vectors.save(state);
    }

    pub(in crate::vpci) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), RestoreError> {
        let [is_enabled, used] = from.take()?;
        (self.is_enabled, self.used) = (is_enabled != 0, used.min(self.log_count()));
        let Message { address, data } = from.message()?;
        // What no guest can program is not.
        let address = if self.is_64 { address } else { u64::from(low(address)) };
        self.message = Message { address: address & !3, data: data & 0xffff };
        self.mask = u32::from_le_bytes(from.take()?);
        self.vectors.restore(from)?;
        // What each vector sends follows from the registers.
        self.spread();
        Ok(())
    }

    pub(in crate::vpci) fn reset(&mut self) {
        (self.is_enabled, self.used, self.mask, self.message) = (false, 0, 0, Message::default());
        self.vectors.reset(false);
    }
}

fn msi<R: Default>(model: &mut Model, step: impl FnOnce(&mut Msi) -> R) -> R {
    model.interrupts.msi.as_mut().map(step).unwrap_or_default()
}

fn read_control(model: &mut Model, _: At) -> u32 {
    msi(model, |msi| msi.control())
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a handler")]
fn write_control(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    msi(model, |msi| {
        msi.is_enabled = value & ENABLE != 0;
        // Clamped to what the device has.
        let asked = u8::try_from((value & MULTIPLE_ENABLE) >> 4).unwrap_or_default();
        msi.used = asked.min(msi.log_count());
        msi.spread();
    });
    model.write_command();
    Some(Effects::from(Effect::Vectors).and(Effect::Intx))
}

fn read_address(model: &mut Model, _: At) -> u32 {
    msi(model, |msi| low(msi.message.address))
}

fn write_address(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    change_message(model, |message| {
        message.address = (message.address >> 32 << 32) | u64::from(value & !3);
    })
}

fn read_upper(model: &mut Model, _: At) -> u32 {
    msi(model, |msi| low(msi.message.address >> 32))
}

fn write_upper(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    change_message(model, |message| {
        message.address = u64::from(low(message.address)) | (u64::from(value) << 32);
    })
}

fn read_data(model: &mut Model, _: At) -> u32 {
    msi(model, |msi| msi.message.data)
}

fn write_data(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    change_message(model, |message| message.data = value & 0xffff)
}

fn change_message(model: &mut Model, change: impl FnOnce(&mut Message)) -> Option<Effects> {
    let is_enabled = msi(model, |msi| {
        change(&mut msi.message);
        msi.spread();
        msi.is_enabled
    });
    // Nobody has a message that is not enabled.
    Effects::default().and_if(is_enabled, Effect::Vectors).or_none()
}

fn read_mask(model: &mut Model, _: At) -> u32 {
    msi(model, |msi| msi.mask)
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a handler")]
fn write_mask(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    msi(model, |msi| {
        msi.mask = value;
        msi.spread();
    });
    Some(Effect::Vectors.into())
}

fn read_pending(model: &mut Model, at: At) -> u32 {
    // What hardware holds back while a vector is masked only hardware knows.
    if let Some(pending) = model.read_hardware(at.offset, Width::Dword) {
        return pending;
    }
    msi(model, |msi| {
        let bit = |vector: usize| msi.vectors.get(vector).is_some_and(|vector| vector.is_pending);
        (0..32).map(|vector| u32::from(bit(vector)) << vector).sum()
    })
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}
