//! Holds a VFIO group or device open, as a virtual machine monitor does.
//!
//! ```text
//! holder group 7                         the group's file alone
//! holder device 7 0000:01:00.0           container, group and device
//! holder device 7 0000:01:00.0 polite    the same, and gives the device back when the kernel asks for it
//! ```
//!
//! Says `open` when it has it, and closes it when its standard input ends. What cannot be opened is named, with the
//! kernel's number as the exit status.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::process::ExitCode;

/// `_IO(';', 100 + number)`, as `linux/vfio.h` numbers its requests.
const fn request(number: libc::c_ulong) -> libc::c_ulong {
    (b';' as libc::c_ulong) << 8 | (100 + number)
}

const SET_IOMMU: libc::c_ulong = request(2);
const GROUP_SET_CONTAINER: libc::c_ulong = request(4);
const GROUP_GET_DEVICE: libc::c_ulong = request(6);
const DEVICE_SET_IRQS: libc::c_ulong = request(10);
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1_V2: libc::c_ulong = 3;
/// `VFIO_PCI_REQ_IRQ_INDEX`: the kernel wants the device back.
const WANTED_BACK: u32 = 4;
/// `VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER`.
const TRIGGERS_EVENT: u32 = 1 << 2 | 1 << 5;

/// What is open; closed in this order.
struct Held {
    device: Option<File>,
    _group: File,
    _container: Option<File>,
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<RawFd> {
    // SAFETY: every request of this program takes a number, or a pointer to what outlives the call and is as large as
    // the kernel reads; none lets the kernel write.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn hold_device(group: &str, device: &str) -> io::Result<Held> {
    let container = open("/dev/vfio/vfio")?;
    let group = open(&format!("/dev/vfio/{group}"))?;
    let number = container.as_raw_fd();
    ioctl(&group, GROUP_SET_CONTAINER, &raw const number as libc::c_ulong)?;
    ioctl(&container, SET_IOMMU, TYPE1_V2)?;
    let name = CString::new(device)?;
    let device = ioctl(&group, GROUP_GET_DEVICE, name.as_ptr() as libc::c_ulong)?;
    // SAFETY: the kernel has just made it, for us.
    let device = unsafe { File::from_raw_fd(device) };
    Ok(Held { device: Some(device), _group: group, _container: Some(container) })
}

/// Waits until the kernel asks for the device, or the standard input ends.
fn wait_until_asked(device: &File) -> io::Result<()> {
    // SAFETY: no pointers.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // struct vfio_irq_set: its size, flags, index, start, count; then the file.
    let set = [24, TRIGGERS_EVENT, WANTED_BACK, 0, 1, event.cast_unsigned()];
    ioctl(device, DEVICE_SET_IRQS, set.as_ptr() as libc::c_ulong)?;
    let wanted = libc::POLLIN | libc::POLLHUP;
    let mut files = [event, io::stdin().as_raw_fd()].map(|fd| libc::pollfd { fd, events: wanted, revents: 0 });
    // SAFETY: two of them, and both live.
    match unsafe { libc::poll(files.as_mut_ptr(), 2, -1) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run(arguments: &[&str]) -> io::Result<()> {
    let (held, is_polite) = match arguments {
        ["group", group] => {
            (Held { device: None, _group: open(&format!("/dev/vfio/{group}"))?, _container: None }, false)
        }
        ["device", group, device] => (hold_device(group, device)?, false),
        ["device", group, device, "polite"] => (hold_device(group, device)?, true),
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let mut out = io::stdout();
    writeln!(out, "open")?;
    out.flush()?;
    match &held.device {
        Some(device) if is_polite => wait_until_asked(device),
        _ => io::stdin().read_to_end(&mut Vec::new()).map(|_| ()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holder {arguments:?}: {error}");
            ExitCode::from(error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(1))
        }
    }
}
