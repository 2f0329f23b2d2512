//! One function: its registers, its state, and what its accesses ask of the outside.
//!
//! # Invariants
//!
//! A function is behind its device's lock, so there is one access at a time. What an access asks for waits in a queue;
//! one thread at a time takes the next [`Work`] from it, carries it out without the lock, and comes back with what
//! became of it.

mod bar;
mod command;
mod effect;
mod header;
mod model;
mod state;
mod work;

use alloc::boxed::Box;
use core::fmt;

pub use bar::{Bar, BarFault, BarKind, ROM};
pub(in crate::vpci) use bar::{
    BarSet, Placed, registers as bar_registers, rom_register, unused as unused_bar,
};
pub(in crate::vpci) use command::registers as command_registers;
use effect::Queue;
pub use effect::{Asked, Effect, Effects};
pub use header::Identity;
pub(in crate::vpci) use header::{Rest, registers as header_registers};
pub(in crate::vpci) use model::Model;
pub use model::Viewer;
pub use state::RestoreError;
pub(in crate::vpci) use state::{Reader, save_message};
pub(in crate::vpci) use work::{Mapping, Work};

use super::capability::msix::Part;
use super::capability::{Level, Signals, VectorWork};
use super::registers::{Space, all_bits};
use crate::memory::Shared;
use crate::platform::Width;
use crate::sync::{AtomicUsize, Ordering};

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
    /// Its guest has asked for a reset that is being carried out.
    is_marked: bool,
    /// How many vectors are routed, for who is not under the lock.
    live: Option<Shared<AtomicUsize>>,
}

/// Whether it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answers,
    /// Its binding is at its end, or it is being reset: reads ones, and nothing is begun.
    Veiled,
    /// A handler panicked: reads ones.
    Poisoned,
}

impl Function {
    pub(super) fn new(space: Space<Model, Effects>, model: Box<Model>) -> Self {
        Self { space, model, queue: Queue::default(), state: State::Answers, is_marked: false, live: None }
    }

    /// Reads configuration space. Ones where the access is not possible, or the function does not answer.
    #[inline]
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        if self.state != State::Answers {
            return all_bits(width);
        }
        let (space, model) = (&mut self.space, &mut *self.model);
        shielded(&mut self.state, || space.read(model, offset, width)).unwrap_or(all_bits(width))
    }

    /// Writes configuration space.
    #[inline]
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Asked {
        if self.state != State::Answers {
            return Asked::NOTHING;
        }
        let (space, model) = (&mut self.space, &mut *self.model);
        let Some(outcomes) = shielded(&mut self.state, || space.write(model, offset, width, value)) else {
            return Asked::NOTHING;
        };
        if outcomes.is_empty() {
            return Asked::NOTHING;
        }
        outcomes.into_iter().fold(Asked::NOTHING, |asked, effects| self.queue.ask(asked, effects))
    }

    /// Reads from a BAR (6 is the ROM): 1, 2, 4 or 8 bytes, aligned, within the BAR. Anything else, and a function that
    /// does not answer, reads ones.
    #[inline]
    pub fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !self.has_bar_access(bar, offset, data.len()) {
            return;
        }
        let model = &mut *self.model;
        let ran = shielded(&mut self.state, || model.bar_read(bar, offset, data));
        if ran.is_none() {
            data.fill(0xff);
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
        if self.state != State::Answers {
            return Asked::NOTHING;
        }
        let model = &mut *self.model;
        let mut signals = Signals::new(&mut model.interrupts, &mut model.wishes);
        signal(&mut signals);
        let effects = signals.effects;
        self.queue.ask(Asked::NOTHING, effects)
    }

    /// A handler of it has panicked: it reads ones until it is reset or removed.
    pub fn is_poisoned(&self) -> bool {
        self.state == State::Poisoned
    }

    /// Whether what an access asked for has been carried out, or was superseded.
    pub fn is_settled(&self, asked: Asked) -> bool {
        self.queue.is_settled(asked)
    }

    fn has_bar_access(&self, bar: u8, offset: u64, length: usize) -> bool {
        let fits = |placed: &bar::Placed| {
            let length = length as u64;
            offset.is_multiple_of(length)
                && offset.checked_add(length).is_some_and(|end| end <= placed.bar.size())
        };
        let possible = matches!(length, 1 | 2 | 4 | 8);
        self.state == State::Answers && possible && self.model.bars.get(bar).is_some_and(fits)
    }
}

/// For whoever carries out effects.
impl Function {
    /// The next thing to be done outside the lock, unless somebody is at it. What became of it goes to
    /// [`end`](Self::end).
    pub(super) fn begin(&mut self) -> Option<Work> {
        if self.state == State::Veiled {
            return None;
        }
        loop {
            let effect = self.queue.begin()?;
            if let Some(work) = self.model.work(effect) {
                return Some(work);
            }
            self.queue.end();
        }
    }

    /// One thing was done of what was begun; more may be left of the same effect.
    pub(super) fn more(&mut self) -> Option<Work> {
        let effect = self.queue.running()?;
        if effect == Effect::Vectors && self.state != State::Veiled { self.model.work(effect) } else { None }
    }

    /// What was begun has ended.
    pub(super) fn end(&mut self) {
        self.tell_live();
        self.queue.end();
    }

    /// What is being carried out.
    pub(super) fn running(&self) -> Option<Effect> {
        self.queue.running()
    }

    /// What is to be mapped of the BARs of the [`Work::Decode`] that was begun.
    pub(super) fn mappings(&self) -> [Option<Mapping>; 7] {
        self.model.mappings()
    }

    /// Decoding was brought to what was wanted, or not.
    pub(super) fn decoded(&mut self, disabled: BarSet, outcome: Result<BarSet, ()>) {
        match outcome {
            Ok(enabled) => self.model.decoded(disabled, enabled),
            Err(()) => self.model.not_decoded(disabled),
        }
    }

    /// Answers no more: reads ones, and begins nothing.
    pub(super) fn veil(&mut self) {
        self.state = State::Veiled;
        self.queue.clear();
    }

    /// Answers again, and what it asks for is what it asked for before.
    pub(super) fn unveil(&mut self) {
        self.state = State::Answers;
        let all = Effects::from(Effect::Decode).and(Effect::Vectors).and(Effect::Intx);
        let all = all.and_if(self.model.is_bridge, Effect::Buses);
        // Whoever unveils it carries them out.
        let _asked = self.queue.ask(Asked::NOTHING, all);
    }

    /// What was to be done for a vector could not be done.
    pub(super) fn vector_failed(&mut self, vector: u16, work: VectorWork) {
        self.model.interrupts.failed(vector, work);
    }

    /// The next vector that is routed; from now on it is taken not to be.
    pub(super) fn unroute_next(&mut self) -> Option<u16> {
        let next = self.model.interrupts.unroute_next();
        self.tell_live();
        next
    }

    /// From now on `live` holds how many vectors are routed.
    pub(super) fn tell_live_to(&mut self, live: Shared<AtomicUsize>) {
        self.live = Some(live);
        self.tell_live();
    }

    fn tell_live(&self) {
        if let Some(live) = &self.live {
            // Relaxed: a figure for lists, and who relies on it has the device's lock as this thread has.
            live.store(self.model.interrupts.routed(), Ordering::Relaxed);
        }
    }

    /// Whether the pin was asserted; from now on it is taken not to be.
    pub(super) fn lower_pin(&mut self) -> bool {
        core::mem::take(&mut self.model.interrupts.intx.told) == Level::High
    }

    /// To find out later whether it is still this function, and was not reset.
    pub(super) fn mark_before_reset(&mut self) {
        self.is_marked = true;
    }

    /// Whether it is the function that was marked. Once.
    pub(super) fn is_as_before_reset(&mut self) -> bool {
        core::mem::take(&mut self.is_marked)
    }

    /// These are not mapped any more.
    pub(super) fn unmapped(&mut self, bars: BarSet) {
        self.model.unmapped(bars);
    }

    /// Every register is as after a reset, and it answers again.
    pub(super) fn reset(&mut self) {
        self.space.reset();
        let model = &mut *self.model;
        model.command = command::Command { shown: model.command.shown, ..Default::default() };
        model.status = 0;
        model.bars.reset();
        model.interrupts.reset();
        model.power.reset();
        model.wishes = 0;
        model.buses = [0; 3];
        model.device_control = 0;
        model.virtual_functions = 0;
        self.queue.clear();
        if model.is_bridge {
            // Whoever resets it goes on to carry out what is asked for.
            let _asked = self.queue.ask(Asked::NOTHING, Effect::Buses.into());
        }
        let ran = shielded(&mut self.state, || model.backing.reset());
        if ran.is_some() {
            self.state = State::Answers;
        }
    }
}

impl Model {
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

/// Runs handlers; `None` if one of them panics, and then the function is poisoned. Without `std` there is nothing to
/// catch a panic with: it goes on its way, and leaves the function poisoned behind it.
#[inline]
fn shielded<R>(state: &mut State, handlers: impl FnOnce() -> R) -> Option<R> {
    let poison = Poison(state);
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(handlers)).ok()?;
    #[cfg(not(all(feature = "std", not(any(loom, shuttle)))))]
    let result = handlers();
    core::mem::forget(poison);
    Some(result)
}

/// Poisons a function, unless it is forgotten.
struct Poison<'a>(&'a mut State);

impl Drop for Poison<'_> {
    fn drop(&mut self) {
        *self.0 = State::Poisoned;
    }
}
