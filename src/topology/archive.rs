//! A recording of sysfs in a tar archive, plain or compressed with gzip or xz.
//!
//! Read into memory in one pass and never unpacked to disk: entries are names and bytes, nothing more. Only the few
//! files and links that [`sysfs`](super::sysfs) reads are kept, each at most 4096 bytes, and links are resolved as
//! text inside the archive. A small archive can unpack to a huge one, so the unpacked size, the number of entries
//! and the memory of the xz decoder are bounded, and reaching a bound is an error that says so.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::directory::is_root_bus;
use super::machine::{Found, Machine};
use super::read::ReadError;
use super::sysfs::{FunctionFolder, read_function};
use super::warning::{Warning, WarningKind};
use crate::address::Sbdf;
use crate::device::FULL_SIZE;

/// The most bytes an archive may unpack to: room for 100,000 files, each padded to a page as `tar` sees sysfs.
const MAX_UNPACKED: u64 = 1 << 29;

/// The most entries of an archive.
const MAX_ENTRIES: usize = 1 << 19;

/// The longest path kept, in bytes; Linux has none longer.
const MAX_PATH: usize = 4096;

/// The most bytes of names, files and links kept.
const MAX_KEPT: usize = 1 << 28;

/// The most bytes of memory the xz decoder may ask for; `xz -9` needs an eighth of it.
const MAX_XZ_MEMORY: u64 = 1 << 29;

/// The files of a function's folder that [`sysfs`](super::sysfs) reads.
const FILES: [&str; 8] =
    ["class", "config", "device", "numa_node", "revision", "subsystem_device", "subsystem_vendor", "vendor"];

/// The links of a function's folder that it reads.
const LINKS: [&str; 3] = ["driver", "iommu_group", "physfn"];

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Whether these are the first bytes of a compressed file or of a tar archive.
pub(super) fn recognise(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || bytes.starts_with(XZ) || is_tar(bytes)
}

/// A tar archive is told by the checksum of its first header; old archives have no magic number.
fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.first_chunk::<512>() else { return false };
    let header = tar::Header::from_byte_slice(block);
    let (before, rest) = block.split_at(148);
    let after = rest.get(8..).unwrap_or_default();
    let sum: u32 = before.iter().chain(after).map(|byte| u32::from(*byte)).sum();
    header.cksum().is_ok_and(|stated| stated == sum + 8 * u32::from(b' '))
}

/// Reads a recording.
pub(super) fn read(bytes: &[u8]) -> Result<Machine, ReadError> {
    let mut warnings = Vec::new();
    let tree = if bytes.starts_with(GZIP) {
        Tree::read(flate2::read::MultiGzDecoder::new(bytes), &mut warnings)
    } else if bytes.starts_with(XZ) {
        let decoder =
            liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|error| ReadError::Archive(error.to_string()))?;
        Tree::read(liblzma::read::XzDecoder::new_stream(bytes, decoder), &mut warnings)
    } else {
        Tree::read(bytes, &mut warnings)
    }?;
    let functions = tree.functions(&mut warnings);
    if functions.is_empty() {
        return Err(ReadError::NoSysfsInArchive);
    }
    let found = functions.into_iter().map(|(address, path)| {
        let empty = Folder::default();
        let function = read_function(address, tree.folders.get(path).unwrap_or(&empty), &mut warnings);
        Found { function, line: None }
    });
    let found = found.collect();
    Ok(Machine::assemble(found, warnings))
}

/// What is kept of an archive.
#[derive(Default)]
struct Tree {
    /// The folders whose name is an address, by path.
    folders: BTreeMap<String, Folder>,
    /// The links whose name is an address, by path, with the path they lead to; `None` if out of the archive.
    links: BTreeMap<String, Option<String>>,
    kept: usize,
}

#[derive(Default)]
struct Folder {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// The last name of each link's target.
    links: BTreeMap<&'static str, String>,
}

impl Tree {
    fn read(stream: impl Read, warnings: &mut Vec<Warning>) -> Result<Self, ReadError> {
        let mut tree = Self::default();
        let mut archive = tar::Archive::new(Bounded { stream, left: MAX_UNPACKED, exceeded: false });
        let error = tree.read_entries(&mut archive).err();
        let bounded = archive.into_inner();
        match error {
            None => {}
            Some(EntryError::TooMany) => return Err(ReadError::ArchiveTooLarge),
            Some(EntryError::Damaged(_)) if bounded.exceeded => return Err(ReadError::ArchiveTooLarge),
            Some(EntryError::Damaged(error)) if tree.folders.is_empty() && tree.links.is_empty() => {
                return Err(ReadError::Archive(error.to_string()));
            }
            Some(EntryError::Damaged(error)) => {
                let message = format!("the archive ends early or is damaged: {error}");
                warnings.push(Warning { line: None, address: None, kind: WarningKind::Truncated, message });
            }
        }
        Ok(tree)
    }

    fn read_entries(&mut self, archive: &mut tar::Archive<impl Read>) -> Result<(), EntryError> {
        for (count, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            if count >= MAX_ENTRIES {
                return Err(EntryError::TooMany);
            }
            let Some(path) = normal_path("", &entry.path_bytes()) else { continue };
            let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
            match entry.header().entry_type() {
                tar::EntryType::Directory => self.folder(&path),
                tar::EntryType::Symlink => self.link(&path, &target.unwrap_or_default()),
                tar::EntryType::Regular | tar::EntryType::Continuous => self.file(&path, &mut entry)?,
                _ => {}
            }
            if self.kept > MAX_KEPT {
                return Err(EntryError::TooMany);
            }
        }
        Ok(())
    }

    /// Notes that a folder exists, and with it those it is in: archives need not have entries for folders.
    fn folder(&mut self, path: &str) {
        let mut path = Some(path);
        while let Some(folder) = path {
            if names_a_function(folder) && !self.folders.contains_key(folder) {
                self.kept += folder.len();
                self.folders.insert(folder.into(), Folder::default());
            }
            path = folder.rsplit_once('/').map(|(parent, _)| parent);
        }
    }

    fn file(&mut self, path: &str, content: &mut impl Read) -> io::Result<()> {
        let Some((folder, name)) = fact(path, &FILES) else { return Ok(()) };
        let mut bytes = Vec::new();
        content.take(FULL_SIZE as u64).read_to_end(&mut bytes)?;
        self.kept += path.len() + bytes.len();
        self.folder(folder);
        self.folders.entry(folder.into()).or_default().files.insert(name, bytes);
        Ok(())
    }

    fn link(&mut self, path: &str, target: &[u8]) {
        self.kept += path.len() + target.len();
        if let Some((folder, name)) = fact(path, &LINKS) {
            let target = String::from_utf8_lossy(target);
            self.folder(folder);
            let last = target.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            self.folders.entry(folder.into()).or_default().links.insert(name, last.to_owned());
        } else if let Some((parent, _)) = path.rsplit_once('/').filter(|_| names_a_function(path)) {
            self.links.insert(path.into(), normal_path(parent, target));
        }
    }

    /// Every function and the path of its folder: those under `devices/pci*`, then those in `bus/pci/devices`.
    fn functions(&self, warnings: &mut Vec<Warning>) -> BTreeMap<Sbdf, &str> {
        let mut functions = BTreeMap::new();
        for path in self.folders.keys().filter(|path| path.split('/').any(is_root_bus)) {
            if let Some(address) = address_of(path) {
                functions.entry(address).or_insert(path.as_str());
            }
        }
        let on_bus = |path: &&String| path.rsplit_once('/').is_some_and(|(parent, _)| is_bus_folder(parent));
        for path in self.folders.keys().filter(on_bus) {
            if let Some(address) = address_of(path) {
                functions.entry(address).or_insert(path);
            }
        }
        for (path, target) in self.links.iter().filter(|(path, _)| on_bus(path)) {
            let Some(address) = address_of(path).filter(|address| !functions.contains_key(address)) else {
                continue;
            };
            let folder = target.as_ref().and_then(|target| self.folders.get_key_value(target));
            let target = folder.map_or("", |(target, _)| target.as_str());
            if target.is_empty() {
                let message = "its link leads to no folder of the archive".into();
                warnings.push(Warning {
                    line: None,
                    address: Some(address),
                    kind: WarningKind::Dangling,
                    message,
                });
            }
            functions.insert(address, target);
        }
        functions
    }
}

/// Why reading the entries stopped.
enum EntryError {
    TooMany,
    Damaged(io::Error),
}

impl From<io::Error> for EntryError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

impl FunctionFolder for Folder {
    fn file(&self, name: &'static str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.files.get(name).cloned())
    }

    fn link(&self, name: &'static str) -> Option<String> {
        self.links.get(name).cloned()
    }
}

/// A path as text without `.`, `..` and doubled slashes, seen from `base`; `None` if it leads out of the archive,
/// is absolute, too long, or no UTF-8.
fn normal_path(base: &str, path: &[u8]) -> Option<String> {
    let path = str::from_utf8(path).ok().filter(|path| path.len() <= MAX_PATH)?;
    if path.starts_with('/') && !base.is_empty() {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The folder and name of a path that is one of a function's facts.
fn fact<'p>(path: &'p str, names: &[&'static str]) -> Option<(&'p str, &'static str)> {
    let (folder, name) = path.rsplit_once('/')?;
    let name = names.iter().find(|known| **known == name)?;
    names_a_function(folder).then_some((folder, name))
}

fn address_of(path: &str) -> Option<Sbdf> {
    path.rsplit('/').next()?.parse().ok()
}

fn names_a_function(path: &str) -> bool {
    address_of(path).is_some()
}

fn is_bus_folder(path: &str) -> bool {
    path == "bus/pci/devices" || path.ends_with("/bus/pci/devices")
}

/// A stream that fails once it has given `left` bytes.
struct Bounded<R> {
    stream: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.exceeded = true;
            return Err(io::Error::other("too large"));
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
