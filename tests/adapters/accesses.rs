//! Accesses of any size at any address: no panic, and the same as directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::Sbdf;
use pcidevs::adapters::cloud_hypervisor::{BusDevice as ChDevice, BusDeviceSync, GuestBus, PciDevice};
use pcidevs::adapters::vm_device::BusDevice;
use pcidevs::vpci::AddressRange;
use vm_device::bus::{Error, MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

use crate::devices::{self, Author};
use crate::guest::{ECAM, Guest, WINDOW, ecam, windows};
use crate::paths::{self, Path, Way};

fn with_nic() -> Guest {
    let guest = Guest::new();
    let at: Sbdf = "00:03.0".parse().unwrap();
    guest.plug(at, devices::build(Author::Us, &guest, at));
    guest
}

/// Numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        from[usize::try_from(self.next(from.len() as u64)).unwrap()]
    }
}

/// One access of any kind, mostly where something is; what it read.
fn access(numbers: &mut Numbers, path: &mut dyn Path) -> Vec<u8> {
    let function = ECAM + (3 << 15);
    let memory = [ECAM, function, function + 0x10, function + 0x40, 0xc000_0000, 0xc000_2000, 0xc010_0000];
    let edges = [ECAM - 4, ECAM + (2 << 20), *WINDOW.start(), *WINDOW.end(), 0, u64::MAX - 8];
    let ports = [0xcf8, 0xcf8, 0xcfc, 0x1000, 0x2000, 0xfff0];
    let length = usize::try_from(numbers.next(17)).unwrap();
    let length = if numbers.next(2) == 0 { length } else { 1 << numbers.next(4) };
    let mut data: Vec<u8> = (0..length).map(|_| u8::try_from(numbers.next(256)).unwrap()).collect();
    let place = if numbers.next(8) == 0 { numbers.pick(&edges) } else { numbers.pick(&memory) };
    let address = place.wrapping_add(numbers.next(0x20));
    let port = u16::try_from(numbers.pick(&ports) + numbers.next(0x10)).unwrap();
    let set = [
        (0x10_u32, 0xc000_0000),
        (0x18, 0xc010_0000),
        (0x1c, 0x2000),
        (4, 7),
        (4, 7),
        (4, 0),
        (0x40, 1 << 31),
    ];
    match numbers.next(6) {
        0 => path.load(address, &mut data),
        1 => path.store(address, &data),
        2 => path.port_in(port, &mut data),
        3 => path.port_out(port, &data),
        // What a driver would write.
        4 => {
            let (register, value) = set[usize::try_from(numbers.next(7)).unwrap()];
            path.port_out(0xcf8, &(0x8000_1800 | register).to_le_bytes());
            path.port_out(0xcfc, &u32::to_le_bytes(value));
        }
        // A configuration address that is likely to be one.
        _ => path.port_out(0xcf8, &(0x8000_1800 | u32::try_from(numbers.next(0x100)).unwrap()).to_le_bytes()),
    }
    data
}

#[test]
fn any_access_has_the_same_result_as_directly() {
    for way in [Way::VmDevice, Way::Buses] {
        let (one, other) = (with_nic(), with_nic());
        let (mut directly, mut adapted) = (paths::path(Way::Direct, &one), paths::path(way, &other));
        let (mut same, mut again) = (Numbers(0x9e37_79b9_7f4a_7c15), Numbers(0x9e37_79b9_7f4a_7c15));
        let mut is_something = 0;
        for step in 0..20_000 {
            let read = access(&mut same, &mut *directly);
            assert_eq!(read, access(&mut again, &mut *adapted), "{way:?}, step {step}");
            is_something += usize::from(read.iter().any(|byte| *byte != 0xff));
        }
        let story = one.wires.story();
        assert_eq!(story, other.wires.story(), "{way:?}");
        assert!(story.iter().any(|what| what.starts_with("map")), "BARs came and went: {story:?}");
        assert!(is_something > 1000);
    }
}

#[test]
fn what_a_manager_would_not_dispatch_is_no_harm_either() {
    let guest = with_nic();
    let device = BusDevice::new(guest.bus.clone()).unwrap();
    let shape = GuestBus::new(guest.bus.clone()).unwrap();
    let (mut ports, memory) = (Arc::new(shape.ports()), shape.memory());
    for length in 0..=16 {
        let (mut data, ones) = (vec![0; length], vec![0xff; length]);
        for (base, offset) in [(u16::MAX, 1), (u16::MAX, u16::MAX)] {
            DevicePio::pio_read(&device, PioAddress(base), offset, &mut data);
            assert_eq!(data, ones);
            DevicePio::pio_write(&device, PioAddress(base), offset, &data);
        }
        for (base, offset) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (0x1_0000, 0), (3, 0)] {
            data.fill(0);
            DeviceMmio::mmio_read(&device, MmioAddress(base), offset, &mut data);
            assert_eq!(data, ones);
            DeviceMmio::mmio_write(&device, MmioAddress(base), offset, &data);
            data.fill(0);
            ChDevice::read(&mut ports, base, offset, &mut data);
            assert_eq!(data, ones);
            assert!(ChDevice::write(&mut ports, base, offset, &data).is_none());
            data.fill(0);
            memory.read(base, offset, &mut data);
            assert_eq!(data, ones);
            assert!(memory.write(base, offset, &data).is_none());
        }
    }
}

#[test]
fn a_seat_takes_what_fits_its_registers_and_drops_the_rest() {
    let guest = with_nic();
    let shape = GuestBus::new(guest.bus.clone()).unwrap();
    let mut seat = shape.seat("00:03.0".parse().unwrap());
    for register in [1024, 1 << 14, usize::MAX / 4, usize::MAX] {
        assert_eq!(seat.read_config_register(register), u32::MAX);
        let (moved, barrier) = seat.write_config_register(register, 0, &[0; 4]);
        assert!(moved.is_empty() && barrier.is_none());
    }
    let bar = |seat: &mut dyn PciDevice| seat.read_config_register(4);
    for (offset, length) in [(0, 0), (0, 3), (0, 8), (1, 2), (3, 2), (1, 4), (4, 1), (u64::MAX, 4), (2, 4)] {
        let (_, barrier) = seat.write_config_register(4, offset, &vec![0xff; length]);
        assert!(barrier.is_none());
        assert_eq!(bar(&mut seat), 4, "{length} bytes at {offset}");
    }
    seat.write_config_register(4, 2, &[0x00, 0xc0]);
    assert_eq!(bar(&mut seat), 0xc000_0004);
    seat.write_config_register(4, 3, &[0xd0]);
    assert_eq!(bar(&mut seat), 0xd000_0004);
    let mut empty = shape.seat("00:04.0".parse().unwrap());
    assert_eq!(empty.read_config_register(0), u32::MAX);
}

/// Who has the ports and the memory that are not PCI's; what was written to its ports last.
#[derive(Default)]
struct Rest(AtomicU32);

impl DevicePio for Rest {
    fn pio_read(&self, base: PioAddress, offset: u16, data: &mut [u8]) {
        data.fill(u8::try_from(base.0 + offset - 0xcf0).unwrap());
    }

    fn pio_write(&self, base: PioAddress, offset: u16, data: &[u8]) {
        self.0.store(u32::from(base.0 + offset) << 8 | u32::from(data[0]), Ordering::Relaxed);
    }
}

impl DeviceMmio for Rest {
    fn mmio_read(&self, _: MmioAddress, _: u64, data: &mut [u8]) {
        data.fill(0x77);
    }

    fn mmio_write(&self, _: MmioAddress, _: u64, _: &[u8]) {}
}

#[test]
fn what_is_not_pcis_goes_elsewhere() {
    let guest = with_nic();
    let device = BusDevice::new(guest.bus.clone()).unwrap();
    let rest = Arc::new(Rest::default());
    let device = Arc::new(device.ports_elsewhere(rest.clone()).memory_elsewhere(rest.clone()));
    let mut manager = IoManager::new();
    let registered = device.register(&mut manager, &[ecam()], &windows()).unwrap();
    let mut byte = [0];
    manager.pio_read(PioAddress(0xcf9), &mut byte).unwrap();
    assert_eq!(byte, [9], "the reset port");
    manager.pio_write(PioAddress(0xcf9), &[6]).unwrap();
    assert_eq!(rest.0.load(Ordering::Relaxed), 0xcf906);
    manager.pio_read(PioAddress(0xcfc), &mut byte).unwrap();
    assert_eq!(byte, [0xff], "the data port is PCI's, selected or not");
    manager.mmio_read(MmioAddress(0xd000_0000), &mut byte).unwrap();
    assert_eq!(byte, [0x77], "a hole in the window");
    registered.deregister(&mut manager);
    assert!(manager.pio_read(PioAddress(0xcf8), &mut [0; 4]).is_err());
    assert!(manager.mmio_read(MmioAddress(ECAM), &mut [0; 4]).is_err());
}

#[test]
fn a_range_that_somebody_has_leaves_nothing_registered() {
    let guest = with_nic();
    let device = Arc::new(BusDevice::new(guest.bus.clone()).unwrap());
    let mut manager = IoManager::new();
    manager.register_pio(PioRange::new(PioAddress(0x2000), 1).unwrap(), Arc::<Rest>::default()).unwrap();
    let refused = device.register(&mut manager, &[ecam()], &windows());
    assert_eq!(refused.err(), Some(Error::DeviceOverlap));
    assert!(manager.mmio_device(MmioAddress(ECAM)).is_none());
    assert!(manager.pio_device(PioAddress(0xcf8)).is_none());
    let all = [AddressRange::memory(0..=u64::MAX), AddressRange::io(0..=u64::MAX)];
    manager.deregister_pio(PioAddress(0x2000)).unwrap();
    let registered = device.register(&mut manager, &[], &all).unwrap();
    manager.register_mmio(MmioRange::new(MmioAddress(5), 1).unwrap(), Arc::<Rest>::default()).unwrap_err();
    registered.deregister(&mut manager);
    manager.register_mmio(MmioRange::new(MmioAddress(5), 1).unwrap(), Arc::<Rest>::default()).unwrap();
}
