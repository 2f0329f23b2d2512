//! The header: who a function says it is (PCIe 6.0 §7.5.1).

use super::capability;
use super::config::{ConfigSpace, HEADER_SIZE};

const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const STATUS: usize = 0x06;
const REVISION_AND_CLASS: usize = 0x08;
const HEADER_TYPE: usize = 0x0e;
const SUBSYSTEM: usize = 0x2c;
const CARDBUS_SUBSYSTEM: usize = 0x40;
const STATUS_CAPABILITY_LIST: u16 = 1 << 4;
const MULTIFUNCTION: u8 = 1 << 7;

/// Capability ID of Subsystem ID and Subsystem Vendor ID, which bridges have in place of header fields
/// (PCIe 6.0 §7.9.23).
const SUBSYSTEM_CAPABILITY: u8 = 0x0d;

/// The layout of the header beyond its first 16 bytes: the header type without its multi-function bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderLayout {
    /// Type 0: an endpoint, or a host bridge.
    Endpoint,
    /// Type 1: a PCI-to-PCI bridge, a root port or a switch port.
    Bridge,
    /// Type 2: a CardBus bridge.
    CardBus,
    /// Any other number. Known to the host, never modelled, never assignable.
    Other(u8),
}

impl HeaderLayout {
    /// From the header type register; bit 7 (multi-function) is ignored.
    pub const fn from_bits(header_type: u8) -> Self {
        match header_type & !MULTIFUNCTION {
            0 => Self::Endpoint,
            1 => Self::Bridge,
            2 => Self::CardBus,
            other => Self::Other(other),
        }
    }

    /// The header type without bit 7.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Endpoint => 0,
            Self::Bridge => 1,
            Self::CardBus => 2,
            Self::Other(other) => other,
        }
    }

    /// The layout a configuration space declares, `None` if it is too short to tell.
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        config.u8(HEADER_TYPE).map(Self::from_bits)
    }
}

/// Subsystem vendor and device: who built the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubsystemId {
    /// Subsystem vendor ID.
    pub vendor: u16,
    /// Subsystem device ID.
    pub device: u16,
}

impl SubsystemId {
    /// The pair, or `None` for 0000:0000, which is how hardware and Linux both say "none".
    pub const fn new(vendor: u16, device: u16) -> Option<Self> {
        if vendor == 0 && device == 0 { None } else { Some(Self { vendor, device }) }
    }
}

/// What the first 64 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Vendor ID; `ffff` for a virtual function, whose vendor is its physical function's.
    pub vendor: u16,
    /// Device ID; `ffff` for a virtual function: see [`SrIov::vf_device`](super::SrIov::vf_device).
    pub device: u16,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// What the rest of the header looks like.
    pub layout: HeaderLayout,
    /// Whether the device says it has further functions (header type, bit 7).
    pub multifunction: bool,
    /// The board's identity: from the header, for a bridge from its Subsystem capability.
    pub subsystem: Option<SubsystemId>,
    /// Whether the Status register announces a capability list (bit 4).
    pub capability_list: bool,
}

impl Header {
    /// Reads the header; `None` for fewer than 64 bytes or for a [dead](ConfigSpace::is_dead) function.
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        if config.len() < HEADER_SIZE || config.is_dead() {
            return None;
        }
        let [revision, class @ ..] = config.u32(REVISION_AND_CLASS)?.to_le_bytes();
        let [programming_interface, sub_class, base_class] = class;
        let layout = HeaderLayout::read(config)?;
        Some(Self {
            vendor: config.u16(VENDOR)?,
            device: config.u16(DEVICE)?,
            class: u32::from_be_bytes([0, base_class, sub_class, programming_interface]),
            revision,
            layout,
            multifunction: config.u8(HEADER_TYPE)? & MULTIFUNCTION != 0,
            subsystem: subsystem(config, layout),
            capability_list: announces_capabilities(config)?,
        })
    }

    /// Whether vendor and device read `ffff` although the function lives: a virtual function
    /// (PCIe 6.0 §9.3.4.1.1).
    pub const fn hides_its_identity(&self) -> bool {
        self.vendor == 0xffff && self.device == 0xffff
    }
}

/// The Status register's capability-list bit.
pub(super) fn announces_capabilities(config: ConfigSpace<'_>) -> Option<bool> {
    config.u16(STATUS).map(|status| status & STATUS_CAPABILITY_LIST != 0)
}

fn subsystem(config: ConfigSpace<'_>, layout: HeaderLayout) -> Option<SubsystemId> {
    let at = match layout {
        HeaderLayout::Endpoint => SUBSYSTEM,
        HeaderLayout::CardBus => CARDBUS_SUBSYSTEM,
        HeaderLayout::Bridge => usize::from(capability::find(config, SUBSYSTEM_CAPABILITY)?) + 4,
        HeaderLayout::Other(_) => return None,
    };
    SubsystemId::new(config.u16(at)?, config.u16(at + 2)?)
}
