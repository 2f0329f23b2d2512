//! A kernel in memory: sysfs, VFIO's files and a disk, with the real kernel's rules and errors.
//!
//! For tests of the manager, of embedders, and of the rules themselves: the suite that pins these rules down asks
//! nothing but [`Kernel`], so it can be run on a real machine as well. Devices are made with [`Fake::add`], drivers with
//! [`Fake::add_driver`]; [`Fake::open_device`] is a guest that has a device open. [`Fake::on_write`] makes writes fail, or
//! ends the process at one: from there on nothing that it writes has any effect, until [`Fake::restart`].
//!
//! | file | what |
//! |---|---|
//! | `function` | functions and drivers, as a test describes them |
//! | `binding` | probing, binding, unbinding, virtual functions, resets |
//! | `files` | which file is which |
//! | `pciback` | xen-pciback and its lists |
//! | `script` | writes that fail, crashes, and what was written |
//! | `network` | interfaces, and what they keep of virtual functions |
//! | `disk` | the store |
//! | `copy` | a copy of a real machine, to try things on |

mod binding;
mod copy;
mod disk;
mod files;
mod function;
mod network;
mod pciback;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

pub use function::{FakeDriver, FakeFunction};
pub use script::Mishap;

use super::book::locked;
use super::kernel::{Kernel, Root};
use crate::Sbdf;
use crate::errno::Errno;
use function::Function;
use script::Script;

/// Which kernel it behaves like, where they differ: what blocks beside an unbind that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Release {
    /// Also `driver_override`, to be read and written.
    V6_1,
    /// Resets, a second unbind, another bind.
    #[default]
    V6_12,
}

/// The kernel in memory. Cheap to clone: every clone is the same.
#[derive(Clone, Default)]
pub struct Fake {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    machine: Mutex<Machine>,
    /// Somebody closed something, or a driver goes on.
    changed: Condvar,
    script: Mutex<Script>,
    disk: Mutex<BTreeMap<String, Vec<u8>>>,
    is_locked: Mutex<Option<String>>,
}

#[derive(Default)]
struct Machine {
    release: Release,
    functions: BTreeMap<Sbdf, Function>,
    drivers: BTreeMap<String, FakeDriver>,
    /// Drivers that come with a module when it is loaded.
    modules: BTreeMap<String, FakeDriver>,
    /// Groups whose own file is open.
    open_groups: BTreeSet<u32>,
    /// There are files for devices only.
    hides_groups: bool,
    /// The kernel it was copied from, for what was not.
    behind: Option<Arc<dyn Kernel>>,
    /// Functions that were removed and are still plugged in.
    removed: BTreeMap<Sbdf, Function>,
    /// `vfio-pci` makes virtual functions.
    vfio_makes_vfs: bool,
    /// What a test has put somewhere: it is there whatever the machine says.
    files: BTreeMap<(Root, String), Content>,
    pciback: pciback::Pciback,
    /// Network interfaces, by index.
    interfaces: BTreeMap<u32, network::Interface>,
}

/// What a test has put at a place.
#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Link(String),
    Names(Vec<String>),
    Failure(Errno),
}

impl Fake {
    /// A machine without devices and drivers, but `vfio-pci` and `pci-stub`.
    pub fn new() -> Self {
        let fake = Self::default();
        fake.add_driver("vfio-pci", FakeDriver::vfio());
        fake.add_driver("pci-stub", FakeDriver::default());
        fake.put_file(Root::Proc, "sys/kernel/osrelease", "6.12.0-fake\n");
        fake.reboot("1");
        fake
    }

    /// Behaves like this kernel.
    pub fn set_release(&self, release: Release) {
        self.machine().release = release;
    }

    /// Has files for devices, and none for groups.
    pub fn hide_groups(&self, hidden: bool) {
        self.machine().hides_groups = hidden;
    }

    /// A function comes. A driver that matches it is bound to it at once, as at boot.
    pub fn add(&self, address: Sbdf, function: FakeFunction) {
        let mut machine = self.machine();
        machine.functions.insert(address, Function::new(function));
        // A probe that fails leaves it without driver.
        let _probed = machine.probe(address);
    }

    /// A function vanishes, whoever uses it.
    pub fn unplug(&self, address: Sbdf) {
        self.machine().functions.remove(&address);
        self.shared.changed.notify_all();
    }

    /// A driver is loaded; it takes no device by itself.
    pub fn add_driver(&self, name: &str, driver: FakeDriver) {
        self.machine().drivers.insert(name.into(), driver);
        self.shared.changed.notify_all();
    }

    /// A driver comes with the module of this name, when that is loaded.
    pub fn add_module(&self, name: &str, driver: FakeDriver) {
        self.machine().modules.insert(name.into(), driver);
    }

    /// A file that is there whatever the machine says.
    pub fn put_file(&self, root: Root, path: &str, content: impl AsRef<[u8]>) {
        self.put(root, path, Content::Bytes(content.as_ref().to_vec()));
    }

    /// A link that is there whatever the machine says.
    pub fn put_link(&self, root: Root, path: &str, target: &str) {
        self.put(root, path, Content::Link(target.into()));
    }

    /// The names in a folder, whatever the machine says. It may be behind a link.
    pub fn put_folder(&self, root: Root, path: &str, names: &[&str]) {
        self.put(
            root,
            &format!("{path}/"),
            Content::Names(names.iter().map(|name| (*name).into()).collect()),
        );
    }

    /// Nothing can be done with this file.
    pub fn spoil(&self, root: Root, path: &str, errno: Errno) {
        self.put(root, path, Content::Failure(errno));
    }

    fn put(&self, root: Root, path: &str, content: Content) {
        self.machine().files.insert((root, path.into()), content);
    }

    /// A guest opens a device: `None` if it is not on VFIO, or a host driver has a device of its group. Until this is
    /// dropped it is in use.
    pub fn open_device(&self, address: Sbdf) -> Option<OpenDevice> {
        let mut machine = self.machine();
        if !machine.is_viable(machine.functions.get(&address)?.is.group) {
            return None;
        }
        let driver = machine.functions.get(&address)?.driver.clone()?;
        let is_vfio = machine.drivers.get(&driver).is_some_and(|driver| driver.is_vfio);
        let function = machine.functions.get_mut(&address).filter(|_| is_vfio)?;
        function.open += 1;
        // VFIO switches it on; a guest uses it.
        function.set_command(0x0006);
        Some(OpenDevice { fake: self.clone(), address })
    }

    /// The machine is booted: drivers are where they were at first, overrides are gone. The disk stays.
    pub fn reboot(&self, boot_id: &str) {
        self.put_file(Root::Proc, "sys/kernel/random/boot_id", format!("{boot_id}\n"));
        let mut machine = self.machine();
        let addresses: Vec<Sbdf> = machine.functions.keys().copied().collect();
        for function in machine.functions.values_mut() {
            function.start_anew();
        }
        for address in addresses {
            let _probed = machine.probe(address);
        }
        drop(machine);
        self.restart();
    }

    /// The driver of a function.
    pub fn driver(&self, address: Sbdf) -> Option<String> {
        self.machine().functions.get(&address)?.driver.clone()
    }

    /// The text of a function's override.
    pub fn driver_override(&self, address: Sbdf) -> Option<String> {
        self.machine().functions.get(&address)?.driver_override.clone()
    }

    /// How often a function was reset.
    pub fn resets(&self, address: Sbdf) -> u32 {
        self.machine().functions.get(&address).map_or(0, |function| function.resets)
    }

    /// The command register of a function.
    pub fn command(&self, address: Sbdf) -> Option<u16> {
        self.machine().functions.get(&address).map(Function::command)
    }

    /// Somebody else writes a file: not this process, so nothing of the script applies.
    pub fn write_as_somebody(&self, path: &str, text: &str) -> Result<(), Errno> {
        self.write_file(path, text.as_bytes())
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        locked(&self.shared.machine)
    }

    /// Waits for a change.
    fn wait<'a>(&self, machine: MutexGuard<'a, Machine>) -> MutexGuard<'a, Machine> {
        self.shared.changed.wait(machine).unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine();
        let bound = machine.functions.iter().map(|(at, function)| (at.to_string(), &function.driver));
        f.debug_map().entries(bound).finish()
    }
}

/// A device file that a guest has open.
#[derive(Debug)]
pub struct OpenDevice {
    fake: Fake,
    address: Sbdf,
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        if let Some(function) = self.fake.machine().functions.get_mut(&self.address) {
            function.open = function.open.saturating_sub(1);
        }
        self.fake.shared.changed.notify_all();
    }
}

/// The kernel it is, for whoever takes any.
impl From<Fake> for Arc<dyn Kernel> {
    fn from(fake: Fake) -> Self {
        Arc::new(fake)
    }
}
