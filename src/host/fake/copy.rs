//! A copy of a real machine, to try things on: what an operation would write is what it writes to the copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::function::Function;
use super::network::Interface;
use super::{Fake, FakeDriver, FakeFunction};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::function;
use crate::host::kernel::{Kernel, Place, Root};
use crate::host::name::DriverName;
use crate::host::store::Store;

/// Files of a function that are copied as they are.
const AS_THEY_ARE: [&str; 8] = [
    "subsystem_vendor",
    "subsystem_device",
    "modalias",
    "numa_node",
    "revision",
    "resource",
    "irq",
    "sriov_numvfs",
];
/// The files of a store.
const STORED: [&str; 2] = ["journal.a", "journal.b"];

impl Fake {
    /// A copy of the functions, drivers and groups of a machine, and of the journal. What is outside these (routes,
    /// mounted file systems, aliases of modules) is read there.
    ///
    /// A driver of the copy takes the functions that it has now. Modules are not loaded; `vfio-pci` is pretended to be.
    pub fn copy_of(kernel: Arc<dyn Kernel>, store: &dyn Store) -> Result<Self, Errno> {
        let fake = Self::default();
        fake.add_module("vfio-pci", FakeDriver::vfio());
        for name in kernel.list(&function::sys("bus/pci/drivers")?, 1 << 16)? {
            let parsed = name.parse::<DriverName>();
            let is_vfio = parsed.is_ok_and(|driver| driver.is_stub() && driver != *"pci-stub");
            fake.add_driver(&name, FakeDriver { is_vfio, makes_vfs: true, ..FakeDriver::default() });
        }
        // pciback says by itself what it may take.
        let slots = kernel.read(&function::sys("bus/pci/drivers/pciback/slots")?, 1 << 20);
        let slots = function::optional(slots)?.unwrap_or_default();
        let slots = String::from_utf8_lossy(&slots);
        fake.machine().pciback.slots.extend(slots.lines().filter_map(|line| line.parse::<Sbdf>().ok()));
        for address in function::all(&*kernel)? {
            fake.copy(&*kernel, address)?;
        }
        for name in STORED {
            if let Some(bytes) = store.read(name, usize::MAX)? {
                fake.store(name, &bytes);
            }
        }
        fake.machine().behind = Some(kernel);
        Ok(fake)
    }

    /// Its virtual functions, its network interfaces, and what these keep of those.
    fn copy_networks(&self, kernel: &dyn Kernel, address: Sbdf) -> Result<(), Errno> {
        let count = function::virtual_functions(kernel, address)?;
        for number in 0..count {
            let place = function::place(address, &format!("virtfn{number}"))?;
            if let Some(target) = function::optional(kernel.read_link(&place))? {
                self.put_link(Root::Sys, place.path(), &target);
            }
        }
        let folder = function::place(address, "net")?;
        for name in function::optional(kernel.list(&folder, 1024))?.unwrap_or_default() {
            let index = function::text(kernel, address, &format!("net/{name}/ifindex"))?;
            let Some(index) = index.and_then(|index| index.parse::<u32>().ok()) else { continue };
            // What cannot be read the copy refuses as well.
            let kept: BTreeMap<_, _> = (0..count)
                .filter_map(|number| Some((number, kernel.virtual_network(index, number).ok()?)))
                .collect();
            let refuses = kept.is_empty().then_some(Errno::EOPNOTSUPP);
            let interface = Interface { name, physical_function: address, kept, refuses, is_deaf: false };
            self.machine().interfaces.insert(index, interface);
        }
        Ok(())
    }

    fn copy(&self, kernel: &dyn Kernel, address: Sbdf) -> Result<(), Errno> {
        let identity = function::identity(kernel, address)?;
        let mut config = vec![0; 4096];
        let read = kernel.read_at(&function::place(address, "config")?, 0, &mut config)?;
        config.truncate(read.min(4096));
        let id = (identity.vendor, identity.device);
        let is = FakeFunction {
            id,
            class: identity.class,
            config,
            group: function::group(kernel, address)?.map(|group| group.0),
            reset_method: function::text(kernel, address, "reset_method")?,
            total_vfs: 0,
            physical_function: function::physical_function(kernel, address)?,
            is_boot_vga: function::text(kernel, address, "boot_vga")?.as_deref() == Some("1"),
        };
        for name in AS_THEY_ARE {
            if let Some(text) = function::text(kernel, address, name)? {
                let place: Place = function::place(address, name)?;
                self.put_file(Root::Sys, place.path(), format!("{text}\n"));
            }
        }
        self.copy_networks(kernel, address)?;
        let driver = function::driver(kernel, address)?;
        let driver_override = function::text(kernel, address, "driver_override")?;
        let driver_override = driver_override.filter(|text| !text.is_empty() && text != "(null)");
        let mut machine = self.machine();
        let bound = driver.as_ref().and_then(|driver| machine.drivers.get_mut(driver.as_str()));
        if let Some(bound) = bound.filter(|driver| !driver.is_vfio) {
            bound.ids.push(id);
        }
        let driver = driver.map(String::from);
        machine.functions.insert(address, Function { driver, driver_override, ..Function::new(is) });
        Ok(())
    }
}
