//! The tool stack as a whole: exports as transitions of the engine, on a kernel, a store and a hypervisor in memory; and
//! on the real store, where that is.

mod exports;
mod faults;
mod guests;
mod lives;
mod round_trips;

use std::sync::Arc;
use std::time::Duration;

use pcidevs::host::Root;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction};
use pcidevs::xen::hypercall::{DomainInfo, Holdings, Simulated};
use pcidevs::xen::manager::{Attached, Waiting, XenError, XenManager};
use pcidevs::xen::memory::{Clock, Limits, Server};
use pcidevs::xen::pciback::{Export, Patience};
use pcidevs::xen::store::{NodePath, Store};
use pcidevs::{DomainId, Owner, Sbdf};

use crate::fate::{Blow, Fate, Fated, FatedStore};
use crate::pciback::dump;
use crate::stores::World;

const ID: (u16, u16) = (0x8086, 0x10fb);
const GUEST: DomainId = DomainId::new(7);
const OTHER: DomainId = DomainId::new(8);
/// How many functions the machine has that can be given away.
const FUNCTIONS: u8 = 8;

fn device(function: u8) -> Sbdf {
    format!("0000:03:00.{function}").parse().expect("an address")
}

fn set(functions: impl IntoIterator<Item = u8>) -> Vec<Export> {
    functions.into_iter().map(|function| Export::of(device(function))).collect()
}

/// A card of eight functions, and what they are used by.
struct Machine {
    kernel: Fake,
    xen: Arc<Simulated>,
    fate: Fate,
    store: World,
}

/// All that giving a device to a guest can change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    drivers: Vec<Option<String>>,
    owners: Vec<Option<Owner>>,
    holdings: Vec<Holdings>,
    store: Vec<String>,
}

impl Machine {
    /// In memory, where waiting takes no time.
    fn new() -> Self {
        Self::on(World::Memory(Server::with(Limits::default(), Clock::Simulated)))
    }

    fn on(store: World) -> Self {
        let (kernel, xen) = (Fake::new(), Arc::new(Simulated::new()));
        kernel.add_driver("igb", FakeDriver::of(ID));
        kernel.add_pciback(&[]);
        for function in 0..FUNCTIONS {
            let at = device(function);
            kernel.add(at, FakeFunction::endpoint(ID, 1));
            let memory = 0xfe00_0000 + u64::from(function) * 0x2000;
            let ports = 0xc000 + u64::from(function) * 0x20;
            let lines = [
                format!("{memory:#018x} {:#018x} 0x0000000000040200", memory + 0x1fff),
                format!("{:#018x} {:#018x} 0x0000000000000000", 0, 0),
                format!("{ports:#018x} {:#018x} 0x0000000000040101", ports + 0x1f),
            ];
            kernel.put_file(Root::Sys, &format!("bus/pci/devices/{at}/resource"), lines.join("\n") + "\n");
            // Two functions to a line, as boards have it.
            let line = 16 + function / 2;
            kernel.put_file(Root::Sys, &format!("bus/pci/devices/{at}/irq"), format!("{line}\n"));
            xen.plug(at);
        }
        xen.create(DomainInfo::guest(GUEST));
        xen.create(DomainInfo::guest(OTHER));
        Self { kernel, xen, fate: Fate::default(), store }
    }

    /// With so many functions on pciback.
    fn with_assignable(self, functions: u8) -> Result<Self, XenError> {
        let manager = self.open()?;
        for function in 0..functions {
            manager.assignable_add(device(function), None)?;
        }
        Ok(self)
    }

    /// A tool stack, as a process that begins.
    fn open(&self) -> Result<XenManager, XenError> {
        self.open_with(Patience::default())
    }

    fn open_with(&self, patience: Patience) -> Result<XenManager, XenError> {
        let (connect, fate) = (self.store.connector(), self.fate.clone());
        let connect = move || {
            let inner = connect()?;
            Ok(Box::new(FatedStore { inner, fate: fate.clone() }) as Box<dyn Store + Send>)
        };
        let xen = Arc::new(Fated { inner: self.xen.clone(), fate: self.fate.clone() });
        self.kernel.restart();
        XenManager::open_with(self.kernel.clone().into(), xen, Box::new(connect), patience)
    }

    /// What befalls the writes from here on.
    fn expect(&self, blows: &[(usize, Blow)]) {
        self.fate.expect(blows);
        self.fate.rules(&self.kernel);
    }

    fn look(&self) -> Seen {
        let all = || (0..FUNCTIONS).map(device);
        Seen {
            drivers: all().map(|device| self.kernel.driver(device)).collect(),
            owners: all().map(|device| self.xen.owner(device)).collect(),
            holdings: [GUEST, OTHER].map(|guest| self.xen.holdings(guest)).to_vec(),
            store: dump(&mut *self.store.connect(), &NodePath::root()).expect("the store is there"),
        }
    }

    /// What of the store is about PCI.
    fn left(&self) -> Vec<String> {
        let lines = self.look().store;
        let about = |line: &String| line.contains("pci") && !line.contains("/libxl/pci/");
        lines.into_iter().filter(|line| about(line) || line.contains("/domid")).collect()
    }

    /// Plays driver and front end of the first attach: both at rest, every device taken.
    fn come_to_rest(&self, devices: u8) -> Result<(), Box<dyn std::error::Error>> {
        Ok(crate::pciback::come_to_rest(&mut *self.store.connect(), devices)?)
    }

    fn write(&self, node: &str, value: &str) -> Result<(), Box<dyn std::error::Error>> {
        self.store.connect().write(None, &NodePath::new(node)?, value.as_bytes())?;
        Ok(())
    }
}

fn attach(manager: &XenManager, functions: &[u8]) -> Result<Attached, XenError> {
    manager.attach(GUEST, &set(functions.iter().copied()), Waiting::No)
}

/// A machine under load is slow, and nobody is ever stuck.
fn long() -> Patience {
    Patience { rest: Duration::from_mins(2), attempts: 1000 }
}

const BACKEND: &str = "/local/domain/0/backend/pci/7/0";
const FRONTEND: &str = "/local/domain/7/device/pci/0";
