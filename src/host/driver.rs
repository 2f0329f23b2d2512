//! Putting a driver in place, and taking it away.
//!
//! Every function here looks first and writes what is missing, so that doing it twice does no harm: the steps of a
//! transition, their undo, and recovery after a crash are the same functions. None believes a write that returned
//! without an error: the `driver` link is read afterwards.

use super::function::{self, sys};
use super::name::DriverName;
use super::operation::WriteFailure;
use super::record::Original;
use super::writer::Writer;
use crate::Sbdf;
use crate::errno::Errno;
use crate::platform::GroupId;

type Done = Result<(), WriteFailure>;

/// The file that says which driver alone may have a device.
const OVERRIDE: &str = "driver_override";

fn failed(device: Sbdf, what: impl Into<String>, errno: Errno) -> WriteFailure {
    WriteFailure { device, what: what.into(), errno }
}

/// The driver the device is bound to.
pub(super) fn current(writer: &Writer, device: Sbdf) -> Result<Option<DriverName>, WriteFailure> {
    function::driver(writer.kernel(), device).map_err(|errno| failed(device, "read the driver link", errno))
}

/// The text of `driver_override`, empty for none. Where there is no such file (before Linux 3.16) ENOENT.
pub(super) fn driver_override(writer: &Writer, device: Sbdf) -> Result<String, WriteFailure> {
    let read = function::place(device, OVERRIDE).and_then(|place| writer.read(device, place, 4096));
    let bytes = read.map_err(|errno| failed(device, "read driver_override", errno))?;
    let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned();
    Ok(if text == "(null)" { String::new() } else { text })
}

/// Sets `driver_override`, if it is not that already.
fn set_override(writer: &Writer, device: Sbdf, text: &str) -> Done {
    if driver_override(writer, device)? == text {
        return Ok(());
    }
    // An empty write does nothing; a newline clears.
    write(writer, device, function::place(device, OVERRIDE), &format!("{text}\n"))
}

fn write(writer: &Writer, device: Sbdf, place: Result<super::kernel::Place, Errno>, text: &str) -> Done {
    let place = place.map_err(|errno| failed(device, "write", errno))?;
    let what = format!("write {:?} to {place}", text.trim_end());
    writer.write(device, place, text.as_bytes()).map_err(|errno| failed(device, what, errno))
}

/// Takes the device from this driver. That it has left it meanwhile is no error.
fn unbind(writer: &Writer, device: Sbdf, driver: &DriverName) -> Done {
    let unbound = write(writer, device, sys(format!("bus/pci/drivers/{driver}/unbind")), &device.to_string());
    match (unbound, current(writer, device)?) {
        (Err(WriteFailure { errno: Errno::ENODEV | Errno::ENOENT, .. }) | Ok(()), None) => Ok(()),
        (Ok(()), Some(still)) => {
            Err(failed(device, format!("unbind {driver}: it is bound to {still}"), Errno::EBUSY))
        }
        (Err(error), _) => Err(error),
    }
}

/// Nobody's, and nobody but the stub may have it.
pub(super) fn take_from_host(writer: &Writer, device: Sbdf, stub: &DriverName) -> Done {
    set_override(writer, device, stub.as_str())?;
    match current(writer, device)? {
        Some(driver) if driver == *stub => Ok(()),
        Some(driver) => unbind(writer, device, &driver),
        None => Ok(()),
    }
}

/// On the stub.
pub(super) fn put_on_stub(writer: &Writer, device: Sbdf, stub: &DriverName) -> Done {
    take_from_host(writer, device, stub)?;
    if current(writer, device)?.is_some() {
        return Ok(());
    }
    write(writer, device, sys("bus/pci/drivers_probe"), &device.to_string())?;
    let bound = |driver: Option<DriverName>| driver.is_some_and(|driver| driver == *stub);
    if bound(current(writer, device)?) {
        return Ok(());
    }
    // A probe that failed says nothing; a bind says why.
    write(writer, device, sys(format!("bus/pci/drivers/{stub}/bind")), &device.to_string())?;
    match current(writer, device)? {
        driver if bound(driver.clone()) => Ok(()),
        driver => {
            Err(failed(device, format!("bind {stub}: it is bound to {}", named(driver.as_ref())), Errno::EIO))
        }
    }
}

fn named(driver: Option<&DriverName>) -> &str {
    driver.map_or("nothing", DriverName::as_str)
}

/// Off the stub, if it is on one. EBUSY while somebody has the group open; nobody can open it meanwhile.
pub(super) fn take_from_stub(writer: &Writer, device: Sbdf, group: Option<GroupId>) -> Done {
    let Some(driver) = current(writer, device)?.filter(DriverName::is_stub) else { return Ok(()) };
    let kept = match group {
        // pci-stub has no files.
        Some(group) if driver != *"pci-stub" => Some(keep_group(writer, device, group)?),
        _ => None,
    };
    let unbound = unbind(writer, device, &driver);
    drop(kept);
    unbound
}

/// Opens the group, so that nobody else can.
fn keep_group(
    writer: &Writer,
    device: Sbdf,
    group: GroupId,
) -> Result<Box<dyn super::kernel::GroupFile>, WriteFailure> {
    let what = || format!("open /dev/vfio/{}: somebody has the group, or a device of it, open", group.0);
    writer.kernel().open_group(group).map_err(|errno| failed(device, what(), errno))
}

/// Whether somebody has the group, or a device of it, open. What cannot be asked counts as open.
pub(super) fn is_open(writer: &Writer, group: GroupId) -> bool {
    match writer.kernel().open_group(group) {
        Ok(_kept) => false,
        Err(Errno::ENOENT | Errno::ENODEV) => is_any_on_vfio(writer, group),
        Err(_) => true,
    }
}

/// Whether a member is on VFIO. Without one nobody can have the group open; with one and no file for the group (a
/// kernel that has files for devices only) it cannot be told.
fn is_any_on_vfio(writer: &Writer, group: GroupId) -> bool {
    let is_on_vfio = |member: &Sbdf| match function::driver(writer.kernel(), *member) {
        Ok(driver) => driver.is_some_and(|driver| driver.is_stub() && driver != *"pci-stub"),
        Err(_) => true,
    };
    match function::members(writer.kernel(), group) {
        Ok(members) => members.iter().any(is_on_vfio),
        Err(error) => !function::is_absent(error),
    }
}

/// With the host as it was before: its driver, its override.
pub(super) fn give_to_host(
    writer: &Writer,
    device: Sbdf,
    group: Option<GroupId>,
    original: &Original,
) -> Done {
    let (driver, text) = match original {
        Original::Known { driver, driver_override } => (driver.as_ref(), driver_override.as_str()),
        Original::Unknown => (None, ""),
    };
    // Somebody else's stub was there before, as it is now, and stays.
    if driver.is_none_or(|driver| current(writer, device).is_ok_and(|now| now.as_ref() != Some(driver))) {
        take_from_stub(writer, device, group)?;
    }
    set_override(writer, device, text)?;
    match (original, driver) {
        (Original::Unknown, _) => {
            write(writer, device, sys("bus/pci/drivers_probe"), &device.to_string())?;
            match current(writer, device)? {
                Some(driver) if driver.is_stub() => {
                    Err(failed(device, format!("probe: it is on {driver} again"), Errno::EBUSY))
                }
                _ => Ok(()),
            }
        }
        (_, None) => match current(writer, device)? {
            None => Ok(()),
            // It had none; something probed it meanwhile.
            Some(driver) => unbind(writer, device, &driver),
        },
        (_, Some(driver)) => bind(writer, device, driver),
    }
}

/// Binds a host driver: `bind` says what went wrong, which a probe does not.
fn bind(writer: &Writer, device: Sbdf, driver: &DriverName) -> Done {
    match current(writer, device)? {
        Some(now) if now == *driver => return Ok(()),
        Some(now) => unbind(writer, device, &now)?,
        None => {}
    }
    let bind = || write(writer, device, sys(format!("bus/pci/drivers/{driver}/bind")), &device.to_string());
    match bind() {
        Err(WriteFailure { errno: Errno::ENODEV, .. }) => {
            // It does not match: it was bound when the override said something else. Its own name always matches.
            let text = driver_override(writer, device)?;
            set_override(writer, device, driver.as_str())?;
            bind()?;
            set_override(writer, device, &text)?;
        }
        bound => bound?,
    }
    match current(writer, device)? {
        Some(now) if now == *driver => Ok(()),
        now => {
            Err(failed(device, format!("bind {driver}: it is bound to {}", named(now.as_ref())), Errno::EIO))
        }
    }
}
