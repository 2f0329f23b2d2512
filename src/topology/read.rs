//! From a source to a machine: which reader understands it, and what is wrong if none does.
//!
//! To add a reader, write a file with `recognise` and `read` and add a row to [`READERS`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::machine::Machine;
use super::{directory, lspci};

/// The largest file read, in bytes. Text of the largest machines is a hundredth of it.
const MAX_FILE: u64 = 1 << 28;

/// A format of files: its first bytes' test, and its reader.
struct Reader {
    recognise: fn(&[u8]) -> bool,
    read: fn(&[u8]) -> Result<Machine, ReadError>,
}

/// In the order asked. Formats told by a magic number come first, text last.
const READERS: &[Reader] = &[
    #[cfg(feature = "topology-archives")]
    Reader { recognise: super::archive::recognise, read: super::archive::read },
    Reader { recognise: is_lspci, read: |bytes| Ok(lspci::read(&String::from_utf8_lossy(bytes))) },
];

/// Binary files are no text even if an address can be found in them.
fn is_lspci(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && lspci::recognise(&String::from_utf8_lossy(bytes))
}

/// Why a source gives no machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source does not exist or cannot be opened. Check its name and permissions.
    #[error("cannot read {}: {error}; expected a folder or a file", path.display())]
    Unreadable {
        /// The source.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The source has no bytes. Record it again.
    #[error(
        "the source is empty; expected a sysfs tree, a tar archive of one, or the text of `lspci -nn -vvv -xxxx`"
    )]
    Empty,
    /// A directory without sysfs's PCI folders. Give the folder that contains `sys`.
    #[error("{} is no sysfs tree: expected bus/pci/devices or devices/pci* in it, in its sys, or a little below", .0.display())]
    NoSysfsTree(PathBuf),
    /// A file in none of the known formats.
    #[error(
        "unknown format: expected a tar archive (plain, gzip or xz) of a sysfs tree, or the text of `lspci -nn -vvv -xxxx`"
    )]
    UnknownFormat,
    /// An archive that is damaged from the start.
    #[error("the archive cannot be read: {0}; expected a tar archive (plain, gzip or xz) of a sysfs tree")]
    Archive(String),
    /// An archive that unpacks to more than the bounds of its reader: no sysfs tree, or made to harm.
    #[error(
        "the archive unpacks to more than 512 MiB or 524288 entries; expected a recording of a sysfs tree"
    )]
    ArchiveTooLarge,
    /// An archive with no PCI function in it.
    #[error("the archive holds no PCI functions; expected sys/devices/pci* or sys/bus/pci/devices in it")]
    NoSysfsInArchive,
    /// A file too large to be read.
    #[error("{} is larger than 256 MiB; expected a recording of a sysfs tree or the text of `lspci`", .0.display())]
    FileTooLarge(PathBuf),
    /// The source is in order and describes no PCI function.
    #[error("{} holds no PCI functions; expected at least one", .0.display())]
    NoFunctions(PathBuf),
    /// The live host has no PCI, or shows none. The bundled machine can stand in.
    #[error("this host shows no PCI functions in /sys")]
    NoPciHere,
}

impl Machine {
    /// Reads a machine from a directory with a sysfs tree, an archive of one, or `lspci` text.
    ///
    /// The directory may be `sys`, one that contains `sys`, or one a little above. Archives need the feature
    /// `topology-archives`. A machine without any function is an error.
    ///
    /// ```no_run
    /// use pcidevs::topology::Machine;
    /// let machine = Machine::read("recording.tar.xz".as_ref())?;
    /// println!("{} functions, {} warnings", machine.functions.len(), machine.warnings.len());
    /// # Ok::<(), pcidevs::topology::ReadError>(())
    /// ```
    pub fn read(source: &Path) -> Result<Self, ReadError> {
        let unreadable = |error| ReadError::Unreadable { path: source.into(), error };
        let metadata = fs::metadata(source).map_err(unreadable)?;
        let machine = if metadata.is_dir() {
            directory::read(source)?
        } else {
            let mut bytes = Vec::new();
            let file = File::open(source).map_err(unreadable)?;
            let length = file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            if length as u64 > MAX_FILE {
                return Err(ReadError::FileTooLarge(source.into()));
            }
            Self::from_bytes(&bytes)?
        };
        if machine.functions.is_empty() { Err(ReadError::NoFunctions(source.into())) } else { Ok(machine) }
    }

    /// Reads the machine this program runs on, from `/sys`. Nothing is written and no device is touched but for
    /// reads of its configuration space through the kernel.
    ///
    /// A host without PCI is [`ReadError::NoPciHere`].
    pub fn read_live() -> Result<Self, ReadError> {
        match Self::read(Path::new("/sys")) {
            Err(ReadError::NoSysfsTree(_) | ReadError::NoFunctions(_)) => Err(ReadError::NoPciHere),
            Err(ReadError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Err(ReadError::NoPciHere)
            }
            other => other,
        }
    }

    /// Reads the content of a file in any of the known formats.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.is_empty() {
            return Err(ReadError::Empty);
        }
        let reader =
            READERS.iter().find(|reader| (reader.recognise)(bytes)).ok_or(ReadError::UnknownFormat)?;
        (reader.read)(bytes)
    }

    /// Reads the text of `lspci`. Text that lists no function gives a machine without functions.
    ///
    /// ```
    /// use pcidevs::topology::Machine;
    /// let machine = Machine::from_lspci("00:02.0 VGA compatible controller [0300]: Device [1234:1111] (rev 02)\n");
    /// assert_eq!(machine.functions[0].vendor, Some(0x1234));
    /// assert_eq!(machine.functions[0].class, Some(0x030000));
    /// ```
    pub fn from_lspci(text: &str) -> Self {
        lspci::read(text)
    }

    /// Reads a tar archive of a sysfs tree: plain, gzip or xz.
    #[cfg(feature = "topology-archives")]
    pub fn from_tar(bytes: &[u8]) -> Result<Self, ReadError> {
        super::archive::read(bytes)
    }

    /// The machine that comes with this crate: 59 functions, two of them SR-IOV physical functions with 37
    /// virtual ones, in 53 IOMMU groups.
    ///
    /// It is emulated, not real hardware: recorded from Linux running in QEMU.
    #[cfg(feature = "topology-archives")]
    pub fn bundled() -> Result<Self, ReadError> {
        super::archive::read(include_bytes!("q35-sriov-sysfs.tar.xz"))
    }
}
