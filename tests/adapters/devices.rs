//! One device, as three VMMs would have it: memory whose first byte, when it is written, raises that vector, and whose
//! second, written with a byte, is activated by another thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier, Mutex};

use pcidevs::Sbdf;
use pcidevs::adapters::Interrupts;
use pcidevs::adapters::cloud_hypervisor::{BarReprogrammingParams, PciDevice, PciDeviceBacking};
use pcidevs::adapters::vm_device::{MmioBacking, Unlocked};
use pcidevs::platform::Width;
use pcidevs::vpci::{Backing, Bar, Endpoint, Function, MsixPlace, Signals};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::guest::Guest;

/// The base that devices of others are called with.
pub(crate) const BASE: u64 = 0x7000_0000;
/// A byte written here is activated.
pub(crate) const ACTIVATE: u64 = 1;

/// The device itself.
pub(crate) struct Nic {
    memory: Vec<u8>,
    /// Its register in configuration space.
    scratch: u32,
    line: Option<Interrupts>,
    activator: Option<Sender<Arc<Barrier>>>,
}

impl Nic {
    pub(crate) fn new() -> Self {
        Self { memory: vec![0; 0x4000], scratch: 0, line: None, activator: None }
    }

    pub(crate) fn interrupting(line: Interrupts) -> Self {
        Self { line: Some(line), ..Self::new() }
    }

    pub(crate) fn activated_by(activator: Sender<Arc<Barrier>>) -> Self {
        Self { activator: Some(activator), ..Self::new() }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&self.memory[usize::try_from(offset).unwrap()..][..data.len()]);
    }

    /// The vector that it raises.
    fn write(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        self.memory[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        match (offset, data) {
            (0, [vector]) => Some((*vector).into()),
            _ => None,
        }
    }

    fn write_and_trigger(&mut self, offset: u64, data: &[u8]) {
        if let (Some(vector), Some(line)) = (self.write(offset, data), &self.line) {
            line.raise(vector);
        }
    }

    fn activate(&self) -> Option<Arc<Barrier>> {
        let activator = self.activator.as_ref()?;
        let barrier = Arc::new(Barrier::new(2));
        activator.send(barrier.clone()).unwrap();
        Some(barrier)
    }
}

impl Backing for Nic {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn bar_write(&mut self, _: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>) {
        if let Some(vector) = self.write(offset, data) {
            signals.raise(vector);
        }
    }

    fn config_read(&mut self, offset: u16, _: Width) -> u32 {
        self.scratch >> (8 * (offset % 4))
    }
}

impl MutDeviceMmio for Nic {
    fn mmio_read(&mut self, base: MmioAddress, offset: u64, data: &mut [u8]) {
        assert_eq!(base, MmioAddress(BASE));
        self.read(offset, data);
    }

    fn mmio_write(&mut self, base: MmioAddress, offset: u64, data: &[u8]) {
        assert_eq!(base, MmioAddress(BASE));
        self.write_and_trigger(offset, data);
    }
}

impl PciDevice for Nic {
    fn write_config_register(
        &mut self,
        _: usize,
        offset: u64,
        data: &[u8],
    ) -> (Vec<BarReprogrammingParams>, Option<Arc<Barrier>>) {
        let mut bytes = self.scratch.to_le_bytes();
        bytes[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        self.scratch = u32::from_le_bytes(bytes);
        (Vec::new(), self.activate())
    }

    fn read_config_register(&mut self, _: usize) -> u32 {
        self.scratch
    }

    fn read_bar(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        assert_eq!(base, BASE);
        self.read(offset, data);
    }

    fn write_bar(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        assert_eq!(base, BASE);
        self.write_and_trigger(offset, data);
        if (offset, data.len()) == (ACTIVATE, 1) { self.activate() } else { None }
    }
}

/// 16 KiB of memory, all but the MSI-X table mapped directly, I/O ports, and a pin.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint::new(0x1af4, 0x1041)
        .class(0x02_0000)
        .bar(0, Bar::memory64(0x4000))
        .bar(2, Bar::memory32(0x1000).direct())
        .bar(3, Bar::io(0x20))
        .pin(1)
        .msix(3, MsixPlace { table_bar: 0, table: 0x2000, pending_bar: 0, pending: 0x3000 })
}

/// The line of a device that the guest sees at this address.
pub(crate) fn line(guest: &Guest, at: Sbdf) -> Interrupts {
    let bus = guest.bus.clone();
    Interrupts::new(move |line| {
        bus.signal(at, |signals| line.deliver(signals)).wait();
    })
}

/// Who wrote the device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Author {
    Us,
    VmDevice,
    VmDeviceLocked,
    CloudHypervisor,
}

pub(crate) const ALL: [Author; 4] =
    [Author::Us, Author::VmDevice, Author::VmDeviceLocked, Author::CloudHypervisor];

pub(crate) fn build(author: Author, guest: &Guest, at: Sbdf) -> Function {
    let line = line(guest, at);
    let nic = Nic::interrupting(line.clone());
    let base = MmioAddress(BASE);
    match author {
        Author::Us => endpoint().build(Nic::new()),
        Author::VmDevice => {
            let backing = (0..4).fold(MmioBacking::new(nic), |backing, bar| backing.base(bar, base));
            endpoint().build(backing.interrupts(line))
        }
        Author::VmDeviceLocked => {
            let backing = MmioBacking::new(Unlocked(Arc::new(Mutex::new(nic))));
            let backing = (0..4).fold(backing, |backing, bar| backing.base(bar, base));
            endpoint().build(backing.interrupts(line))
        }
        Author::CloudHypervisor => {
            let backing = (0..4).fold(PciDeviceBacking::new(nic), |backing, bar| backing.base(bar, BASE));
            endpoint().build(backing.interrupts(line))
        }
    }
    .unwrap()
}
