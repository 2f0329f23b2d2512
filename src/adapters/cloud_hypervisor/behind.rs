//! A `PciDevice` behind an endpoint.

use super::barriers::Barriers;
use super::shape::PciDevice;
use crate::adapters::Interrupts;
use crate::platform::Width;
use crate::vpci::{Backing, Signals};

/// BARs, and the ROM.
const ALL: usize = 7;

/// A `PciDevice` as the device behind an [`Endpoint`](crate::vpci::Endpoint): it answers for the BARs and the
/// vendor-specific capabilities. Header, BAR registers, MSI and MSI-X are the model's; its own it is not asked for, and
/// where the guest has put a BAR it is not told.
///
/// A barrier that a BAR write hands out becomes a wish ([`Barriers::WISH`]); the vCPU goes on when the embedder has met
/// it, outside the device's lock. One that a configuration write hands out is met by a thread, and the vCPU does not
/// wait for it.
#[derive(Debug)]
pub struct PciDeviceBacking<T> {
    device: T,
    bases: [u64; ALL],
    interrupts: Option<Interrupts>,
    barriers: Barriers,
    on_reset: Option<fn(&mut T)>,
}

impl<T: PciDevice> PciDeviceBacking<T> {
    /// This device, all of whose BARs have base 0.
    pub fn new(device: T) -> Self {
        Self { device, bases: [0; ALL], interrupts: None, barriers: Barriers::default(), on_reset: None }
    }

    /// The base it is called with for a BAR (6 is the ROM): what it has allocated.
    #[must_use]
    pub fn base(mut self, bar: u8, base: u64) -> Self {
        if let Some(place) = self.bases.get_mut(usize::from(bar)) {
            *place = base;
        }
        self
    }

    /// The line that it interrupts with: what was raised within a write is taken with the write.
    #[must_use]
    pub fn interrupts(mut self, line: Interrupts) -> Self {
        self.interrupts = Some(line);
        self
    }

    /// What a reset of the function does to it, of which its trait knows nothing.
    #[must_use]
    pub fn on_reset(mut self, reset: fn(&mut T)) -> Self {
        self.on_reset = Some(reset);
        self
    }

    /// The barriers that it hands out.
    pub fn barriers(&self) -> Barriers {
        self.barriers.clone()
    }

    fn base_of(&self, bar: u8) -> u64 {
        self.bases.get(usize::from(bar)).copied().unwrap_or_default()
    }
}

impl<T: PciDevice> Backing for PciDeviceBacking<T> {
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.device.read_bar(self.base_of(bar), offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>) {
        if let Some(barrier) = self.device.write_bar(self.base_of(bar), offset, data) {
            self.barriers.push(barrier);
            signals.wish(Barriers::WISH);
        }
        if let Some(line) = &self.interrupts {
            line.deliver(signals);
        }
    }

    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        let register = self.device.read_config_register(usize::from(offset / 4));
        let ones = u32::MAX >> (32 - 8 * width as u32);
        register >> (8 * (offset % 4)) & ones
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        let data = &bytes[..width as usize];
        let (_bars_are_the_models, barrier) =
            self.device.write_config_register(usize::from(offset / 4), (offset % 4).into(), data);
        if let Some(barrier) = barrier {
            let unheard = Barriers::default();
            unheard.push(barrier);
            unheard.abandon();
        }
    }

    fn reset(&mut self) {
        // The wish went with all others.
        self.barriers.abandon();
        if let Some(reset) = self.on_reset {
            reset(&mut self.device);
        }
    }
}

impl<T> Drop for PciDeviceBacking<T> {
    fn drop(&mut self) {
        self.barriers.abandon();
    }
}
