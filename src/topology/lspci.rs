//! The text of `lspci`, at best `lspci -nn -vvv -xxxx`.
//!
//! A function begins on a line with its address in the first column, with or without a segment; what follows
//! belongs to it: indented details and rows of hexadecimal bytes. Every line that is none of these is passed over,
//! so text around a listing does no harm. The bytes are the better witness and are used where there are any; the
//! details give what bytes cannot (driver, group, node, names) and stand in for missing bytes.

use super::function::Function;
use super::machine::{Found, Machine};
use super::warning::{Warning, WarningKind};
use crate::address::{Bus, Sbdf};
use crate::device::{BusRange, FULL_SIZE, HeaderLayout, SubsystemId};

/// Whether a text has a line that begins a function.
pub(super) fn recognise(text: &str) -> bool {
    text.lines().any(|line| first_line(line).is_some())
}

/// Reads a listing.
pub(super) fn read(text: &str) -> Machine {
    let mut listing = Listing::default();
    for (index, line) in text.lines().enumerate() {
        listing.line = u32::try_from(index + 1).ok();
        listing.read_line(line);
    }
    Machine::assemble(listing.found, listing.warnings)
}

#[derive(Default)]
struct Listing {
    found: Vec<Found>,
    warnings: Vec<Warning>,
    line: Option<u32>,
}

impl Listing {
    fn read_line(&mut self, line: &str) {
        if let Some((address, description)) = first_line(line) {
            let mut function = Function::at(address);
            read_description(&mut function, description);
            self.found.push(Found { function, line: self.line });
            return;
        }
        let Some(Found { function, .. }) = self.found.last_mut() else { return };
        if line.starts_with([' ', '\t']) {
            read_detail(function, line.trim());
        } else if let Some((offset, row)) = hex_offset(line) {
            let problem = match hex_bytes(row) {
                Some(bytes) => place_row(&mut function.config, offset, &bytes),
                None => Err((WarningKind::HexRow, format!("the row at {offset:x} is no row of bytes"))),
            };
            if let Err((kind, message)) = problem {
                let address = Some(function.address);
                self.warnings.push(Warning { line: self.line, address, kind, message });
            }
        }
    }
}

/// The address and description of a line that begins a function.
fn first_line(line: &str) -> Option<(Sbdf, &str)> {
    let (address, description) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((address.parse().ok()?, description.trim()))
}

/// Reads `Class name [cccc]: Device name [vvvv:dddd] (rev rr) (prog-if pp [name])`, the numbers in brackets only with
/// `-nn`, or `cccc: vvvv:dddd (rev rr)` as printed with `-n`.
fn read_description(function: &mut Function, description: &str) {
    let Some((class, device)) = description.split_once(": ") else { return };
    let (class_name, class_code) = match bracketed(class) {
        Some((name, code)) => (name, hex(code, 4)),
        None => (class, None),
    };
    let (device, interface) = cut_note(device, " (prog-if ");
    let (device, revision) = cut_note(device, " (rev ");
    let (name, ids) = match bracketed(device) {
        Some((name, ids)) if id_pair(ids).is_some() => (name, id_pair(ids)),
        _ => (device, None),
    };
    // With -n the numbers stand where the names were.
    let (class_name, class_code) = if class_code.is_none() && hex(class, 4).is_some() {
        ("", hex(class, 4))
    } else {
        (class_name, class_code)
    };
    let (name, ids) =
        if ids.is_none() && id_pair(name).is_some() { ("", id_pair(name)) } else { (name, ids) };
    let interface = interface.and_then(|text| hex(text, 2)).unwrap_or(0);
    function.class = class_code.map(|code| code << 8 | interface);
    function.revision = revision.and_then(|text| hex(text, 2)).and_then(|revision| revision.try_into().ok());
    (function.vendor, function.device) = ids.unzip();
    function.class_name = text(class_name);
    function.name = text(name);
}

/// Reads one indented line.
fn read_detail(function: &mut Function, detail: &str) {
    if let Some(driver) = detail.strip_prefix("Kernel driver in use: ") {
        function.driver = text(driver);
    } else if let Some(group) = detail.strip_prefix("IOMMU group: ") {
        function.group = group.parse().ok();
    } else if let Some(flags) = detail.strip_prefix("Flags: ") {
        let group = flags.split(", ").find_map(|flag| flag.strip_prefix("IOMMU group "));
        function.group = group.and_then(|group| group.parse().ok()).or(function.group);
    } else if let Some(node) = detail.strip_prefix("NUMA node: ") {
        function.numa_node = node.parse().ok();
    } else if let Some(subsystem) = detail.strip_prefix("Subsystem: ") {
        let ids = bracketed(subsystem).map_or(subsystem, |(_, ids)| ids);
        function.subsystem = id_pair(ids).and_then(|(vendor, device)| SubsystemId::new(vendor, device));
    } else if let Some(buses) = detail.strip_prefix("Bus: ") {
        function.bridge = bus_range(buses);
        if function.bridge.is_some() && function.class.is_none_or(|class| class >> 8 == 0x0604) {
            function.header_type = Some(HeaderLayout::Bridge.bits());
        }
    }
}

/// Reads `primary=00, secondary=01, subordinate=19, sec-latency=0`.
fn bus_range(buses: &str) -> Option<BusRange> {
    let bus = |name: &str| {
        let mut fields = buses.split(", ").filter_map(|field| field.split_once('='));
        let number = fields.find(|(key, _)| *key == name).and_then(|(_, value)| hex(value, 2))?;
        number.try_into().ok().map(Bus::new)
    };
    Some(BusRange {
        primary: bus("primary")?,
        secondary: bus("secondary")?,
        subordinate: bus("subordinate")?,
    })
}

/// The offset of a row of bytes, `000:` or `00:`, and what follows it.
fn hex_offset(line: &str) -> Option<(usize, &str)> {
    let (offset, row) = line.split_once(": ")?;
    let number = hex(offset, 2).or_else(|| hex(offset, 3))?;
    Some((usize::try_from(number).ok()?, row))
}

/// One to sixteen bytes of two digits each.
fn hex_bytes(row: &str) -> Option<Vec<u8>> {
    let bytes = row.split_whitespace().map(|byte| hex(byte, 2)?.try_into().ok());
    bytes.collect::<Option<Vec<u8>>>().filter(|bytes| (1..=16).contains(&bytes.len()))
}

/// Puts a row where its offset says. Missing rows read ones, as absent hardware does.
fn place_row(config: &mut Vec<u8>, offset: usize, bytes: &[u8]) -> Result<(), (WarningKind, String)> {
    let known = config.len();
    if offset < known {
        return Err((
            WarningKind::HexGap,
            format!("the row at {offset:x} is before {known:x}; it was passed over"),
        ));
    }
    if offset + bytes.len() > FULL_SIZE {
        return Err((WarningKind::HexRow, format!("the row at {offset:x} does not fit 4096 bytes")));
    }
    config.resize(offset, 0xff);
    config.extend_from_slice(bytes);
    if offset > known {
        return Err((
            WarningKind::HexGap,
            format!("the bytes from {known:x} to {offset:x} are missing; they read ones"),
        ));
    }
    Ok(())
}

/// Splits `name [inside]`.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let (name, inside) = text.trim_end().strip_suffix(']')?.rsplit_once('[')?;
    Some((name.trim_end(), inside))
}

/// Cuts a note such as ` (rev 02)` off; returns the text before it and the note's first word.
fn cut_note<'t>(text: &'t str, opening: &str) -> (&'t str, Option<&'t str>) {
    match text.rsplit_once(opening) {
        Some((before, note)) => (before, note.split([' ', ')']).next()),
        None => (text, None),
    }
}

/// Reads `vvvv:dddd`.
fn id_pair(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    Some((hex(vendor, 4)?.try_into().ok()?, hex(device, 4)?.try_into().ok()?))
}

/// A number of exactly `digits` hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { u32::from_str_radix(text, 16).ok() } else { None }
}

fn text(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() { None } else { Some(text.to_owned()) }
}
