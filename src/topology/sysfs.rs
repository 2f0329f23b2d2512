//! What Linux's sysfs says of a function, wherever its folder is kept.
//!
//! A function's folder holds small files (`vendor`, `class`, `config` and so on) and links of which only the last
//! name matters: `driver` ends in the driver's name, `iommu_group` in the group's number, `physfn` in the physical
//! function's address. A folder on disk and an archive in memory both answer those two questions, through
//! [`FunctionFolder`].

use std::str::FromStr;

use super::function::Function;
use super::warning::{Warning, WarningKind};
use crate::address::Sbdf;
use crate::device::SubsystemId;

/// The folder of one function.
pub(super) trait FunctionFolder {
    /// The content of a file, at most 4096 bytes: `None` where there is no such file, the reason where there is
    /// one that cannot be read.
    fn file(&self, name: &'static str) -> Result<Option<Vec<u8>>, String>;

    /// The last name in a link's target, `None` where there is no such link.
    fn link(&self, name: &'static str) -> Option<String>;
}

/// Reads the facts of one function. What cannot be read or makes no sense is a warning and stays `None`.
pub(super) fn read_function(
    address: Sbdf,
    folder: &dyn FunctionFolder,
    warnings: &mut Vec<Warning>,
) -> Function {
    let mut reader = Reader { address, folder, warnings };
    let vendor = reader.number("subsystem_vendor");
    let device = reader.number("subsystem_device");
    Function {
        vendor: reader.number("vendor"),
        device: reader.number("device"),
        class: reader.number::<u32>("class").map(|class| class & 0x00ff_ffff),
        revision: reader.number("revision"),
        subsystem: vendor.zip(device).and_then(|(vendor, device)| SubsystemId::new(vendor, device)),
        // Linux says -1 for "no node".
        numa_node: reader
            .text("numa_node")
            .and_then(|text| reader.parse("numa_node", &text))
            .filter(|node| *node >= 0),
        group: folder.link("iommu_group").and_then(|name| reader.parse("iommu_group", &name)),
        physfn: folder.link("physfn").and_then(|name| reader.parse("physfn", &name)),
        driver: folder.link("driver"),
        config: reader.bytes("config").unwrap_or_default(),
        ..Function::at(address)
    }
}

struct Reader<'a> {
    address: Sbdf,
    folder: &'a dyn FunctionFolder,
    warnings: &'a mut Vec<Warning>,
}

impl Reader<'_> {
    fn warn(&mut self, kind: WarningKind, message: String) {
        self.warnings.push(Warning { line: None, address: Some(self.address), kind, message });
    }

    fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>> {
        match self.folder.file(name) {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.warn(WarningKind::Unreadable, format!("{name}: {reason}"));
                None
            }
        }
    }

    /// A file's text without the line's end; an empty file says nothing.
    fn text(&mut self, name: &'static str) -> Option<String> {
        let bytes = self.bytes(name)?;
        let text = String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', '\r', ' ']).to_owned();
        if text.is_empty() { None } else { Some(text) }
    }

    /// A file holding a number as sysfs prints ids: `0x` and hexadecimal digits.
    fn number<T: TryFrom<u32>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        let digits =
            text.strip_prefix("0x").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number =
            digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(|it| it.try_into().ok());
        if number.is_none() {
            self.bad_value(name, &text);
        }
        number
    }

    fn parse<T: FromStr>(&mut self, name: &str, text: &str) -> Option<T> {
        let value = text.parse().ok();
        if value.is_none() {
            self.bad_value(name, text);
        }
        value
    }

    fn bad_value(&mut self, name: &str, text: &str) {
        let shown: String = text.chars().take(40).collect();
        self.warn(WarningKind::BadValue, format!("{name} holds {shown:?}"));
    }
}
