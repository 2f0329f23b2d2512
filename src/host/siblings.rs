//! Who of a device's IOMMU group the host still uses.
//!
//! VFIO gives a group to a guest only if no member of it is on a host driver. No driver, VFIO's, `pci-stub` and, for
//! bridges, `pcieport` are fine. The engine asks the same under its claims; this names the drivers.

use super::function;
use super::kernel::Kernel;
use super::name::DriverName;
use crate::Sbdf;
use crate::device::{ConfigSpace, HeaderLayout};
use crate::errno::Errno;
use crate::platform::GroupId;

/// The members of the group, outside the set, that are on host drivers.
pub(super) fn in_the_way(
    kernel: &dyn Kernel,
    group: GroupId,
    set: &[Sbdf],
) -> Result<Vec<(Sbdf, DriverName)>, Errno> {
    let mut found = Vec::new();
    for member in function::members(kernel, group)? {
        if set.contains(&member) {
            continue;
        }
        if let Some(driver) = function::driver(kernel, member)?
            && !driver.is_stub()
            && !(driver == *"pcieport" && is_bridge(kernel, member)?)
        {
            found.push((member, driver));
        }
    }
    Ok(found)
}

/// Whether a function's header says that it is no endpoint.
pub(super) fn is_bridge(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, Errno> {
    let mut bytes = [0; 0x40];
    let read = kernel.read_at(&function::place(device, "config")?, 0, &mut bytes)?;
    let layout = HeaderLayout::read(ConfigSpace::new(&bytes[..read.min(0x40)]));
    Ok(layout.is_some_and(|layout| layout != HeaderLayout::Endpoint))
}
