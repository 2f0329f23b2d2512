//! What programs read: the facts as numbers, facts the source does not give as `null`.
//!
//! Field names and shapes are an interface; what a person sees in the other views is not.

use std::io::{self, Write};

use pcidevs::device::BusRange;
use pcidevs::topology::{self, Machine};
use serde::Serialize;

#[derive(Serialize)]
struct Listing<'m> {
    functions: Vec<Function<'m>>,
    warnings: Vec<Warning<'m>>,
}

#[derive(Serialize)]
struct Function<'m> {
    address: String,
    vendor: Option<u16>,
    device: Option<u16>,
    /// 24 bits.
    class: Option<u32>,
    /// Without bit 7.
    header_type: Option<u8>,
    bridge: Option<Bridge>,
    group: Option<u32>,
    /// The physical function's address, for a virtual function.
    physfn: Option<String>,
    driver: Option<&'m str>,
    /// How many bytes of configuration space were recorded.
    config_bytes: usize,
    /// IDs in chain order, with repeats.
    capabilities: &'m [u8],
    ext_capabilities: &'m [u16],
}

#[derive(Serialize)]
struct Bridge {
    primary: u8,
    secondary: u8,
    subordinate: u8,
}

#[derive(Serialize)]
struct Warning<'m> {
    line: Option<u32>,
    address: Option<String>,
    kind: &'static str,
    message: &'m str,
}

impl<'m> From<&'m topology::Function> for Function<'m> {
    fn from(function: &'m topology::Function) -> Self {
        Self {
            address: function.address.to_string(),
            vendor: function.vendor,
            device: function.device,
            class: function.class,
            header_type: function.header_type,
            bridge: function.bridge.map(Bridge::from),
            group: function.group,
            physfn: function.physfn.map(|address| address.to_string()),
            driver: function.driver.as_deref(),
            config_bytes: function.config.len(),
            capabilities: &function.capabilities,
            ext_capabilities: &function.ext_capabilities,
        }
    }
}

impl From<BusRange> for Bridge {
    fn from(range: BusRange) -> Self {
        Self {
            primary: range.primary.number(),
            secondary: range.secondary.number(),
            subordinate: range.subordinate.number(),
        }
    }
}

impl<'m> From<&'m topology::Warning> for Warning<'m> {
    fn from(warning: &'m topology::Warning) -> Self {
        Self {
            line: warning.line,
            address: warning.address.map(|address| address.to_string()),
            kind: warning.kind.as_str(),
            message: &warning.message,
        }
    }
}

/// Writes a machine as one line of JSON.
pub(super) fn write(machine: &Machine, out: &mut impl Write) -> io::Result<()> {
    let listing = Listing {
        functions: machine.functions.iter().map(Function::from).collect(),
        warnings: machine.warnings.iter().map(Warning::from).collect(),
    };
    serde_json::to_writer(&mut *out, &listing)?;
    writeln!(out)
}
