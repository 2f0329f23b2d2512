//! The devices of this VMM.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::vpci::{Backing, Bar, Endpoint, EndpointError, Function, MsixPlace, Signals};

pub(crate) const DOORBELL: [u16; 2] = [0x1b34, 0x0001];
pub(crate) const BYSTANDER: [u16; 2] = [0x1b34, 0x0002];

/// In bytes: registers and the MSI-X table; memory the guest reaches without an exit.
pub(crate) const REGISTERS: u32 = 0x2000;
pub(crate) const SCRATCH: u32 = 0x1000;
/// The slot of the BAR that is mapped directly.
pub(crate) const SCRATCH_BAR: u8 = 2;

/// Rung by any write to BAR 0, it raises vector 0. Counts, and can be read.
struct Doorbell {
    rings: u32,
    /// Functions that exist.
    alive: Arc<AtomicUsize>,
}

impl Backing for Doorbell {
    fn bar_read(&mut self, _: u8, _: u64, data: &mut [u8]) {
        data.iter_mut().zip(self.rings.to_le_bytes()).for_each(|(place, byte)| *place = byte);
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], signals: &mut Signals<'_>) {
        self.rings = self.rings.wrapping_add(1);
        signals.raise(0);
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Nothing to see, and nothing to do.
struct Bystander;

impl Backing for Bystander {
    fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {}

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

/// What a device is: how to make the function that a guest sees of it.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    /// Counts the functions that exist of it.
    Doorbell(Arc<AtomicUsize>),
    Bystander,
}

impl Model {
    pub(crate) fn build(&self) -> Result<Function, EndpointError> {
        match self {
            Self::Doorbell(alive) => {
                let [vendor, device] = DOORBELL;
                let place = MsixPlace { table_bar: 0, table: 0x1000, pending_bar: 0, pending: 0x1800 };
                alive.fetch_add(1, Ordering::SeqCst);
                Endpoint::new(vendor, device)
                    .bar(0, Bar::memory64(REGISTERS.into()))
                    .bar(SCRATCH_BAR, Bar::memory32(SCRATCH).prefetchable().direct())
                    .power_management()
                    .msix(2, place)
                    .function_level_reset()
                    .build(Doorbell { rings: 0, alive: alive.clone() })
            }
            Self::Bystander => {
                let [vendor, device] = BYSTANDER;
                Endpoint::new(vendor, device).build(Bystander)
            }
        }
    }
}
