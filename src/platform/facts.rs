//! The words in which the core and a platform speak.

use alloc::vec::Vec;

use crate::address::Sbdf;
use crate::owner::Owner;
use crate::transition::Transition;

/// The size of a configuration access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// Off.
    Off,
    /// On.
    On,
}

/// An IOMMU group, as the platform numbers it: devices that cannot be kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// What a platform knows of a device and configuration space does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its IOMMU group; `None` where the platform has no groups.
    pub group: Option<GroupId>,
    /// The NUMA node it is near.
    pub node: Option<u32>,
    /// Requester IDs that configuration space does not tell: quirks.
    pub aliases: Vec<Sbdf>,
    /// The distance of its phantom functions in functions (1, 2 or 4), for devices that use some and do not say so.
    pub phantom_stride: Option<u8>,
}

/// A transition that is about to begin, for the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub transition: Transition,
    /// Of which device.
    pub device: Sbdf,
    /// Whose it is; `None` before it is known.
    pub from: Option<Owner>,
    /// Whose it would be.
    pub to: Owner,
}

/// What a reset reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResetScope {
    /// The function alone: FLR, or a power cycle to D3hot and back.
    Function,
    /// All functions of its device number.
    Slot,
    /// Everything on its bus, and behind the bridges there.
    Bus,
}

/// How a device was, or shall be, reset. Xen's `PCI_DEVICE_RESET_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetKind {
    /// Power off and on.
    Cold,
    /// By the fundamental reset signal, power stays.
    Warm,
    /// In-band, through the bridge above.
    Hot,
    /// Function level.
    Flr,
}

impl ResetKind {
    /// From the flags of Xen's `PHYSDEVOP_pci_device_reset`: 0 to 3; `None` for any other.
    pub const fn from_flags(flags: u32) -> Option<Self> {
        match flags {
            0 => Some(Self::Cold),
            1 => Some(Self::Warm),
            2 => Some(Self::Hot),
            3 => Some(Self::Flr),
            _ => None,
        }
    }
}
