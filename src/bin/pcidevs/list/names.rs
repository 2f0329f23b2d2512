//! Names of vendors, devices and classes, from the PCI ID database that is built in.
//!
//! The source's own names stand in where the database knows none; where nobody does, the numbers are shown.

use pci_ids::{Class, Device, FromId, Subclass, Vendor};
use pcidevs::topology::Function;

use super::table::UNKNOWN;
use super::text::printable;

/// Words that say what kind of company a vendor is, not which.
const COMPANY: &[&str] =
    &["inc", "incorporated", "corporation", "corp", "co", "company", "ltd", "limited", "llc", "gmbh", "ag"];

/// The classes most machines are made of, where cutting the end off would not tell them apart.
const SHORT_CLASSES: &[(&str, &str)] = &[
    ("Host bridge", "Host"),
    ("ISA bridge", "ISA"),
    ("PCI bridge", "Bridge"),
    ("CardBus bridge", "CardBus"),
    ("Non-Volatile memory controller", "NVMe"),
    ("Mass storage controller", "Storage"),
    ("SCSI storage controller", "SCSI"),
    ("Serial Attached SCSI controller", "SAS"),
    ("RAID bus controller", "RAID"),
    ("IDE interface", "IDE"),
    ("VGA compatible controller", "VGA"),
    ("Audio device", "Audio"),
    ("Multimedia audio controller", "Audio"),
    ("Communication controller", "Comm"),
    ("System peripheral", "System"),
    ("Performance counters", "PerfCtr"),
    ("Unassigned class", "Other"),
];

/// Vendor and device, `Intel 82574L Gigabit Network Connection`, and in short only the device. `[8086:0d57]` stands
/// for a device that nobody knows.
pub(super) fn device(function: &Function) -> (String, String) {
    let vendor = function.vendor.and_then(Vendor::from_id).map(Vendor::name);
    let stated = function.name.as_deref();
    let (Some(vendor_id), Some(device_id)) = (function.vendor, function.device) else {
        let name = printable(stated.unwrap_or(UNKNOWN));
        return (name.clone(), name);
    };
    let device = match (Device::from_vid_pid(vendor_id, device_id), stated) {
        (Some(known), _) => known.name().to_owned(),
        // `lspci` calls a device it does not know "Device".
        (None, Some(name)) if !name.ends_with("Device") => {
            let device = vendor.and_then(|vendor| name.strip_prefix(vendor)).map(str::trim_start);
            let Some(device) = device else { return (printable(name), printable(name)) };
            device.to_owned()
        }
        _ => format!("[{vendor_id:04x}:{device_id:04x}]"),
    };
    let full = vendor.map_or_else(|| device.clone(), |vendor| format!("{} {device}", short_vendor(vendor)));
    (printable(&full), printable(&device))
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
        (None, None, None) => UNKNOWN.into(),
    };
    let short = SHORT_CLASSES.iter().find(|(name, _)| *name == full).map(|(_, short)| *short);
    let short = short.unwrap_or_else(|| full.strip_suffix(" controller").unwrap_or(&full)).to_owned();
    (full, short)
}

fn class_name(class: u32) -> Option<&'static str> {
    let [_, base, sub, _] = class.to_be_bytes();
    let base_name = || <Class as FromId<u8>>::from_id(base).map(Class::name);
    Subclass::from_cid_sid(base, sub).map(Subclass::name).or_else(base_name)
}
