//! Bridges: what kind one is and which buses lie behind it (PCI-to-PCI Bridge 1.2 §3.2.5; PCIe 6.0 §7.5.1.3).

use super::config::ConfigSpace;
use super::express::{Express, PortType};
use super::header::{Header, HeaderLayout};
use crate::address::Bus;

const PRIMARY: usize = 0x18;
const SECONDARY: usize = 0x19;
const SUBORDINATE: usize = 0x1a;
const HOST_BRIDGE_CLASS: u32 = 0x06_00;

/// The bus numbers of a bridge.
///
/// They are what firmware or the kernel wrote, so any three numbers are possible: all zero before enumeration, a
/// primary that is not the bus the bridge is on (root ports behind an Intel VMD controller read 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BusRange {
    /// The bus above; only conventional PCI bridges use it.
    pub primary: Bus,
    /// The bus directly below.
    pub secondary: Bus,
    /// The last bus below.
    pub subordinate: Bus,
}

impl BusRange {
    /// Reads the numbers of a PCI-to-PCI or CardBus bridge, which keep them at the same place; `None` for other
    /// layouts, dead functions and records cut before them.
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        match HeaderLayout::read(config)? {
            HeaderLayout::Bridge | HeaderLayout::CardBus => {}
            HeaderLayout::Endpoint | HeaderLayout::Other(_) => return None,
        }
        if config.is_dead() {
            return None;
        }
        Some(Self {
            primary: Bus::new(config.u8(PRIMARY)?),
            secondary: Bus::new(config.u8(SECONDARY)?),
            subordinate: Bus::new(config.u8(SUBORDINATE)?),
        })
    }

    /// Whether `bus` lies behind the bridge. Nothing does while its numbers are unset (secondary 0).
    pub fn contains(self, bus: Bus) -> bool {
        self.secondary.number() != 0 && (self.secondary..=self.subordinate).contains(&bus)
    }
}

/// What kind of bridge a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BridgeKind {
    /// The bridge between the processor and a root bus.
    Host,
    /// Conventional PCI on both sides.
    LegacyPci,
    /// PCI Express above, conventional PCI below.
    PcieToPci,
    /// Conventional PCI above, PCI Express below.
    PciToPcie,
    /// A PCI Express root port.
    RootPort,
    /// The upstream port of a PCI Express switch.
    SwitchUpstream,
    /// A downstream port of a PCI Express switch.
    SwitchDownstream,
    /// A bridge to CardBus slots: conventional PCI.
    CardBus,
    /// A bridge header with a PCI Express type that is none of a bridge.
    Other(PortType),
}

impl BridgeKind {
    /// Tells the kind from header, class and PCI Express capability; `None` if the function is no bridge or its
    /// record has no whole header. Does not allocate.
    ///
    /// The PCI Express type decides before the class: there are root ports of class 0600 (host bridge).
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        let header = Header::read(config)?;
        let is_host_bridge = header.class >> 8 == HOST_BRIDGE_CLASS;
        match header.layout {
            HeaderLayout::Endpoint if is_host_bridge => Some(Self::Host),
            HeaderLayout::CardBus => Some(Self::CardBus),
            HeaderLayout::Bridge => Some(match Express::read(config).map(|express| express.port_type) {
                Some(PortType::RootPort) => Self::RootPort,
                Some(PortType::SwitchUpstream) => Self::SwitchUpstream,
                Some(PortType::SwitchDownstream) => Self::SwitchDownstream,
                Some(PortType::PcieToPci) => Self::PcieToPci,
                Some(PortType::PciToPcie) => Self::PciToPcie,
                Some(other) => Self::Other(other),
                None if is_host_bridge => Self::Host,
                None => Self::LegacyPci,
            }),
            HeaderLayout::Endpoint | HeaderLayout::Other(_) => None,
        }
    }

    /// Whether the buses behind the bridge map to the bridge: requests from there may carry a requester ID that
    /// is not their sender's, because conventional PCI has no requester IDs.
    ///
    /// True for conventional PCI, PCIe-to-PCI and PCI-to-PCIe bridges; root ports, switches and host bridges pass
    /// requester IDs unchanged.
    pub const fn maps_its_buses(self) -> bool {
        matches!(self, Self::LegacyPci | Self::PcieToPci | Self::PciToPcie | Self::CardBus)
    }
}
