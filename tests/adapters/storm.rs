//! Several vCPUs through one adapter, while a device comes and goes under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::Sbdf;
use pcidevs::adapters::cloud_hypervisor::{BusDeviceSync, GuestBus};
use pcidevs::adapters::vm_device::BusDevice;
use pcidevs::platform::Width;
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use crate::devices::{self, Author};
use crate::guest::{ECAM, Guest};

const FUNCTION: u64 = ECAM + (3 << 15);
const BAR: u64 = 0xc000_0000;
const LIVES: u32 = 100;

/// Reads by any dispatch, with `&self`.
type Load = Box<dyn Fn(u64, &mut [u8]) + Send + Sync>;
/// Writes, and returns when it has taken effect.
type Store = Box<dyn Fn(u64, &[u8]) + Send + Sync>;

fn storm(guest: &Guest, load: &Load, store: &Store) {
    let at: Sbdf = "00:03.0".parse().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let (mut ids, mut memory) = ([0; 4], [0; 4]);
                    load(FUNCTION, &mut ids);
                    assert!([0x1041_1af4, u32::MAX].contains(&u32::from_le_bytes(ids)));
                    load(BAR + 0x800, &mut memory);
                    assert!([0, 0x1234_5678, u32::MAX].contains(&u32::from_le_bytes(memory)), "{memory:x?}");
                    store(BAR + 0x800, &0x1234_5678_u32.to_le_bytes());
                    store(FUNCTION + 4, &[7, 0]);
                    store(FUNCTION + 4, &[6, 0]);
                }
            });
        }
        for _ in 0..LIVES {
            let own = guest.plug(at, devices::build(Author::VmDevice, guest, at));
            store(FUNCTION + 0x10, &u32::try_from(BAR).unwrap().to_le_bytes());
            store(FUNCTION + 4, &[6, 0]);
            store(BAR + 0x800, &[0x78, 0x56, 0x34, 0x12]);
            guest.unplug(own);
            assert_eq!(guest.bus.config_read(at, 0, Width::Dword), u32::MAX);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn vcpus_of_an_io_manager_read_the_device_or_ones() {
    let guest = Guest::new();
    let device = Arc::new(BusDevice::new(guest.bus.clone()).unwrap());
    let other = device.clone();
    let load: Load = Box::new(move |address, data| device.mmio_read(MmioAddress(address), 0, data));
    let store: Store = Box::new(move |address, data| other.mmio_write(MmioAddress(address), 0, data));
    storm(&guest, &load, &store);
}

#[test]
fn vcpus_of_cloud_hypervisors_shape_read_the_device_or_ones() {
    let guest = Guest::new();
    let memory = Arc::new(GuestBus::new(guest.bus.clone()).unwrap().memory());
    let other = memory.clone();
    let load: Load = Box::new(move |address, data| memory.read(address, 0, data));
    let store: Store = Box::new(move |address, data| {
        if let Some(barrier) = other.write(address, 0, data) {
            barrier.wait();
        }
    });
    storm(&guest, &load, &store);
}
