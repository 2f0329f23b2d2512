//! One function of the machine: its registers, its IOMMU entry, and what the platform knows of it.
//!
//! The same object serves an address that is only a requester ID (a phantom function, a bridge's alias): it has
//! an entry and no registers. What a transition touches is atomic and lies in one cache line, apart from its
//! neighbours'; what only tests set up is behind a mutex.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::iommu::Translation;
use super::policy::ResetSupport;
use super::registers::Registers;
use crate::address::Sbdf;
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
    pub(super) fn plug(&self, bytes: &[u8]) {
        self.present.store(false, Ordering::Relaxed);
        self.registers.get_or_init(Box::default).fill(bytes);
        self.present.store(true, Ordering::Release);
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

    pub(super) fn facts(&self) -> Facts {
        self.rare.get().map_or_else(Facts::default, |rare| super::locked(&rare.facts).clone())
    }

    pub(super) fn edit_facts(&self, edit: impl FnOnce(&mut Facts)) {
        edit(&mut super::locked(&self.rare.get_or_init(Box::default).facts));
    }

    /// Remembers that the entry of `requester` is changed through this device, which is at `device`.
    pub(super) fn touch(&self, device: Sbdf, requester: Sbdf) {
        let near = device.segment() == requester.segment()
            && device.bus() == requester.bus()
            && device.device() == requester.device();
        let bit = if near { 1 << requester.function() } else { ELSEWHERE };
        // Changes of one device come one after the other, and what was touched stays so: the bit is nearly always there.
        if self.touched.load(Ordering::Relaxed) & bit == 0 {
            self.touched.fetch_or(bit, Ordering::Relaxed);
        }
        if !near {
            let mut elsewhere = super::locked(&self.rare.get_or_init(Box::default).elsewhere);
            if !elsewhere.contains(&requester) {
                elsewhere.push(requester);
            }
        }
    }

    /// The functions of its own device number that were touched through it, a bit for each.
    pub(super) fn touched_here(&self) -> u8 {
        self.touched.load(Ordering::Relaxed).to_le_bytes()[0]
    }

    /// The other requester IDs that were touched through it.
    pub(super) fn touched_elsewhere(&self) -> Vec<Sbdf> {
        if self.touched.load(Ordering::Relaxed) & ELSEWHERE == 0 {
            return Vec::new();
        }
        self.rare.get().map_or_else(Vec::new, |rare| super::locked(&rare.elsewhere).clone())
    }
}
