//! The PCI Express capability: what kind of port a function is (PCIe 6.0 §7.5.3).

use super::capability;
use super::config::ConfigSpace;

/// The capability's ID.
const ID: u8 = 0x10;
const CAPABILITIES: usize = 0x02;
const DEVICE_CAPABILITIES: usize = 0x04;

/// Device/Port Type: the place of a function in the fabric (PCIe 6.0 §7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortType {
    /// A PCI Express endpoint.
    Endpoint,
    /// An endpoint that may need I/O space and locked requests.
    LegacyEndpoint,
    /// A root port: the top of a tree, inside the root complex.
    RootPort,
    /// The port of a switch that looks to the root.
    SwitchUpstream,
    /// A port of a switch that looks away from the root.
    SwitchDownstream,
    /// A bridge with PCI Express above and conventional PCI below.
    PcieToPci,
    /// A bridge with conventional PCI above and PCI Express below.
    PciToPcie,
    /// An endpoint built into the root complex.
    RootComplexEndpoint,
    /// An event collector of the root complex.
    EventCollector,
    /// A number that is not assigned.
    Other(u8),
}

/// The PCI Express capability as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Express {
    /// What kind of port this is.
    pub port_type: PortType,
    /// The Device Capabilities register (PCIe 6.0 §7.5.3.3).
    pub device_capabilities: u32,
}

impl Express {
    /// Reads the capability; `None` if the function has none or the record ends before it. Does not allocate.
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        let at = usize::from(capability::find(config, ID)?);
        let port_type = match config.u16(at + CAPABILITIES)? >> 4 & 0xf {
            0 => PortType::Endpoint,
            1 => PortType::LegacyEndpoint,
            4 => PortType::RootPort,
            5 => PortType::SwitchUpstream,
            6 => PortType::SwitchDownstream,
            7 => PortType::PcieToPci,
            8 => PortType::PciToPcie,
            9 => PortType::RootComplexEndpoint,
            10 => PortType::EventCollector,
            other => PortType::Other(other.to_le_bytes()[0]),
        };
        Some(Self { port_type, device_capabilities: config.u32(at + DEVICE_CAPABILITIES)? })
    }
}
