//! Memory-mapped configuration space: which function and which register an address is.
//!
//! A window shows one segment's buses from its first one on, 1 MiB a bus, 4 KiB a function (PCIe 6.0 §7.2.2). A
//! guest may have several.

use crate::address::{Bus, DevFn, Sbdf, Segment};
use crate::errno::Errno;
use crate::platform::Width;

/// 4 KiB a function.
const FUNCTION_SHIFT: u32 = 12;
/// 256 functions a bus.
const BUS_SHIFT: u32 = FUNCTION_SHIFT + 8;

/// One window of a guest's memory that is configuration space.
///
/// ```
/// use pcidevs::address::{Bus, Segment};
/// use pcidevs::vpci::Ecam;
/// let window = Ecam::new(Segment::new(0), Bus::new(0)..=Bus::new(255), 0xe000_0000)?;
/// assert_eq!(window.size(), 256 << 20);
/// let (function, offset) = window.locate(0xe010_8010).ok_or("inside")?;
/// assert_eq!((function.to_string().as_str(), offset), ("0000:01:01.0", 0x10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    segment: Segment,
    first: Bus,
    last: Bus,
    base: u64,
}

impl Ecam {
    /// A window whose first byte is function 00.0 of the first bus.
    pub fn new(
        segment: Segment,
        buses: core::ops::RangeInclusive<Bus>,
        base: u64,
    ) -> Result<Self, EcamError> {
        let (first, last) = (*buses.start(), *buses.end());
        if first > last {
            return Err(EcamError::NoBuses);
        }
        let window = Self { segment, first, last, base };
        if !base.is_multiple_of(1 << BUS_SHIFT) {
            return Err(EcamError::Misaligned(base));
        }
        base.checked_add(window.size() - 1).ok_or(EcamError::TooHigh(base))?;
        Ok(window)
    }

    /// Where it begins, in bytes.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// How long it is, in bytes.
    pub const fn size(&self) -> u64 {
        (self.last.number() as u64 - self.first.number() as u64 + 1) << BUS_SHIFT
    }

    /// Whether the two have a byte, or a function, in common. A guest's windows do not.
    pub fn overlaps(&self, other: &Self) -> bool {
        let ends = |window: &Self| window.base + (window.size() - 1);
        let bytes = self.base <= ends(other) && other.base <= ends(self);
        let functions = self.segment == other.segment && self.first <= other.last && other.first <= self.last;
        bytes || functions
    }

    /// The function and the offset in its configuration space that an address is; `None` outside the window.
    #[inline]
    pub fn locate(&self, address: u64) -> Option<(Sbdf, u16)> {
        let within = address.checked_sub(self.base).filter(|within| *within < self.size())?;
        let [low, high, ..] = within.to_le_bytes();
        let [devfn, bus, ..] = (within >> FUNCTION_SHIFT).to_le_bytes();
        // Not beyond the last bus, which is one of 256: the window ends there.
        let bus = self.first.number().checked_add(bus)?;
        let function = Sbdf::new(self.segment, Bus::new(bus), DevFn::from_bits(devfn));
        Some((function, u16::from_le_bytes([low, high & 0xf])))
    }
}

/// An access to memory-mapped configuration space, as the parts that a device is asked: one, or two for 8 bytes.
///
/// `None` if there is no such access: only 1, 2, 4 and 8 bytes, naturally aligned. It reads as ones and writes
/// nothing. What is aligned ends within the function's 4096 bytes.
#[inline]
pub const fn parts(offset: u16, length: usize) -> Option<(Width, Option<u16>)> {
    let width = match length {
        1 => Width::Byte,
        2 => Width::Word,
        4 | 8 => Width::Dword,
        _ => return None,
    };
    if !(offset as usize).is_multiple_of(length) {
        return None;
    }
    // Two of 4 bytes, the low one first.
    Some((width, if length == 8 { Some(offset + 4) } else { None }))
}

/// There can be no such window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EcamError {
    /// The first bus is after the last one (EINVAL).
    #[error("the first bus is after the last one")]
    NoBuses,
    /// It does not begin at a multiple of 1 MiB (EINVAL).
    #[error("{0:#x} is no multiple of 1 MiB")]
    Misaligned(u64),
    /// It ends beyond 64 bits (EINVAL).
    #[error("a window at {0:#x} ends beyond 64 bits")]
    TooHigh(u64),
}

impl EcamError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        Errno::EINVAL
    }
}
