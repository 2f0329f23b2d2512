//! The library's functions; all the `unsafe`.
//!
//! Their types are written from the public header of Xen 4.17, `xenctrl.h`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use super::layout::DomainInformation;
use crate::errno::Errno;
use crate::xen::hypercall::call::{Frames, Gsi, Pirq, Ports};
use crate::xen::hypercall::error::HypercallError;

/// An open `xc_interface`.
type Raw = *mut c_void;

/// The functions we call.
///
/// # Invariants
/// Each pointer is the function of that name in a library that is never unloaded, of the type its header gives it.
struct Functions {
    open: unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint) -> Raw,
    close: unsafe extern "C" fn(Raw) -> c_int,
    version: unsafe extern "C" fn(Raw, c_int, *mut c_void) -> c_int,
    domain_getinfolist: unsafe extern "C" fn(Raw, u32, c_uint, *mut DomainInformation) -> c_int,
    get_device_group: unsafe extern "C" fn(Raw, u32, u32, u32, *mut u32, *mut u32) -> c_int,
    test_assign_device: unsafe extern "C" fn(Raw, u32, u32) -> c_int,
    assign_device: unsafe extern "C" fn(Raw, u32, u32, u32) -> c_int,
    deassign_device: unsafe extern "C" fn(Raw, u32, u32) -> c_int,
    // `unsigned long` is as wide as a pointer on Linux.
    iomem_permission: unsafe extern "C" fn(Raw, u32, usize, usize, u8) -> c_int,
    ioport_permission: unsafe extern "C" fn(Raw, u32, u32, u32, u32) -> c_int,
    map_pirq: unsafe extern "C" fn(Raw, u32, c_int, *mut c_int) -> c_int,
    unmap_pirq: unsafe extern "C" fn(Raw, u32, c_int) -> c_int,
    irq_permission: unsafe extern "C" fn(Raw, u32, u32, bool) -> c_int,
}

/// A library that has all the functions.
pub(super) struct Library {
    path: PathBuf,
    functions: Functions,
}

impl Library {
    /// Loads a file, or what the loader finds by a name without a folder. It stays in memory for good.
    ///
    /// # Errors
    /// What the loader says.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers. The paths are names of Xen's own library in the loader's folders
        // and in folders of root's (`find`), and it has none that ask anything of their caller.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| told(&error))?;
        // SAFETY: the types are those that the headers of 4.17 give these names. Another version's may differ only where
        // `Libxenctrl::check_version` refuses it before they are called: `xc_interface_open`, `xc_interface_close`,
        // `xc_version` and `xc_domain_getinfolist`, which are called before, have had theirs since Xen 4.1.
        let functions = unsafe { functions(&library) }.map_err(|error| told(&error))?;
        // INVARIANT: not unloaded. It keeps a buffer for each thread with a destructor of its own, which would otherwise be
        // called when such a thread ends and be no more.
        mem::forget(library);
        Ok(Self { path: path.to_owned(), functions })
    }
}

/// An error of the loader with its cause, which has the names.
fn told(error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// # Safety
/// The functions of these names must have these types.
unsafe fn functions(library: &libloading::Library) -> Result<Functions, libloading::Error> {
    // SAFETY: the caller's.
    unsafe {
        Ok(Functions {
            open: *library.get(b"xc_interface_open\0")?,
            close: *library.get(b"xc_interface_close\0")?,
            version: *library.get(b"xc_version\0")?,
            domain_getinfolist: *library.get(b"xc_domain_getinfolist\0")?,
            get_device_group: *library.get(b"xc_get_device_group\0")?,
            test_assign_device: *library.get(b"xc_test_assign_device\0")?,
            assign_device: *library.get(b"xc_assign_device\0")?,
            deassign_device: *library.get(b"xc_deassign_device\0")?,
            iomem_permission: *library.get(b"xc_domain_iomem_permission\0")?,
            ioport_permission: *library.get(b"xc_domain_ioport_permission\0")?,
            map_pirq: *library.get(b"xc_physdev_map_pirq\0")?,
            unmap_pirq: *library.get(b"xc_physdev_unmap_pirq\0")?,
            irq_permission: *library.get(b"xc_domain_irq_permission\0")?,
        })
    }
}

/// Room for one answer, of any version: a library that is not of 4.17 copies out what *it* takes the size to be, before
/// the version is known to be wrong.
#[repr(C)]
#[derive(Default)]
struct Answer {
    information: DomainInformation,
    room: [[u64; 32]; 8],
}

/// `xc_version`'s question for the version itself.
const XENVER_VERSION: c_int = 0;

/// `XEN_DOMCTL_DEV_RDM_RELAXED`.
const RDM_RELAXED: u32 = 1;

/// An open handle. It can be used from many threads: it was not opened as "non-reentrant", and then the library locks what it
/// shares between calls.
pub(super) struct Handle {
    raw: NonNull<c_void>,
    library: Library,
}

// SAFETY: the library ties a handle to no thread, and locks for itself unless told not to; see `Handle`.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // A failure leaves nothing that could be done: the handle is closed then too, says the header.
        // SAFETY: the handle is open, and nobody has it after this.
        let _closed = unsafe { (self.library.functions.close)(self.raw.as_ptr()) };
    }
}

/// What these functions do to say no: a negative number, and `errno`.
fn checked(result: c_int) -> Result<c_int, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    // Not all of them set it; then it is from another time, but never 0 for a failure.
    Err(io::Error::last_os_error().raw_os_error().filter(|&number| number > 0).map_or(Errno::EIO, Errno::new))
}

impl Handle {
    pub(super) fn open(library: Library) -> Result<Self, HypercallError> {
        // SAFETY: both loggers may be null, and mean the error stream; 0 are no flags.
        let raw = unsafe { (library.functions.open)(ptr::null_mut(), ptr::null_mut(), 0) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, library }),
            None => Err(HypercallError::Unreachable { errno: checked(-1).err().unwrap_or(Errno::EIO) }),
        }
    }

    pub(super) fn library(&self) -> &Path {
        &self.library.path
    }

    /// Major and minor number.
    pub(super) fn version(&self) -> Result<(u16, u16), Errno> {
        // SAFETY: the handle is open; this question has no argument.
        let version = checked(unsafe {
            (self.library.functions.version)(self.raw.as_ptr(), XENVER_VERSION, ptr::null_mut())
        })?;
        let [a, b, c, d] = version.to_be_bytes();
        Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The first domain from this number on, if there is one.
    pub(super) fn domain_information(&self, first: u32) -> Result<Option<DomainInformation>, Errno> {
        let mut answer = Answer::default();
        // SAFETY: the handle is open, and the answer has room for the one that is asked for.
        let found = checked(unsafe {
            let at = (&raw mut answer).cast();
            (self.library.functions.domain_getinfolist)(self.raw.as_ptr(), first, 1, at)
        })?;
        Ok((found > 0).then_some(answer.information))
    }

    /// Asks for the devices that are isolated together with this one, and forgets them.
    pub(super) fn device_group(&self, domain: u32, device: u32) -> Result<(), Errno> {
        const MOST: u32 = 32;
        let mut devices = [0; MOST as usize];
        let mut count = 0;
        // SAFETY: the handle is open; the array has the room that is said, and the count is ours.
        checked(unsafe {
            (self.library.functions.get_device_group)(
                self.raw.as_ptr(),
                domain,
                device,
                MOST,
                &raw mut count,
                devices.as_mut_ptr(),
            )
        })?;
        Ok(())
    }

    pub(super) fn test_assign_device(&self, domain: u32, device: u32) -> Result<(), Errno> {
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe { (self.library.functions.test_assign_device)(self.raw.as_ptr(), domain, device) })?;
        Ok(())
    }

    pub(super) fn assign_device(&self, domain: u32, device: u32, relaxed: bool) -> Result<(), Errno> {
        let flags = if relaxed { RDM_RELAXED } else { 0 };
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe { (self.library.functions.assign_device)(self.raw.as_ptr(), domain, device, flags) })?;
        Ok(())
    }

    pub(super) fn deassign_device(&self, domain: u32, device: u32) -> Result<(), Errno> {
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe { (self.library.functions.deassign_device)(self.raw.as_ptr(), domain, device) })?;
        Ok(())
    }

    pub(super) fn iomem_permission(&self, domain: u32, frames: Frames, allow: bool) -> Result<(), Errno> {
        let out_of_range = |_| Errno::ERANGE;
        let first = usize::try_from(frames.first()).map_err(out_of_range)?;
        let count = usize::try_from(frames.count()).map_err(out_of_range)?;
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe {
            (self.library.functions.iomem_permission)(self.raw.as_ptr(), domain, first, count, allow.into())
        })?;
        Ok(())
    }

    pub(super) fn ioport_permission(&self, domain: u32, ports: Ports, allow: bool) -> Result<(), Errno> {
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe {
            let raw = self.raw.as_ptr();
            (self.library.functions.ioport_permission)(
                raw,
                domain,
                ports.first().into(),
                ports.count(),
                allow.into(),
            )
        })?;
        Ok(())
    }

    /// Asks for the line's own number, and says which it became.
    pub(super) fn map_pirq(&self, domain: u32, gsi: Gsi) -> Result<c_int, Errno> {
        let mut pirq = gsi.number().cast_signed();
        // SAFETY: the handle is open, and the number is ours.
        checked(unsafe {
            let line = gsi.number().cast_signed();
            (self.library.functions.map_pirq)(self.raw.as_ptr(), domain, line, &raw mut pirq)
        })?;
        Ok(pirq)
    }

    pub(super) fn unmap_pirq(&self, domain: u32, pirq: Pirq) -> Result<(), Errno> {
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe {
            (self.library.functions.unmap_pirq)(self.raw.as_ptr(), domain, pirq.number().cast_signed())
        })?;
        Ok(())
    }

    pub(super) fn irq_permission(&self, domain: u32, pirq: Pirq, allow: bool) -> Result<(), Errno> {
        // SAFETY: the handle is open; the rest are numbers.
        checked(unsafe {
            (self.library.functions.irq_permission)(self.raw.as_ptr(), domain, pirq.number(), allow)
        })?;
        Ok(())
    }
}
