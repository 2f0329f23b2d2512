//! A sysfs tree on disk: the live `/sys`, or a copy of one in any folder.
//!
//! Functions are found in two places and the union is taken: the folders nested under `devices/pci*`, and the
//! links in `bus/pci/devices`. Recordings exist in which either lacks some. Nothing is ever written, and no link
//! is followed out of the tree: a copy with absolute links would otherwise show the host's devices.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::function::Function;
use super::machine::{Found, Machine};
use super::read::ReadError;
use super::sysfs::{FunctionFolder, read_function};
use super::warning::{Warning, WarningKind};
use crate::address::Sbdf;
use crate::device::FULL_SIZE;

/// How many folders deep below the given one a tree is looked for.
const SEARCH_DEPTH: usize = 3;

/// How many folders are looked at while searching. Trees stand near the top; this keeps a home folder cheap.
const SEARCH_FOLDERS: usize = 4096;

/// The most functions read from a tree: every address of one segment.
const MAX_FUNCTIONS: usize = 1 << 16;

/// Each function's folder; `None` for one that is known to exist but has no folder in the tree.
type Folders = BTreeMap<Sbdf, Option<PathBuf>>;

/// Reads the tree in `folder`, which may be `sys` itself or a folder above it.
pub(super) fn read(folder: &Path) -> Result<Machine, ReadError> {
    let unreadable = |error| ReadError::Unreadable { path: folder.into(), error };
    fs::read_dir(folder).map_err(unreadable)?;
    let root = find_tree(folder).ok_or_else(|| ReadError::NoSysfsTree(folder.into()))?;
    let root = fs::canonicalize(root).map_err(unreadable)?;
    let mut warnings = Vec::new();
    let mut folders = Folders::new();
    nested_functions(&root.join("devices"), &mut folders, &mut warnings);
    linked_functions(&root, &mut folders, &mut warnings);
    let found = folders.into_iter().map(|(address, path)| {
        let function = match path {
            Some(path) => read_function(address, &DiskFolder { path }, &mut warnings),
            None => Function::at(address),
        };
        Found { function, line: None }
    });
    let found = found.collect();
    Ok(Machine::assemble(found, warnings))
}

/// Whether a folder is a `sys`: it has functions in one of the two places.
fn is_tree(folder: &Path) -> bool {
    folder.join("bus/pci/devices").is_dir()
        || entries(&folder.join("devices")).any(|(name, _)| is_root_bus(&name))
}

/// The nearest tree at or below a folder.
fn find_tree(folder: &Path) -> Option<PathBuf> {
    let mut level = vec![folder.to_path_buf()];
    let mut seen = 0;
    for _ in 0..=SEARCH_DEPTH {
        if let Some(tree) = level.iter().find(|folder| is_tree(folder)) {
            return Some(tree.clone());
        }
        let below = level.iter().flat_map(|folder| entries(folder)).filter(|(_, path)| is_real_folder(path));
        level = below.map(|(_, path)| path).take(SEARCH_FOLDERS - seen).collect();
        seen += level.len();
    }
    None
}

/// Collects functions from the folders under `devices/pci*`, where a bridge's folder holds those behind it.
fn nested_functions(devices: &Path, folders: &mut Folders, warnings: &mut Vec<Warning>) {
    let mut open: Vec<PathBuf> = root_buses(devices).collect();
    while let Some(folder) = open.pop() {
        for (name, path) in entries(&folder) {
            if !is_real_folder(&path) {
                continue;
            }
            if let Ok(address) = name.parse() {
                if folders.len() >= MAX_FUNCTIONS {
                    warnings.push(too_many());
                    return;
                }
                folders.entry(address).or_insert_with(|| Some(path.clone()));
                open.push(path);
            } else if is_root_bus(&name) {
                // The root bus of a segment behind a controller such as Intel's VMD.
                open.push(path);
            }
        }
    }
}

/// Collects the functions linked in `bus/pci/devices` that were not found under `devices`.
fn linked_functions(root: &Path, folders: &mut Folders, warnings: &mut Vec<Warning>) {
    for (name, path) in entries(&root.join("bus/pci/devices")) {
        let Ok(address) = name.parse() else { continue };
        if folders.contains_key(&address) {
            continue;
        }
        if folders.len() >= MAX_FUNCTIONS {
            warnings.push(too_many());
            return;
        }
        let mut warn =
            |kind, message| warnings.push(Warning { line: None, address: Some(address), kind, message });
        match fs::canonicalize(&path) {
            Ok(target) if target.starts_with(root) => {
                folders.insert(address, Some(target));
                continue;
            }
            Ok(_) => warn(WarningKind::Outside, "its link leads out of the tree; it was not followed".into()),
            Err(error) => warn(WarningKind::Dangling, format!("its link leads nowhere: {error}")),
        }
        folders.insert(address, None);
    }
}

fn root_buses(devices: &Path) -> impl Iterator<Item = PathBuf> {
    entries(devices).filter(|(name, path)| is_root_bus(name) && is_real_folder(path)).map(|(_, path)| path)
}

/// The names and paths in a folder; none if it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// `pci0000:00`, the folder of a root bus.
pub(super) fn is_root_bus(name: &str) -> bool {
    let parts = name.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    let hex = |text: &str| text.bytes().all(|digit| digit.is_ascii_hexdigit());
    parts.is_some_and(|(segment, bus)| {
        (4..=8).contains(&segment.len()) && bus.len() == 2 && hex(segment) && hex(bus)
    })
}

fn too_many() -> Warning {
    let message = format!("more than {MAX_FUNCTIONS} functions; the rest was not read");
    Warning { line: None, address: None, kind: WarningKind::Truncated, message }
}

/// A function's folder on disk.
struct DiskFolder {
    path: PathBuf,
}

impl FunctionFolder for DiskFolder {
    fn file(&self, name: &'static str) -> Result<Option<Vec<u8>>, String> {
        let path = self.path.join(name);
        // A copy of a tree may hold anything: only plain files are opened, so no pipe can block.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err("not a plain file".into()),
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| error.to_string())?;
        file.take(FULL_SIZE as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(Some(bytes))
    }

    fn link(&self, name: &'static str) -> Option<String> {
        let target = fs::read_link(self.path.join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
