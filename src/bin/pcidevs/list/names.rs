//! Names of vendors, devices and classes, from the PCI ID database that is built in.
//!
//! The source's own names stand in where the database knows none; where nobody does, the numbers are shown.

use pci_ids::{Class, Device, FromId, Subclass, Vendor};
use pcidevs::topology::Function;

use super::text::printable;

/// Words that say what kind of company a vendor is, not which.
const COMPANY: &[&str] =
    &["inc", "incorporated", "corporation", "corp", "co", "company", "ltd", "limited", "llc", "gmbh", "ag"];

/// Vendor and device: `Intel 82371SB PIIX3 ISA`, or `[8086:29c0]` for what nobody knows.
pub(super) fn device(function: &Function) -> String {
    let (Some(vendor), Some(device)) = (function.vendor, function.device) else {
        return function.name.as_deref().map_or_else(|| "?".into(), printable);
    };
    let vendor_name = Vendor::from_id(vendor).map(|known| short_vendor(known.name()));
    let ids = format!("[{vendor:04x}:{device:04x}]");
    match (vendor_name, Device::from_vid_pid(vendor, device), &function.name) {
        (Some(vendor), Some(device), _) => printable(&format!("{vendor} {}", device.name())),
        // `lspci` calls a device it does not know "Device".
        (_, None, Some(name)) if !name.ends_with("Device") => printable(name),
        (Some(vendor), None, _) => printable(&format!("{vendor} {ids}")),
        _ => ids,
    }
}

/// `Intel` for `Intel Corporation`, `AMD` for `Advanced Micro Devices, Inc. [AMD]`.
fn short_vendor(name: &str) -> &str {
    if let Some((_, short)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        return short;
    }
    let name = name.strip_suffix(" and subsidiaries").unwrap_or(name);
    let mut short = name;
    while let Some((before, word)) = short.rsplit_once(' ') {
        let word = word.trim_matches(['.', ',', '(', ')']).to_lowercase();
        if !COMPANY.contains(&word.as_str()) {
            break;
        }
        short = before.trim_end_matches([',', ' ']);
    }
    short
}

/// The name of a class in full, `Non-Volatile memory controller`, and in short, `NVMe`.
pub(super) fn class(function: &Function) -> (String, String) {
    let known = function.class.and_then(class_name);
    let full = match (known, &function.class_name, function.class) {
        (Some(name), _, _) => name.to_owned(),
        (None, Some(name), _) => printable(name),
        (None, None, Some(class)) => format!("[{class:06x}]"),
        (None, None, None) => "?".into(),
    };
    let short = match function.class {
        Some(0x01_08_02) => "NVMe",
        _ => full.trim_end_matches(" controller").trim_end_matches(" compatible"),
    };
    let short = short.to_owned();
    (full, short)
}

fn class_name(class: u32) -> Option<&'static str> {
    let [_, base, sub, _] = class.to_be_bytes();
    let base_name = || <Class as FromId<u8>>::from_id(base).map(Class::name);
    Subclass::from_cid_sid(base, sub).map(Subclass::name).or_else(base_name)
}
