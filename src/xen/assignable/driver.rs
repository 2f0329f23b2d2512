//! Drivers' and pciback's files. Every write is followed by a look: a write that returned without an error proves nothing.

use crate::Sbdf;
use crate::errno::Errno;
use crate::host::{DriverName, Kernel, Place, Root, WriteFailure};

use super::Step;

/// The driver's name.
pub(in crate::xen) const PCIBACK: &str = "pciback";

const DEVICES: &str = "bus/pci/devices";
const MOST_FUNCTIONS: usize = 1 << 16;
const PAGE: usize = 4096;
/// The most of a list of slots that is read.
const MOST_SLOTS: usize = 1 << 20;

pub(super) fn failed(device: Sbdf, what: impl Into<String>, errno: Errno) -> WriteFailure {
    WriteFailure { device, what: what.into(), errno }
}

fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV)
}

fn of(device: Sbdf, name: &str) -> Result<Place, Errno> {
    Place::new(Root::Sys, format!("{DEVICES}/{device}/{name}"))
}

/// All functions of the machine, in address order.
pub(in crate::xen) fn all(kernel: &dyn Kernel) -> Result<Vec<Sbdf>, Errno> {
    let names = kernel.list(&Place::new(Root::Sys, DEVICES)?, MOST_FUNCTIONS)?;
    let mut found: Vec<Sbdf> = names.iter().filter_map(|name| canonical(name)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An address as the kernel writes it: it is about to be a path again.
fn canonical(name: &str) -> Option<Sbdf> {
    let address: Sbdf = name.parse().ok()?;
    (address.to_string() == name).then_some(address)
}

fn link(kernel: &dyn Kernel, device: Sbdf, name: &str) -> Result<Option<String>, Errno> {
    match kernel.read_link(&of(device, name)?) {
        Ok(target) => Ok(target.rsplit('/').next().map(str::to_owned)),
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The physical function of a virtual one.
pub(in crate::xen) fn physical_function(kernel: &dyn Kernel, device: Sbdf) -> Option<Sbdf> {
    let name = link(kernel, device, "physfn").ok().flatten()?;
    canonical(&name).filter(|pf| *pf != device)
}

/// The driver a device is bound to.
pub(super) fn current(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<DriverName>, WriteFailure> {
    let unreadable = |errno| failed(device, "read its driver", errno);
    match link(kernel, device, "driver").map_err(unreadable)? {
        None => Ok(None),
        Some(name) => name.parse().map(Some).map_err(|_| unreadable(Errno::EINVAL)),
    }
}

/// Whether the machine has it.
pub(super) fn is_present(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, WriteFailure> {
    let read = of(device, "vendor").and_then(|place| kernel.read(&place, PAGE));
    match read {
        Ok(_) => Ok(true),
        Err(errno) if is_absent(errno) => Ok(false),
        Err(errno) => Err(failed(device, "look for it", errno)),
    }
}

/// Bytes of its configuration space; what cannot be read reads ones, as a function that does not answer.
pub(in crate::xen) fn config(kernel: &dyn Kernel, device: Sbdf, offset: u64, bytes: &mut [u8]) {
    bytes.fill(0xff);
    let read = of(device, "config").and_then(|place| kernel.read_at(&place, offset, bytes));
    if read.is_err() {
        bytes.fill(0xff);
    }
}

/// Whether its header is a bridge's, or none that is known.
pub(in crate::xen) fn is_bridge(kernel: &dyn Kernel, device: Sbdf) -> bool {
    let mut header = [0xff];
    config(kernel, device, 0x0e, &mut header);
    header[0] & 0x7f != 0
}

/// Somebody else's text in `driver_override`, if there is any.
pub(super) fn driver_override(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<String>, WriteFailure> {
    let read = of(device, "driver_override").and_then(|place| kernel.read(&place, PAGE));
    match read {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned();
            Ok(if text.is_empty() || text == "(null)" { None } else { Some(text) })
        }
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(failed(device, "read driver_override", errno)),
    }
}

/// Reads a small text of a device.
pub(in crate::xen) fn resources(kernel: &dyn Kernel, device: Sbdf, name: &str) -> Result<String, Errno> {
    let bytes = kernel.read(&of(device, name)?, PAGE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(kernel: &dyn Kernel, device: Sbdf, driver: &str, file: &str) -> Step {
    let path = format!("bus/pci/drivers/{driver}/{file}");
    let written = Place::new(Root::Sys, path.clone())
        .and_then(|place| kernel.write(&place, device.to_string().as_bytes()));
    written.map_err(|errno| failed(device, format!("write it to /sys/{path}"), errno))
}

/// Writes the device into one of pciback's files.
pub(in crate::xen) fn write_pciback(kernel: &dyn Kernel, device: Sbdf, file: &str) -> Step {
    write(kernel, device, PCIBACK, file)
}

/// pciback's list; `None` if the driver is not there.
pub(super) fn slots(kernel: &dyn Kernel) -> Result<Option<Vec<Sbdf>>, Errno> {
    match kernel.read(&Place::new(Root::Sys, "bus/pci/drivers/pciback/slots")?, MOST_SLOTS) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Ok(Some(text.lines().filter_map(|line| line.trim().parse().ok()).collect()))
        }
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether it is on pciback's list.
pub(super) fn has_slot(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, WriteFailure> {
    let slots = slots(kernel).map_err(|errno| failed(device, "read pciback's slots", errno))?;
    Ok(slots.is_some_and(|slots| slots.contains(&device)))
}

/// On pciback's list.
pub(super) fn new_slot(kernel: &dyn Kernel, device: Sbdf) -> Step {
    if has_slot(kernel, device)? {
        return Ok(());
    }
    write_pciback(kernel, device, "new_slot")?;
    if has_slot(kernel, device)? { Ok(()) } else { Err(failed(device, "look for its slot", Errno::EIO)) }
}

/// Off pciback's list.
pub(super) fn remove_slot(kernel: &dyn Kernel, device: Sbdf) -> Step {
    if !has_slot(kernel, device)? {
        return Ok(());
    }
    write_pciback(kernel, device, "remove_slot")?;
    if has_slot(kernel, device)? { Err(failed(device, "take its slot away", Errno::EIO)) } else { Ok(()) }
}

/// Without a driver.
pub(super) fn unbind(kernel: &dyn Kernel, device: Sbdf) -> Step {
    let Some(driver) = current(kernel, device)? else { return Ok(()) };
    write(kernel, device, driver.as_str(), "unbind")?;
    match current(kernel, device)? {
        None => Ok(()),
        Some(now) => Err(failed(device, format!("unbind it from {driver}: {now} has it"), Errno::EBUSY)),
    }
}

/// Without this driver; another one keeps it.
pub(super) fn unbind_from(kernel: &dyn Kernel, device: Sbdf, driver: &str) -> Step {
    if current(kernel, device)?.is_some_and(|now| now == *driver) { unbind(kernel, device) } else { Ok(()) }
}

/// On this driver, and nobody else's before.
pub(super) fn bind(kernel: &dyn Kernel, device: Sbdf, driver: &str) -> Step {
    match current(kernel, device)? {
        Some(now) if now == *driver => return Ok(()),
        Some(now) => return Err(failed(device, format!("bind {driver}: {now} has it"), Errno::EBUSY)),
        None => {}
    }
    write(kernel, device, driver, "bind")?;
    match current(kernel, device)? {
        Some(now) if now == *driver => Ok(()),
        Some(now) => Err(failed(device, format!("bind {driver}: {now} has it"), Errno::EBUSY)),
        None => Err(failed(device, format!("bind {driver}: nothing has it"), Errno::EIO)),
    }
}
