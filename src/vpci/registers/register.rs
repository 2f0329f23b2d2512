//! One register: where it is, how wide, which of its bits a write may change, and what answers.

use core::fmt;

use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::platform::Width;

/// Registers end here, in bytes (PCIe 6.0 §7.2).
pub(super) const END: u16 = 4096;

/// A register as a handler knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its offset in configuration space, in bytes.
    pub offset: u16,
    /// The number it was given when it was added: which BAR, which vector.
    pub tag: u16,
}

/// What a read of a register of the model `M` gives.
#[derive(Debug)]
pub enum Read<M> {
    /// All ones.
    Ones,
    /// The value that was added, or was stored last.
    Value,
    /// What this answers. Bits beyond the register's width are cut.
    Handler(fn(&mut M, At) -> u32),
}

/// What a write of a register of the model `M` does; `O` is what it can ask for.
#[derive(Debug)]
pub enum Write<M, O> {
    /// Nothing.
    Drop,
    /// The value is stored, for [`Read::Value`]. `rw1c` bits that are written as ones become zeros.
    Value,
    /// This is called with the value. What has to happen outside the device's lock it returns.
    Handler(fn(&mut M, At, u32) -> Option<O>),
}

/// Bits that a write does not simply change. No bit is in two masks, and none beyond the register's width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// Read-only: a write leaves them.
    pub ro: u32,
    /// Written as one they are cleared, written as zero left (`RW1C`, PCIe 6.0 §7.4).
    pub rw1c: u32,
    /// Reserved: read as 0, and a write preserves them (`RsvdP`).
    pub rsvdp: u32,
    /// Reserved: read as 0, and a write makes them 0 (`RsvdZ`).
    pub rsvdz: u32,
}

/// A register to be added to a [`Space`](super::Space).
///
/// ```
/// use pcidevs::platform::Width;
/// use pcidevs::vpci::{Masks, Register};
/// // The vendor ID: constant.
/// let vendor = Register::<(), ()>::constant(0, Width::Word, 0x8086);
/// // An interrupt line: whatever was written last.
/// let line = Register::<(), ()>::value(0x3c, Width::Byte, 0);
/// // A status register: some bits are cleared by writing ones to them.
/// let masks = Masks { ro: 0x06b7, rw1c: 0xf900, rsvdz: 0x0048, ..Masks::default() };
/// let status = Register::<(), ()>::value(6, Width::Word, 0x0010).masked(masks);
/// # let _ = (vendor, line, status);
/// ```
#[derive(Debug)]
pub struct Register<M, O> {
    pub(super) offset: u16,
    pub(super) width: Width,
    pub(super) tag: u16,
    pub(super) value: u32,
    pub(super) read: Read<M>,
    pub(super) write: Write<M, O>,
    pub(super) masks: Masks,
}

impl<M, O> Register<M, O> {
    /// A register that always reads as `value`; writes are dropped.
    pub const fn constant(offset: u16, width: Width, value: u32) -> Self {
        Self::new(offset, width, Read::Value, Write::Drop).starting_as(value)
    }

    /// A register that reads as it was written last, and as `value` before.
    pub const fn value(offset: u16, width: Width, value: u32) -> Self {
        Self::new(offset, width, Read::Value, Write::Value).starting_as(value)
    }

    /// A register with these answers.
    pub const fn new(offset: u16, width: Width, read: Read<M>, write: Write<M, O>) -> Self {
        let masks = Masks { ro: 0, rw1c: 0, rsvdp: 0, rsvdz: 0 };
        Self { offset, width, tag: 0, value: 0, read, write, masks }
    }

    /// With these masks.
    #[must_use]
    pub const fn masked(self, masks: Masks) -> Self {
        Self { masks, ..self }
    }

    /// With a number that its handlers are told.
    #[must_use]
    pub const fn tagged(self, tag: u16) -> Self {
        Self { tag, ..self }
    }

    const fn starting_as(self, value: u32) -> Self {
        Self { value, ..self }
    }

    /// The byte after its last.
    pub(super) const fn end(&self) -> u16 {
        self.offset.saturating_add(self.width as u16)
    }

    pub(super) fn check(&self) -> Result<(), RegisterError> {
        let refused = |reason| Err(RegisterError::Invalid { offset: self.offset, reason });
        let Masks { ro, rw1c, rsvdp, rsvdz } = self.masks;
        if !self.offset.is_multiple_of(self.width as u16) {
            return refused(Invalid::Misaligned);
        }
        if self.end() > END {
            return refused(Invalid::TooFar);
        }
        if (ro | rw1c | rsvdp | rsvdz | self.value) & !all_bits(self.width) != 0 {
            return refused(Invalid::TooWide);
        }
        let ones: u32 = [ro, rw1c, rsvdp, rsvdz].iter().map(|mask| mask.count_ones()).sum();
        if ones != (ro | rw1c | rsvdp | rsvdz).count_ones() {
            return refused(Invalid::MasksOverlap);
        }
        Ok(())
    }
}

// Not derived: a function pointer is `Copy` whatever it takes.
impl<M> Clone for Read<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Read<M> {}

impl<M, O> Clone for Write<M, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, O> Copy for Write<M, O> {}

impl<M, O> Clone for Register<M, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, O> Copy for Register<M, O> {}

/// These bits, if it is so.
#[inline]
pub(in crate::vpci) const fn bits_if(is_so: bool, bits: u32) -> u32 {
    if is_so { bits } else { 0 }
}

/// The bits of a register.
#[inline]
pub(in crate::vpci) const fn all_bits(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword => u32::MAX,
    }
}

/// Registers were not added or removed; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There can be no such register (EINVAL).
    #[error("no register can be at {offset:#x}: {reason}")]
    Invalid {
        /// Where it was to be.
        offset: u16,
        /// Which rule it breaks.
        reason: Invalid,
    },
    /// There is one already that has some of its bytes: remove that first (EEXIST).
    #[error("there is a register at {0:#x} already")]
    Exists(u16),
    /// The range to be removed has this register only in part: widen it, or narrow it (EBUSY).
    #[error("the register at {0:#x} is only partly in the range")]
    PartialOverlap(u16),
    /// There is no memory for it (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

/// Which rule a register breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// Its offset is no multiple of its width.
    Misaligned,
    /// It ends beyond the 4096 bytes of configuration space.
    TooFar,
    /// Its value or a mask has bits beyond its width.
    TooWide,
    /// A bit is in two masks.
    MasksOverlap,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Misaligned => "the offset is no multiple of the width",
            Self::TooFar => "it ends beyond 4096 bytes",
            Self::TooWide => "its value or a mask has bits beyond its width",
            Self::MasksOverlap => "a bit is in two masks",
        })
    }
}

impl RegisterError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Invalid { .. } => Errno::EINVAL,
            Self::Exists(_) => Errno::EEXIST,
            Self::PartialOverlap(_) => Errno::EBUSY,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
