//! VFIO's hot reset: a whole bus is reset by whoever has all groups of its functions open.
//!
//! The kernel's own `reset` refuses a function that has siblings on its bus, because it cannot know that nobody uses
//! them. VFIO can: whoever shows it the files of all their groups is their only user.
#![allow(unsafe_code, reason = "VFIO is asked by ioctl")]

use std::ffi::{CString, c_void};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::Path;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

use super::errno;
use crate::Sbdf;
use crate::errno::Errno;
use crate::platform::GroupId;

/// `_IO(';', 100 + number)`, as `linux/vfio.h` numbers its requests.
const fn request(number: Opcode) -> Opcode {
    (b';' as Opcode) << 8 | (100 + number)
}

const SET_IOMMU: Opcode = request(2);
const GROUP_SET_CONTAINER: Opcode = request(4);
const GROUP_GET_DEVICE: Opcode = request(6);
const DEVICE_HOT_RESET: Opcode = request(13);
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1_V2: usize = 3;

/// A request whose argument is only read by the kernel: a number, or a pointer.
struct Request {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: the opcode and the argument are those of one request, as they were put together; the kernel writes to none of
// the arguments used here, and what it returns is a number.
unsafe impl Ioctl for Request {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

/// # Safety
///
/// `argument` is what this request takes: a number, or a pointer to all that the kernel reads.
unsafe fn ask(file: &File, opcode: Opcode, argument: *mut c_void) -> Result<IoctlOutput, Errno> {
    // SAFETY: as the caller says.
    let answer = unsafe { rustix::ioctl::ioctl(file.as_fd(), Request { opcode, argument }) };
    answer.map_err(|error| Errno::new(error.raw_os_error()))
}

fn open(path: &Path) -> Result<File, Errno> {
    OpenOptions::new().read(true).write(true).open(path).map_err(errno)
}

/// Resets the bus of a device. `groups` are those of all functions on it, the device's own first.
pub(super) fn hot_reset(vfio: &Path, device: Sbdf, groups: &[GroupId]) -> Result<(), Errno> {
    let container = open(&vfio.join("vfio"))?;
    let opened: Result<Vec<File>, Errno> =
        groups.iter().map(|group| open(&vfio.join(group.0.to_string()))).collect();
    let opened = opened?;
    let own = opened.first().ok_or(Errno::EINVAL)?;
    let mut number = container.as_raw_fd();
    // SAFETY: a pointer to the number of the container's file.
    unsafe { ask(own, GROUP_SET_CONTAINER, (&raw mut number).cast())? };
    // SAFETY: a number.
    unsafe { ask(&container, SET_IOMMU, std::ptr::without_provenance_mut(TYPE1_V2))? };
    let name = CString::new(device.to_string()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a pointer to a text that ends with NUL.
    let file = unsafe { ask(own, GROUP_GET_DEVICE, name.as_ptr().cast_mut().cast())? };
    // SAFETY: the kernel has just made it, for us alone.
    let file = unsafe { File::from_raw_fd(file) };
    // struct vfio_pci_hot_reset: its size, flags, how many groups; then their files.
    let count = u32::try_from(opened.len()).map_err(|_| Errno::EINVAL)?;
    let mut reset = vec![12 + 4 * count, 0, count];
    reset.extend(opened.iter().map(|group| group.as_raw_fd().cast_unsigned()));
    // SAFETY: a pointer to as many bytes as its first word says.
    unsafe { ask(&file, DEVICE_HOT_RESET, reset.as_mut_ptr().cast())? };
    Ok(())
}
