//! The running kernel, or a copy of its folders anywhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::rtnetlink;
use super::vfio;
use super::{GroupFile, Kernel, Place, Root};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::network::{KeptNetwork, NetworkChange};
use crate::platform::GroupId;

/// `O_NONBLOCK`, the same on every architecture that has VFIO: keeps the opening of a pipe in a copied tree from
/// blocking.
const NONBLOCK: i32 = 0o4000;

/// The folders of the running kernel.
///
/// ```no_run
/// # #[cfg(target_os = "linux")] {
/// use pcidevs::host::{Linux, Root};
/// let kernel = Linux::new().with_root(Root::Sys, "/mnt/sys");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Linux {
    sys: PathBuf,
    dev: PathBuf,
    proc: PathBuf,
    modules: PathBuf,
}

impl Linux {
    /// The usual folders.
    pub fn new() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into(), proc: "/proc".into(), modules: "/lib/modules".into() }
    }

    /// One folder somewhere else.
    #[must_use]
    pub fn with_root(mut self, root: Root, folder: impl Into<PathBuf>) -> Self {
        *match root {
            Root::Sys => &mut self.sys,
            Root::Dev => &mut self.dev,
            Root::Proc => &mut self.proc,
            Root::Modules => &mut self.modules,
        } = folder.into();
        self
    }

    fn path(&self, place: &Place) -> PathBuf {
        let root = match place.root() {
            Root::Sys => &self.sys,
            Root::Dev => &self.dev,
            Root::Proc => &self.proc,
            Root::Modules => &self.modules,
        };
        root.join(place.path())
    }

    /// A copied tree has interfaces of another machine; the sockets here are this one's.
    fn check_running(&self) -> Result<(), Errno> {
        if self.sys == Path::new("/sys") { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    fn open_to_read(&self, place: &Place) -> Result<File, Errno> {
        OpenOptions::new().read(true).custom_flags(NONBLOCK).open(self.path(place)).map_err(errno)
    }

    fn open_to_write(&self, place: &Place) -> Result<File, Errno> {
        OpenOptions::new().write(true).custom_flags(NONBLOCK).open(self.path(place)).map_err(errno)
    }
}

impl Default for Linux {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel's number of an error; those that the standard library makes up itself are EIO.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::new)
}

struct OpenGroup {
    _file: File,
}

impl GroupFile for OpenGroup {}

impl Kernel for Linux {
    fn read(&self, place: &Place, limit: usize) -> Result<Vec<u8>, Errno> {
        let file = self.open_to_read(place)?;
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes).map_err(errno)?;
        if bytes.len() > limit { Err(Errno::EFBIG) } else { Ok(bytes) }
    }

    fn read_at(&self, place: &Place, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.open_to_read(place)?.read_at(bytes, offset).map_err(errno)
    }

    fn write(&self, place: &Place, bytes: &[u8]) -> Result<(), Errno> {
        self.write_at(place, 0, bytes)
    }

    fn write_at(&self, place: &Place, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.open_to_write(place)?;
        // One call: sysfs takes each write as a whole value, so the rest of a short one would be another value.
        match file.write_at(bytes, offset) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(Errno::EIO),
            Err(error) => Err(errno(error)),
        }
    }

    fn read_link(&self, place: &Place) -> Result<String, Errno> {
        let target = fs::read_link(self.path(place)).map_err(errno)?;
        target.into_os_string().into_string().map_err(|_| Errno::EINVAL)
    }

    fn list(&self, place: &Place, limit: usize) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(place)).map_err(errno)?.take(limit) {
            if let Ok(name) = entry.map_err(errno)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open_group(&self, group: GroupId) -> Result<Box<dyn GroupFile>, Errno> {
        let path = self.dev.join("vfio").join(group.0.to_string());
        // A file that is no device would never say EBUSY.
        let file = OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(path);
        Ok(Box::new(OpenGroup { _file: file.map_err(errno)? }))
    }

    fn hot_reset(&self, device: Sbdf, groups: &[GroupId]) -> Result<(), Errno> {
        vfio::hot_reset(&self.dev.join("vfio"), device, groups)
    }

    fn load_module(&self, name: &str) -> Result<(), Errno> {
        let mut modprobe = Command::new("modprobe");
        modprobe.args(["-q", "--", name]);
        modprobe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match modprobe.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(Errno::ENOENT),
            Err(error) => Err(errno(error)),
        }
    }

    fn virtual_network(&self, interface: u32, number: u16) -> Result<KeptNetwork, Errno> {
        self.check_running()?;
        rtnetlink::virtual_network(interface, number)
    }

    fn set_virtual_network(&self, interface: u32, number: u16, change: NetworkChange) -> Result<(), Errno> {
        self.check_running()?;
        rtnetlink::set_virtual_network(interface, number, change)
    }
}
