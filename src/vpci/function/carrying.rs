//! A function as those know it who carry out its effects, reset it, and end its binding.
//!
//! # Invariants
//!
//! `executor` is the thread that carries out what the queue says is running, and only it ends that. While the embedder
//! does its part of a reset (`is_marked`) the function may be taken away, come back, or be another one when it ends.

use core::num::NonZeroUsize;

use super::effect::{Asked, Effect, Effects, Queue};
use super::silence::{State, shielded};
use super::{BarSet, Function, Mapping, Work};
use crate::address::Sbdf;
use crate::memory::Shared;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::vpci::capability::{Level, PowerState, VectorWork};

/// What a function and its binding share, for whoever is not under the lock.
#[derive(Debug)]
pub(in crate::vpci) struct Bond {
    /// How many vectors are routed.
    live: AtomicUsize,
    /// The embedder carries out a reset: the one effect during which the function can be taken away, and come
    /// back when who carries it out has ended.
    is_resetting: AtomicBool,
}

impl Bond {
    pub(in crate::vpci) fn new() -> Self {
        Self { live: AtomicUsize::new(0), is_resetting: AtomicBool::new(false) }
    }

    pub(in crate::vpci) fn live(&self) -> usize {
        // Relaxed: a figure for lists, and who relies on it has the device's lock as who stored it had.
        self.live.load(Ordering::Relaxed)
    }

    /// The embedder's part of a reset is over, whether the function is there or not.
    pub(in crate::vpci) fn end_reset(&self) {
        // Release: pairs with the look of `come_back`. The device's lock orders the two, too: who ends looks for the
        // function under it afterwards, and who brings it back looks at this afterwards.
        self.is_resetting.store(false, Ordering::Release);
    }
}

impl Function {
    /// The next thing to be done outside the lock, by this thread, unless somebody is at it. What became of it goes to
    /// [`end`](Self::end).
    pub(in crate::vpci) fn begin(&mut self, by: NonZeroUsize) -> Option<Work> {
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
    pub(in crate::vpci) fn more(&mut self, by: NonZeroUsize) -> Option<Work> {
        if self.executor != Some(by) || self.queue.running()? != Effect::Vectors || self.state.is_held() {
            return None;
        }
        self.model.work(Effect::Vectors)
    }

    /// What this thread has begun has ended. It may have been of another function: a reset can make a new one.
    pub(in crate::vpci) fn end(&mut self, by: NonZeroUsize) {
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

    /// Whether this thread carries out an effect of it.
    pub(in crate::vpci) fn is_carried_out_by(&self, thread: NonZeroUsize) -> bool {
        self.executor == Some(thread)
    }

    /// Whether an effect is being carried out that whoever ends the binding has to wait for. The embedder's part of a
    /// reset is none: it may be what ends it.
    pub(in crate::vpci) fn is_in_the_way(&self) -> bool {
        self.executor.is_some() && !self.is_marked
    }

    /// What is to be mapped of the BARs of the [`Work::Decode`] that was begun.
    pub(in crate::vpci) fn mappings(&self) -> [Option<Mapping>; 7] {
        self.model.mappings()
    }

    /// Which BARs are being mapped.
    pub(in crate::vpci) fn coming(&self) -> BarSet {
        self.model.bars.coming
    }

    /// Decoding was brought to what was wanted, or not.
    pub(in crate::vpci) fn decoded(&mut self, disabled: BarSet, outcome: Result<BarSet, ()>) {
        let model = &mut *self.model;
        // A panic has poisoned it; what is mapped was noted before.
        let _ran = shielded(&mut self.state, || match outcome {
            Ok(enabled) => model.decoded(disabled, enabled),
            Err(()) => model.not_decoded(disabled),
        });
    }

    /// Answers no more: reads ones, and begins nothing.
    pub(in crate::vpci) fn veil(&mut self) {
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

    /// Whether it has bus numbers.
    pub(in crate::vpci) fn is_port(&self) -> bool {
        self.model.is_bridge
    }

    /// The hardware is away, and is not to be touched any more.
    pub(in crate::vpci) fn lose_hardware(&mut self) {
        self.model.is_read_only = true;
    }

    /// Its guest sees it there.
    pub(in crate::vpci) fn see_at(&mut self, at: Sbdf) {
        self.seen_at = Some(at);
    }

    /// Where its guest has seen it last, if it was ever asked for anything.
    pub(in crate::vpci) fn seen_at(&self) -> Option<Sbdf> {
        self.seen_at
    }

    /// What was to be done for a vector could not be done.
    pub(in crate::vpci) fn vector_failed(&mut self, vector: u16, work: VectorWork) {
        self.model.interrupts.failed(vector, work);
    }

    /// The next vector that is routed, from a place on, and the place after it; from now on it is taken not to be.
    pub(in crate::vpci) fn unroute_next(&mut self, from: usize) -> Option<(u16, usize)> {
        let next = self.model.interrupts.unroute_next(from);
        self.tell_live();
        next
    }

    /// It is bound, and shares this with its binding.
    pub(in crate::vpci) fn join(&mut self, bond: Shared<Bond>) {
        self.bond = Some(bond);
        self.tell_live();
    }

    /// What it shares with its binding.
    pub(in crate::vpci) fn bond(&self) -> Option<Shared<Bond>> {
        self.bond.clone()
    }

    /// It is there again. Who carried out a reset of it may have ended without finding it.
    pub(in crate::vpci) fn come_back(&mut self) {
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
    pub(in crate::vpci) fn lower_pin(&mut self) -> bool {
        core::mem::take(&mut self.model.interrupts.intx.told) == Level::High
    }

    /// The pin could not be set to this level: it is as it was.
    pub(in crate::vpci) fn pin_failed(&mut self, level: Level) {
        self.model.interrupts.intx.told = if level == Level::High { Level::Low } else { Level::High };
    }

    /// The embedder has done its part of a reset, or not. Whether what is left is to be done now: not if this is another
    /// function by now, nor if its binding is at its end, since whoever ends it silences it.
    pub(in crate::vpci) fn begin_reset(&mut self, by: NonZeroUsize, is_done: bool) -> bool {
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
    pub(in crate::vpci) fn unmapped(&mut self, bars: BarSet) {
        let model = &mut *self.model;
        let _ran = shielded(&mut self.state, || model.unmapped(bars));
    }

    /// Every register is as after a reset, and it answers again, unless its binding is at its end.
    pub(in crate::vpci) fn reset(&mut self) {
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

/// Ends what nothing is to be done for, unless it is forgotten.
struct Unbegun<'a>(&'a mut Queue);

impl Drop for Unbegun<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
