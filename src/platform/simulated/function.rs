//! One function of the machine: its registers, its IOMMU entry, and what the platform knows of it.
//!
//! The same object serves an address that is only a requester ID (a phantom function, a bridge's alias): it has
//! an entry and no registers. What a transition touches is atomic and lies in one cache line, apart from its
//! neighbours'; what only tests set up is behind a mutex.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::bar::BarBits;
use super::iommu::Translation;
use super::locked;
use super::places::or_new;
use super::policy::ResetSupport;
use super::registers::Registers;
use crate::address::Sbdf;
use crate::memory::{NoMemory, try_box};
use crate::platform::Facts;

/// Bit of `touched`: there are requester IDs outside the function's own device number.
const ELSEWHERE: u16 = 1 << 8;

/// A function, or the place where one could be.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Function {
    pub(super) translation: Translation,
    registers: OnceLock<Box<Registers>>,
    rare: OnceLock<Box<Rare>>,
    present: AtomicBool,
    pub(super) driver: AtomicBool,
    pub(super) msix_prepared: AtomicBool,
    reset_support: AtomicU8,
    /// The requester IDs whose entries were ever changed through this device: a bit for each function of its
    /// device number, and [`ELSEWHERE`].
    touched: AtomicU16,
    resets: AtomicU32,
}

/// What few functions have.
#[derive(Debug, Default)]
struct Rare {
    facts: Mutex<Facts>,
    elsewhere: Mutex<Vec<Sbdf>>,
}

impl Function {
    /// Its registers, while it is there.
    pub(super) fn registers(&self) -> Option<&Registers> {
        // Acquire: pairs with the Release of `plug`, which filled the registers.
        if self.present.load(Ordering::Acquire) {
            self.registers.get().map(|registers| &**registers)
        } else {
            None
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.present.load(Ordering::Relaxed)
    }

    /// Puts a function with these registers here, in place of whatever was.
    pub(super) fn plug(&self, bytes: &[u8], fixed: (&BarBits, &BarBits)) -> Result<(), NoMemory> {
        self.present.store(false, Ordering::Relaxed);
        or_new(&self.registers, Registers::try_new)?.fill(bytes, fixed)?;
        self.present.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn unplug(&self) {
        self.present.store(false, Ordering::Relaxed);
    }

    /// Whether it is there and may send requests.
    pub(super) fn masters(&self) -> bool {
        self.registers().is_some_and(Registers::masters)
    }

    /// Brings its registers to their initial state, if it is there.
    pub(super) fn reset(&self) {
        if let Some(registers) = self.registers() {
            registers.reset();
            self.resets.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    pub(super) fn reset_support(&self) -> ResetSupport {
        ResetSupport::from_bits(self.reset_support.load(Ordering::Relaxed))
    }

    pub(super) fn set_reset_support(&self, support: ResetSupport) {
        self.reset_support.store(support.bits(), Ordering::Relaxed);
    }

    pub(super) fn facts(&self) -> Result<Facts, NoMemory> {
        let Some(rare) = self.rare.get() else { return Ok(Facts::default()) };
        let facts = locked(&rare.facts);
        let mut aliases = Vec::new();
        aliases.try_reserve_exact(facts.aliases.len())?;
        aliases.extend_from_slice(&facts.aliases);
        Ok(Facts { aliases, ..*facts })
    }

    pub(super) fn edit_facts(&self, edit: impl FnOnce(&mut Facts)) -> Result<(), NoMemory> {
        edit(&mut locked(&self.rare()?.facts));
        Ok(())
    }

    /// Remembers that the entry of `requester` is about to be changed through this device, which is at `device`.
    pub(super) fn touch(&self, device: Sbdf, requester: Sbdf) -> Result<(), NoMemory> {
        if slot(device) == slot(requester) {
            self.mark(1 << requester.function());
            return Ok(());
        }
        let mut elsewhere = locked(&self.rare()?.elsewhere);
        if !elsewhere.contains(&requester) {
            elsewhere.try_reserve(1)?;
            elsewhere.push(requester);
        }
        self.mark(ELSEWHERE);
        Ok(())
    }

    /// What was touched stays so, and the bit is nearly always there.
    fn mark(&self, bit: u16) {
        if self.touched.load(Ordering::Relaxed) & bit == 0 {
            self.touched.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The functions of its own device number that were touched through it, a bit for each.
    pub(super) fn touched_here(&self) -> u8 {
        self.touched.load(Ordering::Relaxed).to_le_bytes()[0]
    }

    /// Calls `step` for each of the other requester IDs that were touched through it.
    pub(super) fn touched_elsewhere(&self, step: impl FnMut(Sbdf)) {
        if self.touched.load(Ordering::Relaxed) & ELSEWHERE == 0 {
            return;
        }
        if let Some(rare) = self.rare.get() {
            locked(&rare.elsewhere).iter().copied().for_each(step);
        }
    }

    fn rare(&self) -> Result<&Rare, NoMemory> {
        or_new(&self.rare, || try_box(Rare::default())).map(|rare| &**rare)
    }
}

/// What functions of one device number have in common.
const fn slot(function: Sbdf) -> (u32, u8, u8) {
    (function.segment().number(), function.bus().number(), function.device())
}
