//! The questions, and what they are about.

use std::fmt;

use crate::address::Sbdf;
use crate::owner::DomainId;

/// The size of what [`Frames`] counts, in bits: 4 KiB.
const PAGE_SHIFT: u32 = 12;

/// Whether a permission is given or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Given.
    Allow,
    /// Taken.
    Deny,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Pages of the machine's physical memory, 4 KiB each: at least one, and none beyond the end of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frames {
    first: u64,
    count: u64,
}

impl Frames {
    /// So many from the first on: `None` for none, or for addresses that do not exist.
    pub const fn new(first: u64, count: u64) -> Option<Self> {
        let last_possible = u64::MAX >> PAGE_SHIFT;
        if count == 0 || first > last_possible || count - 1 > last_possible - first {
            return None;
        }
        Some(Self { first, count })
    }

    /// Every page that the bytes from `start` to `end`, both included, are in; as sysfs has a BAR in `resource`.
    ///
    /// ```
    /// use pcidevs::xen::hypercall::Frames;
    /// assert_eq!(Frames::covering(0xfe00_0800, 0xfe00_17ff), Frames::new(0xfe000, 2));
    /// assert_eq!(Frames::covering(0x2000, 0x1fff), None);
    /// ```
    pub const fn covering(start: u64, end: u64) -> Option<Self> {
        if start > end {
            return None;
        }
        let first = start >> PAGE_SHIFT;
        Self::new(first, (end >> PAGE_SHIFT) - first + 1)
    }

    /// The number of the first page.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// How many they are.
    pub const fn count(self) -> u64 {
        self.count
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.first, self.count)
    }
}

/// I/O ports: at least one, and none beyond the last, 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    first: u16,
    count: u32,
}

impl Ports {
    /// So many from the first on: `None` for none, or for ports that do not exist.
    ///
    /// ```
    /// use pcidevs::xen::hypercall::Ports;
    /// assert!(Ports::new(0, 65536).is_some());
    /// assert!(Ports::new(1, 65536).is_none());
    /// ```
    pub const fn new(first: u16, count: u32) -> Option<Self> {
        // `u16` widens; `From` is not `const`.
        if count == 0 || count > 0x1_0000 - first as u32 {
            return None;
        }
        Some(Self { first, count })
    }

    /// The first.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many they are.
    pub const fn count(self) -> u32 {
        self.count
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.first, self.count)
    }
}

/// A *global system interrupt*: the number of an interrupt line, as ACPI counts them and Linux shows it in `irq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gsi(u32);

/// A *physical interrupt* of one domain: its own number for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pirq(u32);

/// Lines and interrupts are C's `int` on their way to the hypervisor.
const LARGEST: u32 = i32::MAX.unsigned_abs();

impl Gsi {
    /// The line of this number: `None` beyond 31 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number > LARGEST { None } else { Some(Self(number)) }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl Pirq {
    /// The interrupt of this number: `None` beyond 31 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number > LARGEST { None } else { Some(Self(number)) }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Gsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Pirq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One call, with what it was about: what an error names, and what [`Simulated`](super::Simulated) remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hypercall {
    /// [`domain`](super::Hypervisor::domain).
    Domain,
    /// [`test_assign_device`](super::Hypervisor::test_assign_device).
    TestAssign(Sbdf),
    /// [`assign_device`](super::Hypervisor::assign_device).
    Assign(Sbdf),
    /// [`deassign_device`](super::Hypervisor::deassign_device).
    Deassign(Sbdf),
    /// [`iomem_permission`](super::Hypervisor::iomem_permission).
    Iomem(Frames, Access),
    /// [`ioport_permission`](super::Hypervisor::ioport_permission).
    Ioport(Ports, Access),
    /// [`map_pirq`](super::Hypervisor::map_pirq).
    MapPirq(Gsi),
    /// [`unmap_pirq`](super::Hypervisor::unmap_pirq).
    UnmapPirq(Pirq),
    /// [`irq_permission`](super::Hypervisor::irq_permission).
    Irq(Pirq, Access),
}

impl Hypercall {
    /// The call in words, for this domain.
    pub(super) fn about(self, domain: DomainId) -> About {
        About { call: self, domain }
    }
}

/// A call and its domain, in words that follow "not" and "cannot".
pub(super) struct About {
    call: Hypercall,
    domain: DomainId,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = self.domain;
        match self.call {
            Hypercall::Domain => write!(f, "look at domain {domain}"),
            Hypercall::TestAssign(device) => {
                write!(f, "ask whether {device} can be assigned to domain {domain}")
            }
            Hypercall::Assign(device) => write!(f, "assign {device} to domain {domain}"),
            Hypercall::Deassign(device) => write!(f, "deassign {device} from domain {domain}"),
            Hypercall::Iomem(frames, access) => write!(f, "{access} frames {frames} to domain {domain}"),
            Hypercall::Ioport(ports, access) => write!(f, "{access} ports {ports} to domain {domain}"),
            Hypercall::MapPirq(gsi) => write!(f, "map interrupt line {gsi} for domain {domain}"),
            Hypercall::UnmapPirq(pirq) => write!(f, "unmap interrupt {pirq} of domain {domain}"),
            Hypercall::Irq(pirq, access) => write!(f, "{access} interrupt {pirq} to domain {domain}"),
        }
    }
}
