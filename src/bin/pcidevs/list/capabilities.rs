//! Short names of capabilities, as the field writes them.
//!
//! IDs are those of the PCI Code and ID Assignment Specification. What decides whether and how a function can be
//! given away comes first; the rest follows in chain order. A capability that comes several times is named once.

use pcidevs::device::HEADER_SIZE;
use pcidevs::topology::Function;

use super::table::UNKNOWN;

const FIRST: &[&str] = &["SR-IOV", "PCIe", "MSI-X", "MSI", "PM", "ATS", "PRI", "PASID", "ACS", "ARI", "AF"];

/// Both lists of a function in one line; `?` where too little was recorded to tell, `-` for none.
pub(super) fn names(function: &Function) -> String {
    let standard = function.capabilities.iter().map(|id| standard(*id));
    let mut names: Vec<String> = Vec::new();
    for name in standard.chain(function.ext_capabilities.iter().map(|id| extended(*id))) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return if function.config.len() <= HEADER_SIZE { UNKNOWN } else { "-" }.into();
    }
    // The sort is stable: what is not in `FIRST` stays in chain order.
    names.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    names.join(" ")
}

fn standard(id: u8) -> String {
    let name = match id {
        0x01 => "PM",
        0x02 => "AGP",
        0x03 => "VPD",
        0x04 => "SlotID",
        0x05 => "MSI",
        0x06 => "HotSwap",
        0x07 => "PCI-X",
        0x08 => "HT",
        0x09 => "Vendor",
        0x0a => "Debug",
        0x0b => "CPCI",
        0x0c => "SHPC",
        0x0d => "SSID",
        0x0e => "AGP8x",
        0x0f => "Secure",
        0x10 => "PCIe",
        0x11 => "MSI-X",
        0x12 => "SATA",
        0x13 => "AF",
        0x14 => "EA",
        0x15 => "FPB",
        _ => return format!("cap-{id:02x}"),
    };
    name.into()
}

fn extended(id: u16) -> String {
    let name = match id {
        0x01 => "AER",
        0x02 | 0x09 => "VC",
        0x03 => "DSN",
        0x04 => "PwrBudget",
        0x05 => "RCLink",
        0x06 => "RCILC",
        0x07 => "RCEC",
        0x08 => "MFVC",
        0x0a => "RCRB",
        0x0b => "VSEC",
        0x0d => "ACS",
        0x0e => "ARI",
        0x0f => "ATS",
        0x10 => "SR-IOV",
        0x11 => "MR-IOV",
        0x12 => "MCast",
        0x13 => "PRI",
        0x15 => "ReBAR",
        0x16 => "DPA",
        0x17 => "TPH",
        0x18 => "LTR",
        0x19 => "PCIe2",
        0x1a => "PMUX",
        0x1b => "PASID",
        0x1c => "LNR",
        0x1d => "DPC",
        0x1e => "L1SS",
        0x1f => "PTM",
        0x20 => "MPCIe",
        0x21 => "FRS",
        0x22 => "RTR",
        0x23 => "DVSEC",
        0x24 => "VFReBAR",
        0x25 => "DLF",
        0x26 => "16GT",
        0x27 => "Margin",
        0x28 => "HierID",
        0x29 => "NPEM",
        0x2a => "32GT",
        0x2b => "AltProto",
        0x2c => "SFI",
        0x2d => "ShadowFn",
        0x2e => "DOE",
        0x2f => "Dev3",
        0x30 => "IDE",
        0x31 => "64GT",
        _ => return format!("ext-{id:04x}"),
    };
    name.into()
}
