//! A device of `vm-device` behind an endpoint.

use vm_device::bus::MmioAddress;
use vm_device::{DeviceMmio, MutDeviceMmio};

use crate::adapters::Interrupts;
use crate::vpci::{Backing, Signals};

/// BARs, and the ROM.
const ALL: usize = 7;

/// A `MutDeviceMmio` as the device behind an [`Endpoint`](crate::vpci::Endpoint): it answers for the BARs, the model for
/// all else.
///
/// It needs no mutex around it: it is called under the device's lock, and by that rule (see [`Backing`]) it does not
/// wait. Which BAR an access is for it sees by the `base`, which is one of its own: it does not change when the guest
/// moves the BAR. One that is `DeviceMmio`, or shared with other threads, goes into [`Unlocked`].
///
/// ```
/// use pcidevs::adapters::vm_device::MmioBacking;
/// use pcidevs::vpci::{Bar, Endpoint};
/// use vm_device::{MutDeviceMmio, bus::{MmioAddress, MmioAddressOffset}};
/// struct Zeroes;
/// impl MutDeviceMmio for Zeroes {
///     fn mmio_read(&mut self, _: MmioAddress, _: MmioAddressOffset, data: &mut [u8]) { data.fill(0) }
///     fn mmio_write(&mut self, _: MmioAddress, _: MmioAddressOffset, _: &[u8]) {}
/// }
/// let device = MmioBacking::new(Zeroes).base(2, MmioAddress(0x1000));
/// let function = Endpoint::new(1, 2).bar(0, Bar::memory32(4096)).bar(2, Bar::memory32(4096)).build(device)?;
/// # let _ = function;
/// # Ok::<(), pcidevs::vpci::EndpointError>(())
/// ```
#[derive(Debug)]
pub struct MmioBacking<T> {
    device: T,
    bases: [MmioAddress; ALL],
    interrupts: Option<Interrupts>,
    on_reset: Option<fn(&mut T)>,
}

impl<T: MutDeviceMmio + Send> MmioBacking<T> {
    /// This device, all of whose BARs have base 0.
    pub const fn new(device: T) -> Self {
        Self { device, bases: [MmioAddress(0); ALL], interrupts: None, on_reset: None }
    }

    /// The base it is called with for a BAR (6 is the ROM).
    #[must_use]
    pub fn base(mut self, bar: u8, base: MmioAddress) -> Self {
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

    /// What a reset of the function does to it, of which its traits know nothing.
    #[must_use]
    pub fn on_reset(mut self, reset: fn(&mut T)) -> Self {
        self.on_reset = Some(reset);
        self
    }

    fn base_of(&self, bar: u8) -> MmioAddress {
        self.bases.get(usize::from(bar)).copied().unwrap_or(MmioAddress(0))
    }
}

impl<T: MutDeviceMmio + Send> Backing for MmioBacking<T> {
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.device.mmio_read(self.base_of(bar), offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>) {
        self.device.mmio_write(self.base_of(bar), offset, data);
        if let Some(line) = &self.interrupts {
            line.deliver(signals);
        }
    }

    fn reset(&mut self) {
        if let Some(reset) = self.on_reset {
            reset(&mut self.device);
        }
    }
}

/// A `DeviceMmio`, which locks by itself where it has to, as a `MutDeviceMmio`: an `Arc` that other threads have too.
#[derive(Clone, Debug)]
pub struct Unlocked<T>(pub T);

impl<T: DeviceMmio> MutDeviceMmio for Unlocked<T> {
    fn mmio_read(&mut self, base: MmioAddress, offset: u64, data: &mut [u8]) {
        self.0.mmio_read(base, offset, data);
    }

    fn mmio_write(&mut self, base: MmioAddress, offset: u64, data: &[u8]) {
        self.0.mmio_write(base, offset, data);
    }
}
