//! What sysfs says of one function. Nothing it says is believed without a check, and everything is bounded.

use super::kernel::{Kernel, Place, Root};
use super::name::DriverName;
use super::record::Identity;
use crate::Sbdf;
use crate::errno::Errno;
use crate::platform::GroupId;

/// The most bytes of a small file: the kernel's page.
const PAGE: usize = 4096;
/// The most functions that are looked at: every address of one segment.
const MOST_FUNCTIONS: usize = 1 << 16;
/// The most members of a group.
const MOST_MEMBERS: usize = 1 << 16;

/// The folder of all functions.
const DEVICES: &str = "bus/pci/devices";

/// A place below a function's folder.
pub(super) fn place(device: Sbdf, name: &str) -> Result<Place, Errno> {
    Place::new(Root::Sys, format!("{DEVICES}/{device}/{name}"))
}

/// A place in sysfs.
pub(super) fn sys(path: impl Into<String>) -> Result<Place, Errno> {
    Place::new(Root::Sys, path)
}

/// Whether there is no such file or device.
pub(super) fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ENODEV) || error.number() == 20
}

/// `Ok(None)` for what is not there.
pub(super) fn optional<T>(read: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absent(error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The addresses of all functions, in order. Names that are none are left out.
pub(super) fn all(kernel: &dyn Kernel) -> Result<Vec<Sbdf>, Errno> {
    let names = kernel.list(&sys(DEVICES)?, MOST_FUNCTIONS)?;
    let mut found: Vec<Sbdf> = names.iter().filter_map(|name| canonical(name)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An address as the kernel writes it, and in no other form: it is about to be a path again.
fn canonical(name: &str) -> Option<Sbdf> {
    let address: Sbdf = name.parse().ok()?;
    (address.to_string() == name).then_some(address)
}

/// Whether the function is there.
pub(super) fn is_present(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, Errno> {
    Ok(optional(kernel.read(&place(device, "vendor")?, PAGE))?.is_some())
}

/// The last name in a link's target.
fn link_name(kernel: &dyn Kernel, device: Sbdf, name: &str) -> Result<Option<String>, Errno> {
    let target = optional(kernel.read_link(&place(device, name)?))?;
    Ok(target.and_then(|target| Some(target.rsplit('/').next()?.to_owned())))
}

/// The driver it is bound to. One whose name could not stand in a path is EINVAL.
pub(super) fn driver(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<DriverName>, Errno> {
    match link_name(kernel, device, "driver")? {
        None => Ok(None),
        Some(name) => name.parse().map(Some).map_err(|_| Errno::EINVAL),
    }
}

/// Its IOMMU group; `None` without one, or where the link makes no sense.
pub(super) fn group(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<GroupId>, Errno> {
    let name = link_name(kernel, device, "iommu_group")?;
    Ok(name.and_then(|name| name.parse().ok()).map(GroupId))
}

/// The physical function of a virtual one. A device that is its own is none.
pub(super) fn physical_function(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<Sbdf>, Errno> {
    let name = link_name(kernel, device, "physfn")?;
    Ok(name.and_then(|name| canonical(&name)).filter(|pf| *pf != device))
}

/// The members of a group, in order.
pub(super) fn members(kernel: &dyn Kernel, group: GroupId) -> Result<Vec<Sbdf>, Errno> {
    let names = kernel.list(&sys(format!("kernel/iommu_groups/{}/devices", group.0))?, MOST_MEMBERS)?;
    let mut found: Vec<Sbdf> = names.iter().filter_map(|name| canonical(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// How many virtual functions a physical one has.
pub(super) fn virtual_functions(kernel: &dyn Kernel, device: Sbdf) -> Result<u16, Errno> {
    Ok(text(kernel, device, "sriov_numvfs")?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Which of its physical function's virtual ones it is, from 0; `None` if that one does not know it.
pub(super) fn virtual_number(kernel: &dyn Kernel, pf: Sbdf, device: Sbdf) -> Result<Option<u16>, Errno> {
    for number in 0..virtual_functions(kernel, pf)? {
        let name = link_name(kernel, pf, &format!("virtfn{number}"))?;
        if name.and_then(|name| canonical(&name)) == Some(device) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Whether there is a bridge above its bus, which could reset it.
pub(super) fn is_below_bridge(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, Errno> {
    let target = optional(kernel.read_link(&sys(format!("{DEVICES}/{device}"))?))?;
    // The folder it leads to is in the bridge's.
    let above = target.as_ref().and_then(|target| target.rsplit('/').nth(1));
    Ok(above.and_then(canonical).is_some())
}

/// The functions on its bus, itself included, in order.
pub(super) fn on_bus(kernel: &dyn Kernel, device: Sbdf) -> Result<Vec<Sbdf>, Errno> {
    let mut found = all(kernel)?;
    found.retain(|other| (other.segment(), other.bus()) == (device.segment(), device.bus()));
    Ok(found)
}

/// A small text file, without the end of the line; `None` if it is not there.
pub(super) fn text(kernel: &dyn Kernel, device: Sbdf, name: &str) -> Result<Option<String>, Errno> {
    let bytes = optional(kernel.read(&place(device, name)?, PAGE))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned()))
}

/// A number as sysfs prints ids: `0x` and hexadecimal digits.
fn id(kernel: &dyn Kernel, device: Sbdf, name: &str) -> Result<Option<u32>, Errno> {
    let text = text(kernel, device, name)?;
    Ok(text.and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()))
}

/// What tells whether the same device is still there. ENODEV if none is.
pub(super) fn identity(kernel: &dyn Kernel, device: Sbdf) -> Result<Identity, Errno> {
    let narrow = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok());
    Ok(Identity {
        vendor: narrow(id(kernel, device, "vendor")?).ok_or(Errno::ENODEV)?,
        device: narrow(id(kernel, device, "device")?).ok_or(Errno::ENODEV)?,
        subsystem_vendor: narrow(id(kernel, device, "subsystem_vendor")?).unwrap_or_default(),
        subsystem_device: narrow(id(kernel, device, "subsystem_device")?).unwrap_or_default(),
        class: id(kernel, device, "class")?.unwrap_or_default() & 0x00ff_ffff,
        serial: serial(kernel, device)?,
    })
}

/// The Device Serial Number capability (PCIe 6.0 §7.9.3), if the function has one.
fn serial(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<u64>, Errno> {
    let mut bytes = [0; PAGE];
    let read = optional(kernel.read_at(&place(device, "config")?, 0, &mut bytes))?.unwrap_or(0);
    let config = crate::device::ConfigSpace::new(&bytes[..read.min(PAGE)]);
    let Some(at) = crate::device::find_extended_capability(config, 0x0003) else { return Ok(None) };
    let word = |offset: usize| config.u32(usize::from(at) + offset).map(u64::from);
    Ok(word(4).zip(word(8)).map(|(low, high)| high << 32 | low))
}

/// The names of reset methods, the first one that applies first. `None`: it cannot be reset.
pub(super) fn reset_methods(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<Vec<String>>, Errno> {
    match text(kernel, device, "reset_method")? {
        Some(methods) => {
            let methods: Vec<_> = methods.split_whitespace().map(str::to_owned).collect();
            Ok(if methods.is_empty() { None } else { Some(methods) })
        }
        // Before 5.15 there is only the file that resets, and nobody says how.
        None => Ok(None),
    }
}
