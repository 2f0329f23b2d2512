//! The ways of an access to a guest's devices: directly, and through the dispatch of other VMMs.

use std::sync::{Arc, Barrier, Mutex};

use pcidevs::Sbdf;
use pcidevs::adapters::cloud_hypervisor::{BusDeviceSync, GuestBus as ChBus, PciDevice};
use pcidevs::adapters::vm_device::BusDevice;
use pcidevs::address::Segment;
use pcidevs::vpci::{Function, Vcpu};
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};

use crate::guest::{ECAM, Guest, PORTS, WINDOW, Wires, ecam, windows};

/// One vCPU's accesses. What nobody has reads ones.
pub(crate) trait Path {
    fn load(&mut self, address: u64, data: &mut [u8]);
    fn store(&mut self, address: u64, data: &[u8]);
    fn port_in(&mut self, port: u16, data: &mut [u8]);
    fn port_out(&mut self, port: u16, data: &[u8]);
}

impl Path for Vcpu<Option<Function>, Wires> {
    fn load(&mut self, address: u64, data: &mut [u8]) {
        if !self.mmio_read(address, data) {
            data.fill(0xff);
        }
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        self.mmio_write(address, data).wait();
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        if !self.io_read(port, data) {
            data.fill(0xff);
        }
    }

    fn port_out(&mut self, port: u16, data: &[u8]) {
        self.io_write(port, data).wait();
    }
}

/// rust-vmm's.
impl Path for IoManager {
    fn load(&mut self, address: u64, data: &mut [u8]) {
        if self.mmio_read(MmioAddress(address), data).is_err() {
            data.fill(0xff);
        }
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        // Nobody has what is no window, as on hardware.
        let _nobody = self.mmio_write(MmioAddress(address), data);
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        if self.pio_read(PioAddress(port), data).is_err() {
            data.fill(0xff);
        }
    }

    fn port_out(&mut self, port: u16, data: &[u8]) {
        let _nobody = self.pio_write(PioAddress(port), data);
    }
}

/// A bus as Cloud Hypervisor has it: ranges, and who answers there.
#[derive(Default)]
struct Ranges(Vec<(u64, u64, Arc<dyn BusDeviceSync>)>);

impl Ranges {
    fn find(&self, address: u64) -> Option<(u64, u64, &dyn BusDeviceSync)> {
        let here = |(base, length, _): &&(u64, u64, _)| address.wrapping_sub(*base) < *length;
        let (base, _, device) = self.0.iter().find(here)?;
        Some((*base, address - base, &**device))
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((base, offset, device)) => device.read(base, offset, data),
            None => data.fill(0xff),
        }
    }

    /// Returns after the barrier, as its vCPU threads do.
    fn write(&self, address: u64, data: &[u8]) {
        let barrier = self.find(address).and_then(|(base, offset, device)| device.write(base, offset, data));
        wait(barrier);
    }
}

fn wait(barrier: Option<Arc<Barrier>>) {
    if let Some(barrier) = barrier {
        barrier.wait();
    }
}

/// Cloud Hypervisor's buses, with our windows on them.
pub(crate) struct Buses {
    ports: Ranges,
    memory: Ranges,
}

impl Path for Buses {
    fn load(&mut self, address: u64, data: &mut [u8]) {
        self.memory.read(address, data);
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        self.memory.write(address, data);
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) {
        self.ports.write(port.into(), data);
    }
}

/// Cloud Hypervisor's dispatch of configuration accesses, with a seat for each of 32 devices under a mutex of its own.
pub(crate) struct Seats {
    buses: Buses,
    places: Vec<Arc<Mutex<dyn PciDevice>>>,
    address: u32,
}

impl Seats {
    fn config_read(&self, device: u64, register: u64, offset: u64, data: &mut [u8]) {
        let Some(seat) = self.places.get(usize::try_from(device).unwrap()) else { return data.fill(0xff) };
        let value = seat.lock().unwrap().read_config_register(usize::try_from(register).unwrap());
        let bytes = value.to_le_bytes();
        data.copy_from_slice(&bytes[usize::try_from(offset).unwrap()..][..data.len()]);
    }

    fn config_write(&self, device: u64, register: u64, offset: u64, data: &[u8]) {
        let Some(seat) = self.places.get(usize::try_from(device).unwrap()) else { return };
        let (moved, barrier) =
            seat.lock().unwrap().write_config_register(usize::try_from(register).unwrap(), offset, data);
        assert!(moved.is_empty());
        // Its lock is free again.
        wait(barrier);
    }

    fn selected(&self) -> Option<(u64, u64)> {
        let address = u64::from(self.address);
        let is_ours = address >> 16 == 0x8000 && address & 0x700 == 0;
        is_ours.then_some((address >> 11 & 31, address >> 2 & 63))
    }
}

impl Path for Seats {
    fn load(&mut self, address: u64, data: &mut [u8]) {
        let within = address.wrapping_sub(ECAM);
        match data.len() {
            1 | 2 | 4 if within < 1 << 20 && within & 0x7000 == 0 => {
                self.config_read(within >> 15, within >> 2 & 0x3ff, within & 3, data);
            }
            8 if within < 1 << 20 && within & 0x7000 == 0 => {
                let (low, high) = data.split_at_mut(4);
                self.load(address, low);
                self.load(address + 4, high);
            }
            _ if within < 2 << 20 => data.fill(0xff),
            _ => self.buses.load(address, data),
        }
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        let within = address.wrapping_sub(ECAM);
        if within >= 2 << 20 {
            return self.buses.store(address, data);
        }
        if within < 1 << 20 && within & 0x7000 == 0 {
            self.config_write(within >> 15, within >> 2 & 0x3ff, within & 3, data);
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        match (port, self.selected()) {
            (0xcfc..=0xcff, Some((device, register))) => {
                self.config_read(device, register, u64::from(port) - 0xcfc, data);
            }
            (0xcf8..=0xcff, _) => data.fill(0xff),
            _ => self.buses.port_in(port, data),
        }
    }

    fn port_out(&mut self, port: u16, data: &[u8]) {
        match (port, self.selected()) {
            (0xcf8, _) => self.address = u32::from_le_bytes(data.try_into().unwrap()),
            (0xcfc..=0xcff, Some((device, register))) => {
                self.config_write(device, register, u64::from(port) - 0xcfc, data);
            }
            _ => self.buses.port_out(port, data),
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    VmDevice,
    Buses,
    Seats,
}

pub(crate) const ALL: [Way; 4] = [Way::Direct, Way::VmDevice, Way::Buses, Way::Seats];

pub(crate) fn manager(guest: &Guest) -> IoManager {
    let device = Arc::new(BusDevice::new(guest.bus.clone()).unwrap());
    let mut manager = IoManager::new();
    // It stays as long as the manager.
    let _registered = device.register(&mut manager, &[ecam()], &windows()).unwrap();
    manager
}

fn buses(bus: &ChBus<Option<Function>, Wires>) -> Buses {
    let (ports, memory): (Arc<dyn BusDeviceSync>, Arc<dyn BusDeviceSync>) =
        (Arc::new(bus.ports()), Arc::new(bus.memory()));
    let mut buses = Buses { ports: Ranges::default(), memory: Ranges::default() };
    for range in [0xcf8..=0xcff, PORTS] {
        buses.ports.0.push((*range.start(), range.end() - range.start() + 1, ports.clone()));
    }
    for range in [ECAM..=ECAM + ecam().size() - 1, WINDOW] {
        buses.memory.0.push((*range.start(), range.end() - range.start() + 1, memory.clone()));
    }
    buses
}

pub(crate) fn path(way: Way, guest: &Guest) -> Box<dyn Path> {
    let ch = || ChBus::new(guest.bus.clone()).unwrap();
    match way {
        Way::Direct => Box::new(guest.bus.vcpu()),
        Way::VmDevice => Box::new(manager(guest)),
        Way::Buses => Box::new(buses(&ch())),
        Way::Seats => {
            let bus = ch();
            let place = |device: u16| bus.seat(Sbdf::from_bdf(Segment::new(0), device << 3));
            let seat = |device| -> Arc<Mutex<dyn PciDevice>> { Arc::new(Mutex::new(place(device))) };
            Box::new(Seats { buses: buses(&bus), places: (0..32).map(seat).collect(), address: 0 })
        }
    }
}
