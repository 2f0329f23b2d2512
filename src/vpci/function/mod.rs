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
mod rom;
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
pub(in crate::vpci) use command::registers as command_registers;
use effect::Queue;
pub use effect::{Asked, Effect, Effects};
pub use header::Identity;
pub(in crate::vpci) use header::{Rest, registers as header_registers};
pub(in crate::vpci) use model::Model;
pub use model::Viewer;
pub(in crate::vpci) use rom::{HardwareRom, rom_offset, rom_register};
pub(in crate::vpci) use sizing::{size_bars, size_rom};
pub use state::RestoreError;
pub(in crate::vpci) use state::{Reader, save_message};
pub(in crate::vpci) use work::{Mapping, Work};

use super::bytes::fill_with_ones;
use super::capability::msix::Part;
use super::capability::{Level, PowerState, Signals, VectorWork, VirtualFunction};
use super::registers::{Space, all_bits};
use crate::address::Sbdf;
use crate::memory::Shared;
use crate::platform::Width;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

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

/// What a function and its binding share, for whoever is not under the lock.
#[derive(Debug)]
pub(super) struct Bond {
    /// How many vectors are routed.
    live: AtomicUsize,
    /// The embedder carries out a reset: the one effect during which the function can be taken away, and come
    /// back when who carries it out has ended.
    is_resetting: AtomicBool,
}

impl Bond {
    pub(super) fn new() -> Self {
        Self { live: AtomicUsize::new(0), is_resetting: AtomicBool::new(false) }
    }

    pub(super) fn live(&self) -> usize {
        // Relaxed: a figure for lists, and who relies on it has the device's lock as who stored it had.
        self.live.load(Ordering::Relaxed)
    }

    /// The embedder's part of a reset is over, whether the function is there or not.
    pub(super) fn end_reset(&self) {
        // Release: pairs with the look of `come_back`. The device's lock orders the two, too: who ends looks for the
        // function under it afterwards, and who brings it back looks at this afterwards.
        self.is_resetting.store(false, Ordering::Release);
    }
}

/// Why it does not answer: nothing, or a bit for each reason, since one does not end with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u8);

impl State {
    const ANSWERS: Self = Self(0);
    /// A handler panicked: reads ones.
    const POISONED: Self = Self(1);
    /// It is being reset: reads ones, and nothing is begun.
    const RESETTING: Self = Self(2);
    /// Its binding is at its end: the same.
    const VEILED: Self = Self(4);

    const fn is(self, why: Self) -> bool {
        self.0 & why.0 != 0
    }

    const fn begin(&mut self, why: Self) {
        self.0 |= why.0;
    }

    const fn end(&mut self, why: Self) {
        self.0 &= !why.0;
    }

    /// Nothing is carried out for it.
    const fn is_held(self) -> bool {
        self.is(Self(Self::RESETTING.0 | Self::VEILED.0))
    }
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

/// For whoever carries out effects.
impl Function {
    /// The next thing to be done outside the lock, by this thread, unless somebody is at it. What became of it goes to
    /// [`end`](Self::end).
    pub(super) fn begin(&mut self, by: NonZeroUsize) -> Option<Work> {
        if self.state.is_held() {
            return None;
        }
        loop {
            let effect = self.queue.begin()?;
            let unbegun = Unbegun(&mut self.queue);
            let model = &mut *self.model;
            if let Some(work) = shielded(&mut self.state, || model.work(effect)).flatten() {
                core::mem::forget(unbegun);
                self.executor = Some(by);
                if effect == Effect::Reset {
                    self.is_marked = true;
                    self.state.begin(State::RESETTING);
                    if let Some(bond) = &self.bond {
                        // Relaxed: under the lock, as is who looks at it.
                        bond.is_resetting.store(true, Ordering::Relaxed);
                    }
                }
                return Some(work);
            }
        }
    }

    /// One thing was done of what this thread has begun; more may be left of the same effect.
    pub(super) fn more(&mut self, by: NonZeroUsize) -> Option<Work> {
        if self.executor != Some(by) || self.queue.running()? != Effect::Vectors || self.state.is_held() {
            return None;
        }
        self.model.work(Effect::Vectors)
    }

    /// What this thread has begun has ended. It may have been of another function: a reset can make a new one.
    pub(super) fn end(&mut self, by: NonZeroUsize) {
        if self.executor == Some(by) {
            self.tell_live();
            self.executor = None;
            self.state.end(State::RESETTING);
            self.queue.end();
            if core::mem::take(&mut self.is_marked) {
                // What became of the reset nobody was there to be told.
                let _asked = self.queue.ask(Asked::NOTHING, Effect::Reset.into());
            }
        }
    }

    /// Whether an effect is being carried out that whoever ends the binding has to wait for. The embedder's part of a
    /// reset is none: it may be what ends it.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.executor.is_some() && !self.is_marked
    }

    /// What is to be mapped of the BARs of the [`Work::Decode`] that was begun.
    pub(super) fn mappings(&self) -> [Option<Mapping>; 7] {
        self.model.mappings()
    }

    /// Decoding was brought to what was wanted, or not.
    pub(super) fn decoded(&mut self, disabled: BarSet, outcome: Result<BarSet, ()>) {
        let model = &mut *self.model;
        // A panic has poisoned it; what is mapped was noted before.
        let _ran = shielded(&mut self.state, || match outcome {
            Ok(enabled) => model.decoded(disabled, enabled),
            Err(()) => model.not_decoded(disabled),
        });
    }

    /// Answers no more: reads ones, and begins nothing.
    pub(super) fn veil(&mut self) {
        self.state.begin(State::VEILED);
        self.interrupted = self.interrupted.with(self.queue.clear());
    }

    /// Is again what it was, and what it asks for is what it asked for before.
    fn unveil(&mut self) {
        self.state.end(State::VEILED);
        let all = core::mem::take(&mut self.interrupted);
        let all = all.and(Effect::Decode).and(Effect::Vectors).and(Effect::Intx);
        let all = all.and_if(self.model.is_bridge, Effect::Buses);
        // Whoever unveils it carries them out.
        let _asked = self.queue.ask(Asked::NOTHING, all);
    }

    /// The hardware is away, and is not to be touched any more.
    pub(super) fn lose_hardware(&mut self) {
        self.model.is_read_only = true;
    }

    /// Its guest sees it there.
    pub(super) fn see_at(&mut self, at: Sbdf) {
        self.seen_at = Some(at);
    }

    /// Where its guest has seen it last, if it was ever asked for anything.
    pub(super) fn seen_at(&self) -> Option<Sbdf> {
        self.seen_at
    }

    /// What was to be done for a vector could not be done.
    pub(super) fn vector_failed(&mut self, vector: u16, work: VectorWork) {
        self.model.interrupts.failed(vector, work);
    }

    /// The next vector that is routed, from a place on, and the place after it; from now on it is taken not to be.
    pub(super) fn unroute_next(&mut self, from: usize) -> Option<(u16, usize)> {
        let next = self.model.interrupts.unroute_next(from);
        self.tell_live();
        next
    }

    /// It is bound, and shares this with its binding.
    pub(super) fn join(&mut self, bond: Shared<Bond>) {
        self.bond = Some(bond);
        self.tell_live();
    }

    /// What it shares with its binding.
    pub(super) fn bond(&self) -> Option<Shared<Bond>> {
        self.bond.clone()
    }

    /// It is there again. Who carried out a reset of it may have ended without finding it.
    pub(super) fn come_back(&mut self) {
        // Acquire: pairs with `end_reset`.
        let is_over = |bond: &Shared<Bond>| !bond.is_resetting.load(Ordering::Acquire);
        if let Some(by) = self.executor.filter(|_| self.bond.as_ref().is_some_and(is_over)) {
            self.end(by);
        }
        self.unveil();
    }

    fn tell_live(&self) {
        if let Some(bond) = &self.bond {
            // Relaxed: see `Bond::live`.
            bond.live.store(self.model.interrupts.routed(), Ordering::Relaxed);
        }
    }

    /// Whether the pin was asserted; from now on it is taken not to be.
    pub(super) fn lower_pin(&mut self) -> bool {
        core::mem::take(&mut self.model.interrupts.intx.told) == Level::High
    }

    /// The pin could not be set to this level: it is as it was.
    pub(super) fn pin_failed(&mut self, level: Level) {
        self.model.interrupts.intx.told = if level == Level::High { Level::Low } else { Level::High };
    }

    /// The embedder has done its part of a reset, or not. Whether what is left is to be done now: not if this is another
    /// function by now, nor if its binding is at its end, since whoever ends it silences it.
    pub(super) fn begin_reset(&mut self, by: NonZeroUsize, is_done: bool) -> bool {
        let is_same = self.executor == Some(by) && core::mem::take(&mut self.is_marked);
        if !is_same || !is_done {
            return false;
        }
        let is_ending = self.state.is(State::VEILED);
        if is_ending {
            self.reset();
        }
        !is_ending
    }

    /// These are not mapped any more.
    pub(super) fn unmapped(&mut self, bars: BarSet) {
        let model = &mut *self.model;
        let _ran = shielded(&mut self.state, || model.unmapped(bars));
    }

    /// Every register is as after a reset, and it answers again, unless its binding is at its end.
    pub(super) fn reset(&mut self) {
        self.space.reset();
        let model = &mut *self.model;
        // What else of the outside was brought to the registers is brought to them again.
        let asked = Effects::default()
            .and_if(model.power.state() != PowerState::D0, Effect::Power)
            .and_if(model.command.is_master(), Effect::BusMaster)
            .and_if(model.is_bridge, Effect::Buses);
        model.command.reset();
        model.status = 0;
        model.bars.reset();
        model.interrupts.reset();
        model.power.reset();
        model.wishes = 0;
        model.buses = [0; 3];
        model.device_control = 0;
        model.virtual_functions = 0;
        self.queue.clear();
        self.interrupted = Effects::default();
        // Whoever resets it goes on to carry out what is asked for.
        let _asked = self.queue.ask(Asked::NOTHING, asked);
        let ran = shielded(&mut self.state, || {
            model.backing.reset();
            model.read_sizes();
            // Whoever has reset hardware may have put back what was there before.
            model.write_command();
        });
        self.state.end(State::RESETTING);
        if ran.is_some() {
            self.state.end(State::POISONED);
        }
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

/// Ends what nothing is to be done for, unless it is forgotten.
struct Unbegun<'a>(&'a mut Queue);

impl Drop for Unbegun<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Poisons a function, unless it is forgotten.
struct Poison<'a>(&'a mut State);

impl Drop for Poison<'_> {
    fn drop(&mut self) {
        self.0.begin(State::POISONED);
    }
}
