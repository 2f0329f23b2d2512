//! The contract of references, removal and moves, rule by rule, on one thread where one will do.
//!
//! Each test is named after the rule it holds the core to. The races between threads are loom models
//! (`loom-tests/`); what happens without memory is in `tests/memory.rs`.

mod moves;
mod published;
mod references;
mod removal;
mod surprise;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::{DomainId, Owner, Registry, Sbdf};

/// A device that counts its destructor's runs.
struct Device {
    destroyed: Arc<AtomicUsize>,
    register: u32,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.destroyed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A registry, and how many of its devices were destroyed.
struct Machine {
    registry: Registry<Device>,
    destroyed: Arc<AtomicUsize>,
}

impl Machine {
    /// Devices at these addresses, the register of each its place in the list.
    fn with(addresses: &[Sbdf]) -> Self {
        let machine = Self { registry: Registry::new().unwrap(), destroyed: Arc::default() };
        for (address, register) in addresses.iter().zip(0..) {
            machine.registry.add(*address, machine.device(register)).unwrap();
        }
        machine
    }

    fn device(&self, register: u32) -> Device {
        Device { destroyed: Arc::clone(&self.destroyed), register }
    }

    fn destroyed(&self) -> usize {
        self.destroyed.load(Ordering::SeqCst)
    }

    /// On which of the usual lists a device is.
    fn lists(&self, address: Sbdf) -> Vec<Owner> {
        let owners =
            [Owner::Host, Owner::Quarantine, Owner::Hidden, Owner::Guest(GUEST), Owner::Guest(OTHER)];
        let on = |owner: &Owner| {
            let devices = self.registry.devices_of(*owner).unwrap();
            devices.is_some_and(|devices| devices.iter().any(|device| device.address() == address))
        };
        owners.into_iter().filter(on).collect()
    }
}

const GUEST: DomainId = DomainId::new(1);
const OTHER: DomainId = DomainId::new(2);

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

const NIC: Sbdf = Sbdf::from_u32(0x0300);
const DISK: Sbdf = Sbdf::from_u32(0x0400);
const GPU: Sbdf = Sbdf::from_u32(0x8100);
