//! The vectors of MSI and MSI-X: which are live, which are pending, and what the outside knows of them.

use alloc::vec::Vec;

use super::interrupts::{Message, VectorWork};
use crate::memory::NoMemory;
use crate::vpci::function::{Reader, RestoreError, save_message};

/// One vector.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vpci) struct Vector {
    pub(in crate::vpci) message: Message,
    pub(in crate::vpci) is_masked: bool,
    /// Raised while it could not be sent.
    pub(in crate::vpci) is_pending: bool,
    /// To be sent, once.
    is_due: bool,
    /// What the outside sends for it now.
    routed: Option<Message>,
}

/// A message that no guest can program: its address is no multiple of 4.
const UNKNOWN: Message = Message { address: 1, data: 0 };

/// All vectors of a function.
#[derive(Debug)]
pub(in crate::vpci) struct Vectors {
    all: Vec<Vector>,
    /// A bit for each that has to be looked at.
    changed: Vec<u64>,
    /// How many are routed.
    routed: usize,
}

impl Vectors {
    /// `count` of them, none live.
    pub(in crate::vpci) fn new(count: u16, is_masked: bool) -> Result<Self, NoMemory> {
        let (count, words) = (usize::from(count), usize::from(count).div_ceil(64));
        let (mut all, mut changed) = (Vec::new(), Vec::new());
        all.try_reserve_exact(count).map_err(NoMemory::from)?;
        changed.try_reserve_exact(words).map_err(NoMemory::from)?;
        all.resize(count, Vector { is_masked, ..Vector::default() });
        changed.resize(words, 0);
        Ok(Self { all, changed, routed: 0 })
    }

    pub(in crate::vpci) fn len(&self) -> usize {
        self.all.len()
    }

    pub(in crate::vpci) fn get(&self, vector: usize) -> Option<&Vector> {
        self.all.get(vector)
    }

    /// How many the outside sends.
    pub(in crate::vpci) fn routed(&self) -> usize {
        self.routed
    }

    /// Changes a vector, which is looked at afterwards.
    pub(in crate::vpci) fn change(&mut self, vector: usize, change: impl FnOnce(&mut Vector)) {
        if let Some(entry) = self.all.get_mut(vector) {
            change(entry);
            self.changed[vector / 64] |= 1 << (vector % 64);
        }
    }

    /// Changes all.
    pub(in crate::vpci) fn change_all(&mut self, change: impl Fn(usize, &mut Vector)) {
        (0..self.all.len()).for_each(|vector| self.change(vector, |entry| change(vector, entry)));
    }

    /// The device raises it. Whether there is something to be done.
    pub(in crate::vpci) fn raise(&mut self, vector: u16, is_live: bool) -> bool {
        self.change(vector.into(), |entry| {
            if is_live {
                entry.is_due = true;
            } else {
                entry.is_pending = true;
            }
        });
        is_live && usize::from(vector) < self.all.len()
    }

    /// What the outside is to do next; `live` says which vectors can be sent.
    pub(in crate::vpci) fn next_work(&mut self, live: impl Fn(&Vector) -> bool) -> Option<(u16, VectorWork)> {
        loop {
            let word = self.changed.iter().position(|word| *word != 0)?;
            let vector = word * 64 + self.changed[word].trailing_zeros() as usize;
            let entry = self.all.get_mut(vector)?;
            let number = u16::try_from(vector).unwrap_or(u16::MAX);
            let is_live = live(entry);
            let wanted = is_live.then_some(entry.message);
            if entry.routed != wanted {
                self.routed =
                    self.routed + usize::from(wanted.is_some()) - usize::from(entry.routed.is_some());
                entry.routed = wanted;
                return Some((number, wanted.map_or(VectorWork::Unroute, VectorWork::Route)));
            }
            if is_live {
                entry.is_due |= core::mem::take(&mut entry.is_pending);
            } else {
                entry.is_pending |= core::mem::take(&mut entry.is_due);
            }
            self.changed[word] &= !(1 << (vector % 64));
            if core::mem::take(&mut entry.is_due) {
                return Some((number, VectorWork::Send(entry.message)));
            }
        }
    }

    /// What the outside knows of it is not what it was told: it is routed still, to what nobody knows, or not at all.
    /// That is tried again when the vector changes.
    pub(in crate::vpci) fn set_routed(&mut self, vector: u16, is_routed: bool) {
        let vector = usize::from(vector);
        if let Some(entry) = self.all.get_mut(vector) {
            self.routed = self.routed + usize::from(is_routed) - usize::from(entry.routed.is_some());
            entry.routed = is_routed.then_some(UNKNOWN);
            self.changed[vector / 64] &= !(1 << (vector % 64));
        }
    }

    /// The first vector from this one on that is routed; from now on it is taken not to be, and is looked at again.
    pub(in crate::vpci) fn unroute_next(&mut self, from: usize) -> Option<u16> {
        let vector = (from..self.all.len()).find(|vector| self.all[*vector].routed.is_some())?;
        self.change(vector, |entry| entry.routed = None);
        self.routed -= 1;
        u16::try_from(vector).ok()
    }

    /// Appends what of each vector is state: 13 bytes.
    pub(in crate::vpci) fn save(&self, state: &mut Vec<u8>) {
        for entry in &self.all {
            save_message(state, entry.message);
            let is_pending = entry.is_pending || entry.is_due;
            state.push(u8::from(entry.is_masked) | u8::from(is_pending) << 1);
        }
    }

    /// Takes it back; each vector is looked at afterwards.
    pub(in crate::vpci) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), RestoreError> {
        for vector in 0..self.all.len() {
            let (message, [flags]) = (from.message()?, from.take()?);
            self.change(vector, |entry| {
                // No guest can program the two low bits.
                entry.message = Message { address: message.address & !3, ..message };
                (entry.is_masked, entry.is_pending) = (flags & 1 != 0, flags & 2 != 0);
            });
        }
        Ok(())
    }

    /// As after a reset.
    pub(in crate::vpci) fn reset(&mut self, is_masked: bool) {
        self.change_all(|_, entry| {
            let routed = entry.routed;
            *entry = Vector { is_masked, routed, ..Vector::default() };
        });
    }
}
