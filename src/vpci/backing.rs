//! What is behind a model: a device that is all software, or hardware.

use super::capability::Signals;
use super::registers::all_bits;
use crate::platform::Width;

/// A device, as its model calls it: an embedder's struct, or a way to hardware.
///
/// Every method is called under the device's lock: it is bounded, does not wait, and does not call the registry or the
/// bus. What it wants of the outside it says through [`Signals`]; that is carried out once the lock is free.
/// A panic poisons this device only: from then on it reads ones.
///
/// ```
/// use pcidevs::vpci::{Backing, Signals};
/// /// Counts, and interrupts at every write.
/// struct Doorbell { rings: u32 }
/// impl Backing for Doorbell {
///     fn bar_read(&mut self, _bar: u8, _offset: u64, data: &mut [u8]) {
///         data.fill(0);
///         data[0] = self.rings as u8;
///     }
///     fn bar_write(&mut self, _bar: u8, _offset: u64, _data: &[u8], signals: &mut Signals<'_>) {
///         self.rings += 1;
///         signals.raise(0);
///     }
/// }
/// ```
pub trait Backing: Send {
    /// Reads from a BAR (6 is the ROM): 1 to 8 bytes, `offset` bytes from its start and within it. `data` holds ones,
    /// and what is left of them the guest reads.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes to a BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>);

    /// Reads configuration space: of hardware all that the model passes through, of a software device the registers
    /// that it added itself. `offset` is aligned. Ones, if there is nothing.
    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        let _ = offset;
        all_bits(width)
    }

    /// Writes configuration space.
    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        let _ = (offset, width, value);
    }

    /// The function was reset: back to the beginning.
    fn reset(&mut self) {}

    /// What the device itself has to remember across a save and a restore, added to `state`.
    fn save(&self, state: &mut alloc::vec::Vec<u8>) {
        let _ = state;
    }

    /// Takes back what [`save`](Self::save) wrote; `false` if it is not this device's.
    fn restore(&mut self, state: &[u8]) -> bool {
        state.is_empty()
    }
}
