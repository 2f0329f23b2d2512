//! How a function interrupts: by its pin, or by messages.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::msi::Msi;
use super::msix::{self, Msix};
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
    /// Whose vector was worked on last.
    last: Messages,
}

/// Who has a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Messages {
    #[default]
    Msi,
    Msix,
}

impl Interrupts {
    /// MSI or MSI-X is on, so the pin is not used.
    pub(in crate::vpci) fn uses_messages(&self) -> bool {
        self.msi.as_ref().is_some_and(Msi::is_enabled) || self.uses_msix()
    }

    fn uses_msix(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.is_enabled())
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
        let uses_msix = self.uses_msix();
        // Both number their vectors from 0. While both are on (which PCIe 6.0 §7.7 leaves undefined) MSI-X counts; and
        // what the other had is taken back before this one gets it.
        let order = if uses_msix { [Messages::Msi, Messages::Msix] } else { [Messages::Msix, Messages::Msi] };
        order.into_iter().find_map(|messages| {
            self.last = messages;
            match messages {
                Messages::Msi => self.msi.as_mut().and_then(|msi| msi.next_work(!uses_msix)),
                Messages::Msix => self.msix.as_mut().and_then(|msix| msix.next_work()),
            }
        })
    }

    /// The level the pin has now.
    pub(in crate::vpci) fn intx_level(&self, is_disabled: bool) -> Level {
        let is_high = self.intx.is_pending && !is_disabled && !self.uses_messages();
        if is_high { Level::High } else { Level::Low }
    }

    /// What was to be done for the vector that was worked on last could not be done: a route is not there, one that was
    /// to go still is.
    pub(in crate::vpci) fn failed(&mut self, vector: u16, work: VectorWork) {
        let is_routed = match work {
            VectorWork::Route(_) => false,
            VectorWork::Unroute => true,
            // Lost, as a message that nobody takes is.
            VectorWork::Send(_) => return,
        };
        let vectors = match self.last {
            Messages::Msi => self.msi.as_mut().map(Msi::vectors_mut),
            Messages::Msix => self.msix.as_mut().map(|msix| msix.vectors_mut()),
        };
        if let Some(vectors) = vectors {
            vectors.set_routed(vector, is_routed);
        }
    }

    /// The next vector that is routed, from a place on, and the place after it; from now on it is taken not to be. Those
    /// of MSI-X are in the first places.
    pub(in crate::vpci) fn unroute_next(&mut self, from: usize) -> Option<(u16, usize)> {
        let behind = usize::from(msix::MOST);
        if let Some(vector) = self.msix.as_mut().and_then(|msix| msix.vectors_mut().unroute_next(from)) {
            self.last = Messages::Msix;
            return Some((vector, usize::from(vector) + 1));
        }
        let from = from.saturating_sub(behind);
        let vector = self.msi.as_mut().and_then(|msi| msi.vectors_mut().unroute_next(from))?;
        self.last = Messages::Msi;
        Some((vector, behind + usize::from(vector) + 1))
    }

    /// How many vectors are routed.
    pub(in crate::vpci) fn routed(&self) -> usize {
        let msi = self.msi.as_ref().map_or(0, |msi| msi.vectors().routed());
        msi + self.msix.as_ref().map_or(0, |msix| msix.vectors().routed())
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
