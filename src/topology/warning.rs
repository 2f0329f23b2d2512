//! What a source says that cannot be right, or does not say although it should.
//!
//! A warning never costs more than the fact it is about: the function it names, and all others, are still read.

use std::fmt;

use crate::address::Sbdf;
use crate::device::ChainWarning;

/// One thing found wrong while reading a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The line of the source, from 1, where the source is text.
    pub line: Option<u32>,
    /// The function concerned, where there is one.
    pub address: Option<Sbdf>,
    /// What kind of thing is wrong.
    pub kind: WarningKind,
    /// One sentence for a person.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(address) = self.address {
            write!(f, "{address}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The kind of a [`Warning`]. Its text form is stable: programs match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// `truncated`: something continues past the end of what was recorded.
    Truncated,
    /// `capability-loop`: a capability list leads back into itself.
    CapabilityLoop,
    /// `capability-pointer-low`: a capability pointer leads into the header.
    CapabilityPointerLow,
    /// `capability-pointer-unaligned`: a capability pointer has its low bits set.
    CapabilityPointerUnaligned,
    /// `capability-reads-ones`: a capability reads all ones.
    CapabilityReadsOnes,
    /// `capability-reads-zero`: an extended capability reads zero in the middle of its list.
    CapabilityReadsZero,
    /// `capability-list-empty`: a list is announced but its pointer is 0.
    CapabilityListEmpty,
    /// `capability-pointer-without-list`: a pointer without a list announced.
    CapabilityPointerWithoutList,
    /// `dead`: the whole configuration space reads ones.
    Dead,
    /// `short-config`: fewer than 64 bytes of configuration space.
    ShortConfig,
    /// `header-type`: a header type that is none of 0, 1 and 2.
    HeaderType,
    /// `hex-row`: a row of hexadecimal bytes that cannot be read.
    HexRow,
    /// `hex-gap`: rows of hexadecimal bytes are missing or out of order; missing bytes read `ff`.
    HexGap,
    /// `duplicate`: a function is listed more than once.
    Duplicate,
    /// `bad-value`: a file or field does not hold what it should.
    BadValue,
    /// `unreadable`: a file exists but cannot be read.
    Unreadable,
    /// `dangling`: a function is linked but its folder is not there.
    Dangling,
    /// `outside`: a link leads out of the tree; it was not followed.
    Outside,
    /// `vf-address`: virtual functions of a PF have no valid address.
    VfAddress,
}

impl WarningKind {
    /// The stable text form, in kebab case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::CapabilityLoop => "capability-loop",
            Self::CapabilityPointerLow => "capability-pointer-low",
            Self::CapabilityPointerUnaligned => "capability-pointer-unaligned",
            Self::CapabilityReadsOnes => "capability-reads-ones",
            Self::CapabilityReadsZero => "capability-reads-zero",
            Self::CapabilityListEmpty => "capability-list-empty",
            Self::CapabilityPointerWithoutList => "capability-pointer-without-list",
            Self::Dead => "dead",
            Self::ShortConfig => "short-config",
            Self::HeaderType => "header-type",
            Self::HexRow => "hex-row",
            Self::HexGap => "hex-gap",
            Self::Duplicate => "duplicate",
            Self::BadValue => "bad-value",
            Self::Unreadable => "unreadable",
            Self::Dangling => "dangling",
            Self::Outside => "outside",
            Self::VfAddress => "vf-address",
        }
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<ChainWarning> for WarningKind {
    fn from(warning: ChainWarning) -> Self {
        match warning {
            ChainWarning::Loop { .. } => Self::CapabilityLoop,
            ChainWarning::PointerTooLow { .. } => Self::CapabilityPointerLow,
            ChainWarning::Unaligned { .. } => Self::CapabilityPointerUnaligned,
            ChainWarning::Truncated { .. } => Self::Truncated,
            ChainWarning::ReadsOnes { .. } => Self::CapabilityReadsOnes,
            ChainWarning::ReadsZero { .. } => Self::CapabilityReadsZero,
            ChainWarning::EmptyList => Self::CapabilityListEmpty,
            ChainWarning::PointerWithoutList { .. } => Self::CapabilityPointerWithoutList,
        }
    }
}
