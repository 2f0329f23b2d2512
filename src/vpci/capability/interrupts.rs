//! How a function interrupts: by its pin, or by messages.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::msi::Msi;
use super::msix::Msix;
use super::vector::Vectors;
use crate::vpci::function::{Effect, Effects, Reader, RestoreError};

/// A message-signalled interrupt: this value, written to this address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// Where it is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// The level of an interrupt pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Not asserted.
    #[default]
    Low,
    /// Asserted.
    High,
}

/// What becomes of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorWork {
    /// It is live from now on, and sends this; or it sends something else than before.
    Route(Message),
    /// It is masked, or switched off: nothing of it may be sent any more.
    Unroute,
    /// The device behind the model raised it: send this now, once.
    Send(Message),
}

/// The pin of a function.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vpci) struct Intx {
    /// The device wants it asserted.
    pub(in crate::vpci) is_pending: bool,
    /// The outside was told so.
    pub(in crate::vpci) told: Level,
}

/// All ways to interrupt that a function has.
#[derive(Debug, Default)]
pub(in crate::vpci) struct Interrupts {
    pub(in crate::vpci) intx: Intx,
    pub(in crate::vpci) msi: Option<Msi>,
    pub(in crate::vpci) msix: Option<Box<Msix>>,
}

impl Interrupts {
    /// MSI or MSI-X is on, so the pin is not used.
    pub(in crate::vpci) fn uses_messages(&self) -> bool {
        self.msi.as_ref().is_some_and(Msi::is_enabled)
            || self.msix.as_ref().is_some_and(|msix| msix.is_enabled())
    }

    /// The device raises a vector: it is sent if it is live, else it is pending.
    fn raise(&mut self, vector: u16) -> bool {
        match (&mut self.msix, &mut self.msi) {
            (Some(msix), _) if msix.is_enabled() => msix.raise(vector),
            (_, Some(msi)) if msi.is_enabled() => msi.raise(vector),
            _ => false,
        }
    }

    /// The next vector that no longer is as the outside knows it, and what becomes of it.
    pub(in crate::vpci) fn next_work(&mut self) -> Option<(u16, VectorWork)> {
        let msix = self.msix.as_mut().and_then(|msix| msix.next_work());
        msix.or_else(|| self.msi.as_mut().and_then(Msi::next_work))
    }

    /// The level the pin has now.
    pub(in crate::vpci) fn intx_level(&self, is_disabled: bool) -> Level {
        let is_high = self.intx.is_pending && !is_disabled && !self.uses_messages();
        if is_high { Level::High } else { Level::Low }
    }

    /// What was to be done for a vector could not be done: a route is not there, one that was to go still is.
    pub(in crate::vpci) fn failed(&mut self, vector: u16, work: VectorWork) {
        let is_routed = match work {
            VectorWork::Route(_) => false,
            VectorWork::Unroute => true,
            // Lost, as a message that nobody takes is.
            VectorWork::Send(_) => return,
        };
        if let Some(vectors) = self.live_vectors() {
            vectors.set_routed(vector, is_routed);
        }
    }

    /// The next vector that is routed; from now on it is taken not to be.
    pub(in crate::vpci) fn unroute_next(&mut self) -> Option<u16> {
        let msix = self.msix.as_mut().and_then(|msix| msix.vectors_mut().unroute_next());
        msix.or_else(|| self.msi.as_mut().and_then(|msi| msi.vectors_mut().unroute_next()))
    }

    /// How many vectors are routed.
    pub(in crate::vpci) fn routed(&self) -> usize {
        let msi = self.msi.as_ref().map_or(0, |msi| msi.vectors().routed());
        msi + self.msix.as_ref().map_or(0, |msix| msix.vectors().routed())
    }

    fn live_vectors(&mut self) -> Option<&mut Vectors> {
        match (&mut self.msix, &mut self.msi) {
            (Some(msix), None) => Some(msix.vectors_mut()),
            (Some(msix), Some(msi)) if !msi.is_enabled() => Some(msix.vectors_mut()),
            (_, msi) => msi.as_mut().map(Msi::vectors_mut),
        }
    }

    /// How many vectors MSI and MSI-X have; 0 for one that is not there.
    pub(in crate::vpci) fn counts(&self) -> (usize, usize) {
        let msi = self.msi.as_ref().map_or(0, |msi| msi.vectors().len());
        (msi, self.msix.as_ref().map_or(0, |msix| msix.vectors().len()))
    }

    /// Appends what a guest has programmed.
    pub(in crate::vpci) fn save(&self, state: &mut Vec<u8>) {
        if let Some(msi) = &self.msi {
            msi.save(state);
        }
        if let Some(msix) = &self.msix {
            msix.save(state);
        }
    }

    /// Takes it back.
    pub(in crate::vpci) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), RestoreError> {
        if let Some(msi) = &mut self.msi {
            msi.restore(from)?;
        }
        if let Some(msix) = &mut self.msix {
            msix.restore(from)?;
        }
        Ok(())
    }

    /// As after a reset: all off.
    pub(in crate::vpci) fn reset(&mut self) {
        self.intx.is_pending = false;
        if let Some(msi) = &mut self.msi {
            msi.reset();
        }
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }
}

/// What a device asks of the outside while the model calls it.
///
/// Nothing is done at once: each wish is an effect of the access under way, carried out when the lock is free.
#[derive(Debug)]
pub struct Signals<'a> {
    pub(in crate::vpci) interrupts: &'a mut Interrupts,
    pub(in crate::vpci) wishes: &'a mut u64,
    pub(in crate::vpci) effects: Effects,
}

impl<'a> Signals<'a> {
    pub(in crate::vpci) fn new(interrupts: &'a mut Interrupts, wishes: &'a mut u64) -> Self {
        Self { interrupts, wishes, effects: Effects::default() }
    }

    /// Raises a vector of MSI-X, or of MSI, whichever the guest has switched on. A masked one is pending; one that does
    /// not exist, or while neither is on, is nothing.
    pub fn raise(&mut self, vector: u16) {
        self.effects = self.effects.and_if(self.interrupts.raise(vector), Effect::Vectors);
    }

    /// Sets the pin.
    pub fn set_intx(&mut self, level: Level) {
        let is_high = level == Level::High;
        if self.interrupts.intx.is_pending != is_high {
            self.interrupts.intx.is_pending = is_high;
            self.effects = self.effects.and(Effect::Intx);
        }
    }

    /// Asks the embedder for something of his own: bit `wish` of what its wiring is given; bits beyond 63 are nothing.
    pub fn wish(&mut self, wish: u32) {
        if let Some(bit) = 1_u64.checked_shl(wish) {
            *self.wishes |= bit;
            self.effects = self.effects.and(Effect::Device);
        }
    }
}
