//! Assignable devices: the contract's rules, on a kernel, a store and a hypervisor in memory.

mod faults;
mod rules;

use std::sync::Arc;

use pcidevs::host::DriverName;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction};
use pcidevs::xen::assignable::{Afterwards, Assignable, AssignableError};
use pcidevs::xen::hypercall::Simulated;
use pcidevs::xen::memory::Server;
use pcidevs::xen::store::NodePath;
use pcidevs::{Owner, Sbdf};

use crate::fate::{Blow, Fate, Fated, FatedStore};
use crate::pciback::dump;

const ID: (u16, u16) = (0x8086, 0x10fb);

/// A machine with two network cards, one of which has its driver, and a bridge.
struct World {
    kernel: Fake,
    server: Server,
    xen: Arc<Simulated>,
    fate: Fate,
}

/// Everything that making a device assignable can change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    driver: Option<String>,
    has_slot: bool,
    owner: Option<Owner>,
    records: Vec<String>,
}

fn at(text: &str) -> Sbdf {
    text.parse().expect("an address")
}

/// With its driver, without one, and a bridge.
fn card() -> Sbdf {
    at("0000:03:00.0")
}

fn bare() -> Sbdf {
    at("0000:03:00.1")
}

fn bridge() -> Sbdf {
    at("0000:00:01.0")
}

impl World {
    fn new() -> Self {
        let (kernel, xen) = (Fake::new(), Arc::new(Simulated::new()));
        kernel.add_driver("igb", FakeDriver::of(ID));
        kernel.add_pciback(&[]);
        kernel.add(card(), FakeFunction::endpoint(ID, 1));
        kernel.add(bare(), FakeFunction::endpoint((0x1234, 0x5678), 2));
        kernel.add(bridge(), FakeFunction::bridge((0x1234, 0x0001), 3, 3));
        for device in [card(), bare(), bridge()] {
            xen.plug(device);
        }
        Self { kernel, server: Server::new(), xen, fate: Fate::default() }
    }

    /// One operation of a process that these blows befall.
    fn run<T>(
        &self,
        blows: &[(usize, Blow)],
        operation: impl FnOnce(&mut Assignable<'_, FatedStore>) -> Result<T, AssignableError>,
    ) -> Result<T, AssignableError> {
        self.kernel.restart();
        self.fate.expect(blows);
        self.fate.rules(&self.kernel);
        let mut store = FatedStore { inner: Box::new(self.server.connect()), fate: self.fate.clone() };
        let xen = Fated { inner: self.xen.clone(), fate: self.fate.clone() };
        let result = operation(&mut Assignable::new(&self.kernel, &xen, &mut store));
        self.kernel.behave();
        result
    }

    fn add(&self, device: Sbdf, name: Option<&str>) -> Result<(), AssignableError> {
        self.run(&[], |assignable| assignable.add(device, name)).map(|_| ())
    }

    fn remove(&self, device: Sbdf) -> Result<Option<DriverName>, AssignableError> {
        self.run(&[], |assignable| assignable.remove(device, Afterwards::Rebind))
    }

    fn revert(&self, device: Sbdf) -> Result<Option<DriverName>, AssignableError> {
        self.run(&[], |assignable| assignable.revert(device))
    }

    fn look(&self, device: Sbdf) -> Seen {
        let records = dump(&mut self.server.connect(), &NodePath::root()).expect("the store is there");
        Seen {
            driver: self.kernel.driver(device),
            has_slot: self.kernel.has_slot(device),
            owner: self.xen.owner(device),
            records,
        }
    }
}
