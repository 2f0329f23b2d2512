//! One function: its registers, its state, and what its accesses ask of the outside.
//!
//! # Invariants
//!
//! A function is behind its device's lock, so there is one access at a time. What an access asks for waits in a queue;
//! one thread at a time takes the next [`Work`] from it, carries it out without the lock, and comes back with what
//! became of it.

mod bar;
mod carrying;
mod command;
mod effect;
mod header;
mod model;
mod rom;
mod silence;
mod sizing;
mod state;
mod work;

use alloc::boxed::Box;
use core::fmt;
use core::num::NonZeroUsize;

pub(in crate::vpci) use bar::{
    ALL as ALL_BARS, BarSet, Placed, join, registers as bar_registers, unused as unused_bar,
};
pub use bar::{Bar, BarFault, BarKind, ROM};
pub(in crate::vpci) use carrying::Bond;
pub(in crate::vpci) use command::registers as command_registers;
use effect::Queue;
pub use effect::{Asked, Effect, Effects};
pub use header::Identity;
pub(in crate::vpci) use header::{Rest, registers as header_registers};
pub(in crate::vpci) use model::Model;
pub use model::Viewer;
pub(in crate::vpci) use rom::{HardwareRom, rom_offset, rom_register};
use silence::{State, shielded};
pub(in crate::vpci) use sizing::{size_bars, size_rom};
pub use state::RestoreError;
pub(in crate::vpci) use state::{Reader, save_message};
pub(in crate::vpci) use work::{Mapping, Work};

use super::bytes::fill_with_ones;
use super::capability::msix::Part;
use super::capability::{Signals, VirtualFunction};
use super::registers::{Space, all_bits};
use crate::address::Sbdf;
use crate::memory::Shared;
use crate::platform::Width;

/// One function as its owner sees it: configuration space and BARs.
///
/// It is data: what an embedder keeps behind the device's lock, made by [`Endpoint`](super::Endpoint) or
/// [`PassThrough`](super::PassThrough), and used through a [`Bus`](super::Bus), which also carries out what accesses
/// ask for.
pub struct Function {
    space: Space<Model, Effects>,
    model: Box<Model>,
    queue: Queue,
    state: State,
    /// The thread that carries out an effect of it.
    executor: Option<NonZeroUsize>,
    /// The embedder carries out a reset that its guest has asked for.
    is_marked: bool,
    /// What waited when its binding came to its end: asked for again should it come back.
    interrupted: Effects,
    /// Where its guest has seen it last.
    seen_at: Option<Sbdf>,
    bond: Option<Shared<Bond>>,
}

impl Function {
    pub(super) fn new(space: Space<Model, Effects>, model: Box<Model>) -> Self {
        Self {
            space,
            model,
            queue: Queue::default(),
            state: State::ANSWERS,
            executor: None,
            is_marked: false,
            interrupted: Effects::default(),
            seen_at: None,
            bond: None,
        }
    }

    /// Reads configuration space. Ones where the access is not possible, or the function does not answer.
    #[inline]
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        if self.state != State::ANSWERS {
            return all_bits(width);
        }
        let (space, model) = (&mut self.space, &mut *self.model);
        shielded(&mut self.state, || space.read(model, offset, width)).unwrap_or(all_bits(width))
    }

    /// Writes configuration space.
    #[inline]
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Asked {
        if self.state != State::ANSWERS {
            return Asked::NOTHING;
        }
        let (space, model, queue) = (&mut self.space, &mut *self.model, &mut self.queue);
        let mut asked = Asked::NOTHING;
        // What was asked for before a handler panicked is carried out all the same.
        let _ran = shielded(&mut self.state, || {
            space.write_each(model, offset, width, value, |effects| asked = queue.ask(asked, effects));
        });
        asked
    }

    /// Reads from a BAR (6 is the ROM): 1, 2, 4 or 8 bytes, aligned, within the BAR. Anything else, and a function that
    /// does not answer, reads ones.
    #[inline]
    pub fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        fill_with_ones(data);
        self.bar_read_over(bar, offset, data);
    }

    /// The same of who has filled `data` with ones.
    #[inline]
    pub(super) fn bar_read_over(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if !self.has_bar_access(bar, offset, data.len()) {
            return;
        }
        let model = &mut *self.model;
        let ran = shielded(&mut self.state, || model.bar_read(bar, offset, data));
        if ran.is_none() {
            fill_with_ones(data);
        }
    }

    /// Writes to a BAR, by the same rules.
    #[inline]
    pub fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Asked {
        if !self.has_bar_access(bar, offset, data.len()) {
            return Asked::NOTHING;
        }
        let model = &mut *self.model;
        let effects = shielded(&mut self.state, || model.bar_write(bar, offset, data)).unwrap_or_default();
        if effects.is_empty() { Asked::NOTHING } else { self.queue.ask(Asked::NOTHING, effects) }
    }

    /// Lets the device behind the model say something by itself: an interrupt, its pin, a wish.
    pub fn signal(&mut self, signal: impl FnOnce(&mut Signals<'_>)) -> Asked {
        if self.state != State::ANSWERS {
            return Asked::NOTHING;
        }
        let model = &mut *self.model;
        let mut signals = Signals::new(&mut model.interrupts, &mut model.wishes);
        signal(&mut signals);
        let effects = signals.effects;
        self.queue.ask(Asked::NOTHING, effects)
    }

    /// Asks for what it wants of the outside from the beginning: firmware may have left the decoding of a function of
    /// the host's on. For whoever puts it behind a bus.
    pub fn start(&mut self) -> Asked {
        if self.state == State::ANSWERS {
            self.queue.ask(Asked::NOTHING, Effect::Decode.into())
        } else {
            Asked::NOTHING
        }
    }

    /// The virtual function with this index, counted from 0, as this physical function of the host's describes it;
    /// `None` if the host has not enabled so many.
    pub fn virtual_function(&mut self, index: u16) -> Option<VirtualFunction> {
        if self.state != State::ANSWERS {
            return None;
        }
        let model = &mut *self.model;
        shielded(&mut self.state, || model.virtual_function(index)).flatten()
    }

    /// A handler of it has panicked: it reads ones until it is reset or removed.
    pub fn is_poisoned(&self) -> bool {
        self.state.is(State::POISONED)
    }

    /// Whether what an access asked for has been carried out, or was superseded.
    pub fn is_settled(&self, asked: Asked) -> bool {
        self.queue.is_settled(asked)
    }

    #[inline]
    fn has_bar_access(&self, bar: u8, offset: u64, length: usize) -> bool {
        let length = length as u64;
        // Powers of two, so alignment is a mask: a division costs as much as a lock.
        let possible = matches!(length, 1 | 2 | 4 | 8) && offset & (length - 1) == 0;
        let fits =
            |placed: &bar::Placed| placed.bar.size().checked_sub(length).is_some_and(|last| offset <= last);
        possible && self.state == State::ANSWERS && self.model.bars.get(bar).is_some_and(fits)
    }
}

impl Model {
    #[inline]
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        match self.interrupts.msix.as_ref().and_then(|msix| msix.part(bar, offset)) {
            None => self.backing.bar_read(bar, offset, data),
            Some(part) if matches!(data.len(), 4 | 8) => {
                for (dword, bytes) in (0..).zip(data.chunks_mut(4)) {
                    bytes.copy_from_slice(&self.read_part(part, bar, offset, dword * 4).to_le_bytes());
                }
            }
            Some(_) => {}
        }
    }

    fn read_part(&mut self, part: Part, bar: u8, offset: u64, further: u64) -> u32 {
        let Some(msix) = &self.interrupts.msix else { return u32::MAX };
        match part {
            Part::Table(at) => msix.read_table(at + further),
            Part::Pending(at) if !self.is_hardware => msix.read_pending(at + further),
            Part::Pending(_) => {
                let mut bytes = [0xff; 4];
                self.backing.bar_read(bar, offset + further, &mut bytes);
                u32::from_le_bytes(bytes)
            }
        }
    }

    #[inline]
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Effects {
        let part = self.interrupts.msix.as_ref().and_then(|msix| msix.part(bar, offset));
        let Some(part) = part else {
            let mut signals = Signals::new(&mut self.interrupts, &mut self.wishes);
            self.backing.bar_write(bar, offset, data, &mut signals);
            return signals.effects;
        };
        let (Part::Table(at), 4 | 8, Some(msix)) = (part, data.len(), &mut self.interrupts.msix) else {
            return Effects::default();
        };
        let mut has_effect = false;
        for (dword, bytes) in (0..).zip(data.chunks(4)) {
            let mut value = [0; 4];
            value.copy_from_slice(bytes);
            has_effect |= msix.write_table(at + dword * 4, u32::from_le_bytes(value));
        }
        Effects::default().and_if(has_effect, Effect::Vectors)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = self.space.len();
        f.debug_struct("Function")
            .field("registers", &registers)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
