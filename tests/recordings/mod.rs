//! Small recordings of machines that never were, for tests: configuration spaces, `lspci` text, sysfs trees.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::Sbdf;
use pcidevs::device::ConfigSpace;

/// An address known to be right.
pub(crate) fn at(address: &str) -> Sbdf {
    address.parse().unwrap()
}

/// A configuration space under construction; starts as an endpoint 1234:5678 of class 020000.
#[derive(Clone, Debug)]
pub(crate) struct Config(pub(crate) Vec<u8>);

impl Config {
    pub(crate) fn endpoint(size: usize) -> Self {
        Self(vec![0; size]).with16(0, 0x1234).with16(2, 0x5678).with8(0xb, 2)
    }

    pub(crate) fn bridge(size: usize, [primary, secondary, subordinate]: [u8; 3]) -> Self {
        let config = Self::endpoint(size).with16(0xa, 0x0604).with8(0xe, 1);
        config.with8(0x18, primary).with8(0x19, secondary).with8(0x1a, subordinate)
    }

    /// A virtual function: vendor and device read ones.
    pub(crate) fn virtual_function(size: usize) -> Self {
        Self::endpoint(size).with32(0, u32::MAX)
    }

    pub(crate) fn with8(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    pub(crate) fn with16(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn with32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Announces a capability list that starts at `pointer`.
    pub(crate) fn list(self, pointer: u8) -> Self {
        self.with16(6, 0x10).with8(0x34, pointer)
    }

    pub(crate) fn capability(self, at: u8, id: u8, next: u8) -> Self {
        self.with8(at.into(), id).with8(usize::from(at) + 1, next)
    }

    /// A list of one PCI Express capability with this port type and Device Capabilities.
    pub(crate) fn express(self, port_type: u16, device_capabilities: u32) -> Self {
        let config = self.list(0x40).capability(0x40, 0x10, 0);
        config.with16(0x42, port_type << 4 | 2).with32(0x44, device_capabilities)
    }

    pub(crate) fn extended(self, at: u16, id: u16, version: u8, next: u16) -> Self {
        self.with32(at.into(), u32::from(next) << 20 | u32::from(version) << 16 | u32::from(id))
    }

    /// An enabled SR-IOV capability at 100.
    pub(crate) fn sriov(self, vfs: u16, offset: u16, stride: u16, vf_device: u16) -> Self {
        let config = self.extended(0x100, 0x10, 1, 0).with16(0x108, 0x9);
        let config = config.with16(0x10c, vfs).with16(0x10e, vfs).with16(0x110, vfs);
        config.with16(0x114, offset).with16(0x116, stride).with16(0x11a, vf_device)
    }

    pub(crate) fn space(&self) -> ConfigSpace<'_> {
        ConfigSpace::new(&self.0)
    }

    /// Rows of 16 bytes as `lspci -xxxx` prints them.
    pub(crate) fn rows(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.0.chunks(16).enumerate() {
            write!(text, "{:02x}:", index * 16).unwrap();
            for byte in row {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
        }
        text
    }
}

/// A sysfs tree as a list of entries, to be put on disk or in an archive.
#[derive(Clone, Default)]
pub(crate) struct Tree(Vec<(String, Entry)>);

#[derive(Clone)]
enum Entry {
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    pub(crate) fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.push((path.into(), Entry::File(content.as_ref().into())));
        self
    }

    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        self.0.push((path.into(), Entry::Link(target.into())));
        self
    }

    /// A function folder with the files every function has, and its configuration space.
    pub(crate) fn function(self, path: &str, config: &Config) -> Self {
        let tree =
            self.file(&format!("{path}/vendor"), "0x1234\n").file(&format!("{path}/device"), "0x5678\n");
        tree.file(&format!("{path}/class"), "0x020000\n").file(&format!("{path}/config"), &config.0)
    }

    /// Two functions of which each place knows only one: 00:01.0 is in `devices`, 00:02.0 linked in `bus` to a
    /// folder that is not below a root bus.
    pub(crate) fn split(prefix: &str) -> Self {
        let config = Config::endpoint(64);
        Self::default()
            .function(&format!("{prefix}devices/pci0000:00/0000:00:01.0"), &config)
            .function(&format!("{prefix}devices/platform/0000:00:02.0"), &config)
            .link(&format!("{prefix}bus/pci/devices/0000:00:02.0"), "../../../devices/platform/0000:00:02.0")
    }

    /// Puts the tree on disk, in a folder that goes away with the value.
    pub(crate) fn on_disk(&self) -> Folder {
        let folder = Folder::empty();
        for (path, entry) in &self.0 {
            let path = folder.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match entry {
                Entry::File(content) => fs::write(path, content).unwrap(),
                Entry::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            }
        }
        folder
    }

    /// Puts the tree in a tar archive.
    pub(crate) fn in_tar(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match entry {
                Entry::File(content) => {
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, path, content.as_slice()).unwrap();
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        archive.into_inner().unwrap()
    }
}

/// A folder of this test's own, removed at the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pcidevs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder of recorded machines beside the project; `None`, with a message, where it is not there.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no recorded machines at ../shared/data");
    None
}
