//! What the host manager asks of a kernel: reading and writing small files below four folders, and the little that has
//! no file.
//!
//! Everything goes through here, so that the same manager, and the same tests, run on a kernel in memory and on a
//! real one. A [`Place`] cannot lead out of its folder; what is read is bounded; errors are the kernel's numbers.

mod linux;
mod rtnetlink;
mod vfio;

use std::fmt;

pub use linux::Linux;
pub(crate) use linux::errno;

use super::network::{KeptNetwork, NetworkChange};
use crate::Sbdf;
use crate::errno::Errno;
use crate::platform::GroupId;

/// A folder that a place is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// `/sys`.
    Sys,
    /// `/dev`.
    Dev,
    /// `/proc`.
    Proc,
    /// `/lib/modules`.
    Modules,
}

/// The longest path below a root.
const LONGEST: usize = 1024;

/// A file below one of the roots: relative, without `.`, `..`, empty components and NUL.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use pcidevs::host::{Place, Root};
/// assert!(Place::new(Root::Sys, "bus/pci/drivers_probe").is_ok());
/// assert!(Place::new(Root::Sys, "bus/../../etc").is_err());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    root: Root,
    path: String,
}

impl Place {
    /// A checked place; EINVAL for anything that could lead elsewhere.
    pub fn new(root: Root, path: impl Into<String>) -> Result<Self, Errno> {
        let path = path.into();
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        let fits = path.len() <= LONGEST;
        if fits && path.split('/').all(is_plain) { Ok(Self { root, path }) } else { Err(Errno::EINVAL) }
    }

    /// The folder it is in.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The path below that.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = match self.root {
            Root::Sys => "/sys",
            Root::Dev => "/dev",
            Root::Proc => "/proc",
            Root::Modules => "/lib/modules",
        };
        // A name from outside may hold anything: what could move a cursor is escaped.
        write!(f, "{root}/{}", self.path.escape_debug())
    }
}

/// An IOMMU group's file, held open: nobody else can open the group meanwhile. Dropping it closes it.
pub trait GroupFile: Send {}

/// A kernel, as files.
///
/// Reads may block where the real kernel's do; so may writes. The manager knows which do.
pub trait Kernel: Send + Sync + 'static {
    /// A file's whole content; EFBIG if it is longer than `limit`.
    fn read(&self, place: &Place, limit: usize) -> Result<Vec<u8>, Errno>;

    /// Bytes of a file from `offset` on, as many as there are.
    fn read_at(&self, place: &Place, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno>;

    /// Writes a file in one system call; a short write is EIO. Files are not created.
    fn write(&self, place: &Place, bytes: &[u8]) -> Result<(), Errno>;

    /// Writes into a file at `offset`.
    fn write_at(&self, place: &Place, offset: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// A link's target, as it is stored; EINVAL if it is no link or not text.
    fn read_link(&self, place: &Place) -> Result<String, Errno>;

    /// The names in a folder, sorted, at most `limit`; names that are not text are left out.
    fn list(&self, place: &Place, limit: usize) -> Result<Vec<String>, Errno>;

    /// Opens a VFIO group. EBUSY while anybody has it, or a device of it, open; ENOENT without one.
    fn open_group(&self, group: GroupId) -> Result<Box<dyn GroupFile>, Errno>;

    /// Resets a device's whole bus, as VFIO's hot reset does. `groups` are those of all functions there, the device's
    /// first. Every function must be on VFIO, and nobody may have any of the groups open: EBUSY.
    fn hot_reset(&self, device: Sbdf, groups: &[GroupId]) -> Result<(), Errno>;

    /// Loads a module.
    fn load_module(&self, name: &str) -> Result<(), Errno>;

    /// What the network interface with this index keeps of virtual function `number` of its card, counted from 0.
    /// EOPNOTSUPP if its driver keeps nothing, ENODEV if there is no such interface or function.
    fn virtual_network(&self, interface: u32, number: u16) -> Result<KeptNetwork, Errno>;

    /// Changes that. EOPNOTSUPP if its driver cannot.
    fn set_virtual_network(&self, interface: u32, number: u16, change: NetworkChange) -> Result<(), Errno>;
}
