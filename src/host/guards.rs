//! What the host cannot do without: the disk it booted from, the network card of its default route, its screen.
//!
//! Each is found from the top: the mounted file system, the route, the frame buffer, and from there through whatever
//! is stacked below (device mapper, RAID, bonds, bridges, VLANs) to links that lead through PCI functions. A link into
//! `devices/pci0000:00/0000:00:01.0/0000:01:00.0/…` names the function and every bridge above it. Bounded everywhere:
//! a tree that loops costs a few hundred reads.

use std::fmt;

use super::function::{self, optional, sys};
use super::kernel::{Kernel, Place, Root};
use crate::Sbdf;
use crate::errno::Errno;

/// Why the host needs a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guard {
    /// A file system that the host runs from is on it.
    Disk {
        /// Where that is mounted.
        mounted: String,
    },
    /// The default route goes through it.
    Network {
        /// The interface.
        interface: String,
    },
    /// The firmware has made it the screen.
    Screen,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { mounted } => write!(f, "{} is on it", mounted.escape_debug()),
            Self::Network { interface } => write!(f, "the default route goes through its {interface}"),
            Self::Screen => f.write_str("it is the boot VGA"),
        }
    }
}

/// The mount points whose loss ends the host.
const VITAL: [&str; 5] = ["/", "/boot", "/boot/efi", "/usr", "/var"];
/// The largest table of mounts or routes that is read.
const LARGEST: usize = 4 << 20;
/// How many things are looked at that are stacked on each other.
const DEEPEST: usize = 256;

/// What stands between these devices and a guest.
pub(super) fn find(kernel: &dyn Kernel, set: &[Sbdf]) -> Result<Vec<(Sbdf, Guard)>, Errno> {
    let mut found = Vec::new();
    for device in set {
        if function::text(kernel, *device, "boot_vga")?.as_deref() == Some("1") {
            found.push((*device, Guard::Screen));
        }
    }
    for (mounted, source) in vital_mounts(kernel)? {
        for device in functions_below(kernel, source, "slaves")? {
            if set.contains(&device) {
                found.push((device, Guard::Disk { mounted: mounted.clone() }));
            }
        }
    }
    for interface in default_interfaces(kernel)? {
        for device in functions_below(kernel, format!("class/net/{interface}"), "lower_")? {
            if set.contains(&device) {
                found.push((device, Guard::Network { interface: interface.clone() }));
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// Vital mount points and the sysfs path of what is mounted there.
fn vital_mounts(kernel: &dyn Kernel) -> Result<Vec<(String, String)>, Errno> {
    let Some(table) = proc(kernel, "self/mountinfo")? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for line in table.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let (Some(number), Some(mounted)) = (words.get(2), words.get(4)) else { continue };
        if !VITAL.contains(mounted) {
            continue;
        }
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match number.split_once(':') {
            // btrfs and others have no device number; what they are mounted from is behind " - ".
            Some(("0", _)) => {
                let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
                if let Some(disk) = source.and_then(|source| source.strip_prefix("/dev/")) {
                    found.push(((*mounted).to_owned(), format!("class/block/{}", block_name(kernel, disk)?)));
                }
            }
            Some((major, minor)) if is_number(major) && is_number(minor) => {
                found.push(((*mounted).to_owned(), format!("dev/block/{major}:{minor}")));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The kernel's name of a disk that udev may have given another one, such as `mapper/root`.
fn block_name(kernel: &dyn Kernel, disk: &str) -> Result<String, Errno> {
    let Ok(place) = Place::new(Root::Dev, disk) else { return Ok(disk.to_owned()) };
    match kernel.read_link(&place) {
        Ok(target) => Ok(target.rsplit('/').next().unwrap_or(disk).to_owned()),
        // A device file is no link.
        Err(Errno::EINVAL) => Ok(disk.to_owned()),
        Err(error) if function::is_absent(error) => Ok(disk.to_owned()),
        Err(error) => Err(error),
    }
}

/// The interfaces of the default routes.
fn default_interfaces(kernel: &dyn Kernel) -> Result<Vec<String>, Errno> {
    let mut found = Vec::new();
    if let Some(table) = proc(kernel, "net/route")? {
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            if let [interface, "00000000", _, _, _, _, _, "00000000", ..] = words[..] {
                found.push(interface.to_owned());
            }
        }
    }
    if let Some(table) = proc(kernel, "net/ipv6_route")? {
        for line in table.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            // The kernel keeps an unreachable default route on `lo` of its own.
            if let [to, "00", .., interface] = words[..]
                && to.bytes().all(|byte| byte == b'0')
                && interface != "lo"
            {
                found.push(interface.to_owned());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn proc(kernel: &dyn Kernel, path: &str) -> Result<Option<String>, Errno> {
    let bytes = optional(kernel.read(&Place::new(Root::Proc, path)?, LARGEST))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The functions that a block device or an interface is on: those its link goes through, and those of what it is
/// stacked on, which are the links in its folder `below`, or those of its own whose names begin so.
fn functions_below(kernel: &dyn Kernel, top: String, below: &str) -> Result<Vec<Sbdf>, Errno> {
    let mut open = vec![top];
    let mut seen = Vec::new();
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if seen.contains(&path) || seen.len() >= DEEPEST {
            continue;
        }
        // What is mounted from a place that is no block device, a network share for example.
        let Ok(place) = sys(path.clone()) else { continue };
        if let Some(target) = optional(kernel.read_link(&place))? {
            found.extend(target.split('/').filter_map(|part| part.parse::<Sbdf>().ok()));
        }
        if below.ends_with('_') {
            for name in optional(kernel.list(&place, DEEPEST))?.unwrap_or_default() {
                open.extend(name.strip_prefix(below).map(|lower| format!("class/net/{lower}")));
            }
        } else {
            // A partition has no slaves of its own; its disk is in the link.
            let slaves = optional(kernel.list(&sys(format!("{path}/{below}"))?, DEEPEST))?;
            open.extend(slaves.unwrap_or_default().into_iter().map(|name| format!("class/block/{name}")));
        }
        seen.push(path);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
