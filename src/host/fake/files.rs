//! Which file is which.

use std::sync::MutexGuard;

use super::binding::{Touch, nth_virtual};
use super::function::Function;
use super::pciback::PCIBACK;
use super::{Content, Fake, Machine};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::kernel::{GroupFile, Kernel, Place, Root};
use crate::host::network::{KeptNetwork, NetworkChange};
use crate::platform::GroupId;

/// A folder's file names a function.
fn split(path: &str) -> Option<(Sbdf, &str)> {
    let (address, file) = path.strip_prefix("bus/pci/devices/")?.split_once('/')?;
    let parsed: Sbdf = address.parse().ok()?;
    (parsed.to_string() == address).then_some((parsed, file))
}

/// An address as it is written into a file.
fn address(bytes: &[u8]) -> Result<Sbdf, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::ENODEV)?;
    text.trim_end_matches('\n').parse().map_err(|_| Errno::ENODEV)
}

impl Machine {
    fn content(&self, place: &Place) -> Option<&Content> {
        self.files.get(&(place.root(), place.path().to_owned()))
    }

    fn text(&self, address: Sbdf, file: &str) -> Result<Vec<u8>, Errno> {
        let function = self.functions.get(&address).ok_or(Errno::ENOENT)?;
        let (vendor, device) = function.is.id;
        Ok(match file {
            "vendor" => format!("{vendor:#06x}\n").into_bytes(),
            "device" => format!("{device:#06x}\n").into_bytes(),
            "subsystem_vendor" | "subsystem_device" => b"0x0000\n".to_vec(),
            "class" => format!("{:#08x}\n", function.is.class).into_bytes(),
            "modalias" => modalias(function).into_bytes(),
            "numa_node" => b"-1\n".to_vec(),
            "driver_override" => {
                format!("{}\n", function.driver_override.as_deref().unwrap_or("(null)")).into_bytes()
            }
            "boot_vga" if function.is.is_boot_vga => b"1\n".to_vec(),
            "reset_method" => {
                format!("{}\n", function.is.reset_method.as_ref().ok_or(Errno::ENOENT)?).into_bytes()
            }
            "sriov_numvfs" if function.is.total_vfs > 0 => format!("{}\n", function.num_vfs).into_bytes(),
            "sriov_totalvfs" if function.is.total_vfs > 0 => {
                format!("{}\n", function.is.total_vfs).into_bytes()
            }
            "config" => function.is.config.clone(),
            file if file.starts_with("net/") => {
                let name = file.strip_prefix("net/").and_then(|rest| rest.strip_suffix("/ifindex"));
                self.interface_index(address, name.ok_or(Errno::ENOENT)?)?
            }
            _ => return Err(Errno::ENOENT),
        })
    }

    fn link(&self, address: Sbdf, file: &str) -> Result<String, Errno> {
        let function = self.functions.get(&address).ok_or(Errno::ENOENT)?;
        let target = match file {
            "driver" => function.driver.as_ref().map(|name| format!("../../../bus/pci/drivers/{name}")),
            "iommu_group" => function.is.group.map(|group| format!("../../../kernel/iommu_groups/{group}")),
            "physfn" => function.is.physical_function.map(|pf| format!("../{pf}")),
            _ => {
                let n = file.strip_prefix("virtfn").and_then(|n| n.parse::<u16>().ok());
                let n = n.filter(|n| *n < function.num_vfs);
                n.and_then(|n| nth_virtual(address, n + 1)).map(|vf| format!("../{vf}"))
            }
        };
        target.ok_or(Errno::ENOENT)
    }

    /// Where the folder of a function really is: in that of the bridge above its bus.
    fn folder(&self, path: &str) -> Option<String> {
        let address: Sbdf = path.strip_prefix("bus/pci/devices/")?.parse().ok()?;
        self.functions.get(&address)?;
        let leads_there = |(at, function): &(&Sbdf, &Function)| {
            let secondary = function.is.config.get(0x19).copied();
            function.is_bridge()
                && at.segment() == address.segment()
                && secondary == Some(address.bus().number())
        };
        let above = self.functions.iter().find(leads_there).map(|(at, _)| format!("{at}/"));
        Some(format!("../../../devices/pci/{}{address}", above.unwrap_or_default()))
    }

    fn names(&self, path: &str) -> Result<Vec<String>, Errno> {
        if path == "bus/pci/devices" {
            return Ok(self.functions.keys().map(Sbdf::to_string).collect());
        }
        if path == "bus/pci/drivers" {
            return Ok(self.drivers.keys().cloned().collect());
        }
        if let Some((address, "net")) = split(path) {
            return self.interface_names(address);
        }
        let group = path.strip_prefix("kernel/iommu_groups/").and_then(|rest| rest.strip_suffix("/devices"));
        let group: u32 = group.and_then(|group| group.parse().ok()).ok_or(Errno::ENOENT)?;
        let is_member = |(_, function): &(&Sbdf, &Function)| function.is.group == Some(group);
        let members: Vec<_> = self.functions.iter().filter(is_member).map(|(at, _)| at.to_string()).collect();
        if members.is_empty() { Err(Errno::ENOENT) } else { Ok(members) }
    }
}

fn modalias(function: &Function) -> String {
    let ((vendor, device), class) = (function.is.id, function.is.class);
    let (base, sub, interface) = (class >> 16 & 0xff, class >> 8 & 0xff, class & 0xff);
    format!("pci:v{vendor:08X}d{device:08X}sv00000000sd00000000bc{base:02X}sc{sub:02X}i{interface:02X}\n")
}

/// Asks the kernel that this is a copy of, about what was not copied.
fn behind<R>(
    machine: MutexGuard<'_, Machine>,
    place: &Place,
    ask: impl FnOnce(&dyn Kernel) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let behind = machine.behind.clone();
    drop(machine);
    let is_copied = place.root() == Root::Sys && place.path().starts_with("bus/pci/");
    behind.filter(|_| !is_copied).map_or(Err(Errno::ENOENT), |kernel| ask(&*kernel))
}

impl Fake {
    pub(super) fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        if path == "bus/pci/drivers_probe" {
            return self.probe_driver(address(bytes)?);
        }
        if let Some((driver, file)) =
            path.strip_prefix("bus/pci/drivers/").and_then(|rest| rest.split_once('/'))
        {
            if !self.machine().drivers.contains_key(driver) {
                return Err(Errno::ENOENT);
            }
            return match file {
                "bind" => self.bind(driver, address(bytes)?),
                "unbind" => self.unbind(driver, address(bytes)?),
                _ if driver == PCIBACK => self.write_pciback(file, address(bytes)?),
                _ => Err(Errno::ENOENT),
            };
        }
        match path {
            "bus/pci/rescan" => {
                self.rescan();
                return Ok(());
            }
            "module/vfio_pci/parameters/enable_sriov" => {
                self.machine().vfio_makes_vfs = bytes.starts_with(b"Y");
                return Ok(());
            }
            _ => {}
        }
        let (address, file) = split(path).ok_or(Errno::ENOENT)?;
        match file {
            "remove" => self.remove(address),
            "sriov_drivers_autoprobe" => {
                let mut machine = self.machine();
                let function = machine.functions.get_mut(&address).ok_or(Errno::ENOENT)?;
                function.probes_vfs = !bytes.starts_with(b"0");
                Ok(())
            }
            "driver_override" => self.set_override(address, bytes),
            "reset" => self.reset(address),
            "sriov_numvfs" => {
                let text = String::from_utf8_lossy(bytes);
                let wanted = text.trim().parse::<u32>().map_err(|_| Errno::EINVAL)?;
                self.set_num_vfs(address, u16::try_from(wanted).map_err(|_| Errno::ERANGE)?)
            }
            _ if self.machine().functions.contains_key(&address) => Err(Errno::EACCES),
            _ => Err(Errno::ENOENT),
        }
    }

    /// One name. A newline alone clears it; nothing at all does nothing.
    fn set_override(&self, address: Sbdf, bytes: &[u8]) -> Result<(), Errno> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut machine = self.unlocked(address, Touch::Override)?;
        let function = machine.functions.get_mut(&address).ok_or(Errno::ENOENT)?;
        if text.len() >= 4096 {
            return Err(Errno::EINVAL);
        }
        let name = text.trim_end_matches('\n');
        if !text.is_empty() {
            function.driver_override = (!name.is_empty()).then(|| name.to_owned());
        }
        Ok(())
    }
}

impl Kernel for Fake {
    fn read(&self, place: &Place, limit: usize) -> Result<Vec<u8>, Errno> {
        let machine = self.machine();
        let bytes = match (machine.content(place), place.root(), split(place.path())) {
            (Some(Content::Bytes(bytes)), ..) => bytes.clone(),
            (Some(Content::Failure(errno)), ..) => return Err(*errno),
            (Some(_), ..) => return Err(Errno::EINVAL),
            (None, Root::Sys, Some((address, file))) => {
                drop(machine);
                let machine = match file {
                    "driver_override" => {
                        self.unlocked(address, Touch::Override).map_err(|_| Errno::ENOENT)?
                    }
                    _ => self.machine(),
                };
                machine.text(address, file)?
            }
            (None, Root::Sys, None) => match machine.read_pciback(place.path()) {
                Some(bytes) => bytes,
                None => return behind(machine, place, |kernel| kernel.read(place, limit)),
            },
            _ => return behind(machine, place, |kernel| kernel.read(place, limit)),
        };
        if bytes.len() > limit { Err(Errno::EFBIG) } else { Ok(bytes) }
    }

    fn read_at(&self, place: &Place, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        let content = self.read(place, usize::MAX)?;
        let from = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
        let count = bytes.len().min(content.len() - from);
        bytes[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write(&self, place: &Place, bytes: &[u8]) -> Result<(), Errno> {
        let text = String::from_utf8_lossy(bytes);
        self.strike(&format!("{:?} > {place}", text.trim_end()))?;
        match (self.machine().content(place), place.root()) {
            (Some(Content::Failure(errno)), _) => return Err(*errno),
            (Some(_), _) => return Err(Errno::EACCES),
            (None, Root::Sys) => {}
            _ => return Err(Errno::ENOENT),
        }
        self.write_file(place.path(), bytes)
    }

    fn write_at(&self, place: &Place, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.strike(&format!("{bytes:02x?} > {place} at {offset:#x}"))?;
        let (address, _) = split(place.path()).filter(|(_, file)| *file == "config").ok_or(Errno::EACCES)?;
        let mut machine = self.machine();
        let function = machine.functions.get_mut(&address).ok_or(Errno::ENOENT)?;
        let from = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let into = function.is.config.get_mut(from..from + bytes.len()).ok_or(Errno::EINVAL)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn read_link(&self, place: &Place) -> Result<String, Errno> {
        let machine = self.machine();
        match (machine.content(place), place.root(), split(place.path())) {
            (Some(Content::Link(target)), ..) => Ok(target.clone()),
            (Some(Content::Failure(errno)), ..) => Err(*errno),
            (Some(_), ..) => Err(Errno::EINVAL),
            (None, Root::Sys, Some((address, file))) => machine.link(address, file),
            (None, Root::Sys, None) if machine.folder(place.path()).is_some() => {
                machine.folder(place.path()).ok_or(Errno::ENOENT)
            }
            _ => behind(machine, place, |kernel| kernel.read_link(place)),
        }
    }

    fn list(&self, place: &Place, limit: usize) -> Result<Vec<String>, Errno> {
        let machine = self.machine();
        let folder = machine.files.get(&(place.root(), format!("{}/", place.path())));
        let mut names = match folder.or_else(|| machine.content(place)) {
            Some(Content::Names(names)) => names.clone(),
            Some(Content::Failure(errno)) => return Err(*errno),
            Some(Content::Bytes(_)) => return Err(Errno::new(20)),
            // What a link leads to, unless the test has put a folder there.
            Some(Content::Link(_)) => return Err(Errno::ENOENT),
            None => match machine.names(place.path()).ok().filter(|_| place.root() == Root::Sys) {
                Some(names) => names,
                None => return behind(machine, place, |kernel| kernel.list(place, limit)),
            },
        };
        names.sort_unstable();
        names.truncate(limit);
        Ok(names)
    }

    fn open_group(&self, group: GroupId) -> Result<Box<dyn GroupFile>, Errno> {
        let mut machine = self.machine();
        let is_on_vfio = |function: &Function| {
            let driver = function.driver.as_ref().and_then(|driver| machine.drivers.get(driver));
            function.is.group == Some(group.0) && driver.is_some_and(|driver| driver.is_vfio)
        };
        let behind = machine.behind.as_ref().map(|kernel| kernel.open_group(group).map(drop));
        if behind == Some(Err(Errno::EBUSY)) {
            return Err(Errno::EBUSY);
        }
        if machine.hides_groups {
            return Err(Errno::ENOENT);
        }
        // A device that is being unbound and still open keeps its group's file open, not its folder entry.
        if machine.open_groups.contains(&group.0) || machine.is_owned(Some(group.0)) {
            return Err(Errno::EBUSY);
        }
        if !machine.functions.values().any(is_on_vfio) {
            return Err(Errno::ENOENT);
        }
        machine.open_groups.insert(group.0);
        Ok(Box::new(OpenGroup { fake: self.clone(), group: group.0 }))
    }

    fn hot_reset(&self, device: Sbdf, groups: &[GroupId]) -> Result<(), Errno> {
        let numbers: Vec<u32> = groups.iter().map(|group| group.0).collect();
        self.strike(&format!("hot reset of {device}, groups {numbers:?}"))?;
        self.reset_bus(device, &numbers)
    }

    fn load_module(&self, name: &str) -> Result<(), Errno> {
        self.strike(&format!("modprobe {name}"))?;
        let mut machine = self.machine();
        let driver = machine.modules.get(name).cloned().ok_or(Errno::ENOENT)?;
        machine.drivers.insert(name.into(), driver);
        Ok(())
    }

    fn virtual_network(&self, interface: u32, number: u16) -> Result<KeptNetwork, Errno> {
        self.read_network(interface, number)
    }

    fn set_virtual_network(&self, interface: u32, number: u16, change: NetworkChange) -> Result<(), Errno> {
        self.change_network(interface, number, change)
    }
}

struct OpenGroup {
    fake: Fake,
    group: u32,
}

impl GroupFile for OpenGroup {}

impl Drop for OpenGroup {
    fn drop(&mut self) {
        self.fake.machine().open_groups.remove(&self.group);
    }
}
