//! The device that every strategy keeps: registers, and a witness of its destruction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pcidevs::Sbdf;
use pcidevs::address::Segment;

/// Registers of a device.
pub(crate) const REGISTERS: usize = 30;

/// The register that reads read.
pub(crate) const REGISTER: usize = 3;

/// What a read returns where no device is.
pub(crate) const ONES: u32 = u32::MAX;

/// 128 bytes, the same for every strategy.
///
/// The registers are atomics so that a strategy whose lock hands out shared references can write them, too. The
/// accesses are relaxed, which on the machines measured is the same instruction as a plain one.
pub(crate) struct Device {
    registers: [AtomicU32; REGISTERS],
    witness: Option<Witness>,
}

/// Counts the destructors that have run.
pub(crate) type Witness = Arc<AtomicUsize>;

impl Device {
    /// A device whose registers hold what [`expected`] says.
    pub(crate) fn at(address: Sbdf) -> Self {
        Self {
            registers: [const { AtomicU32::new(0) }; REGISTERS].map(|_| expected(address).into()),
            witness: None,
        }
    }

    /// The same, and its destructor counts itself.
    #[allow(dead_code, reason = "the tests of the promises watch destructors")]
    pub(crate) fn witnessed(address: Sbdf, witness: &Witness) -> Self {
        let mut device = Self::at(address);
        device.witness = Some(witness.clone());
        device
    }

    #[inline]
    pub(crate) fn read(&self, register: usize) -> u32 {
        self.registers[register].load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn write(&self, register: usize, value: u32) {
        self.registers[register].store(value, Ordering::Relaxed);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(witness) = self.witness.take() {
            witness.fetch_add(1, Ordering::Release);
        }
    }
}

/// What every register of the device at this address holds at first.
pub(crate) fn expected(address: Sbdf) -> u32 {
    u32::from(address.bdf())
}

/// The lowest `n` addresses of segment 0: whole buses, all functions.
pub(crate) fn addresses(n: usize) -> Vec<Sbdf> {
    (0..=u16::MAX).take(n).map(|bdf| Sbdf::from_bdf(Segment::new(0), bdf)).collect()
}
