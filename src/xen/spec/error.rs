//! What is wrong with a string, and where.

use std::fmt;

/// Text that is no device's string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid device: {problem} at position {position}")]
pub struct InvalidSpec {
    /// Byte offset into the text.
    pub position: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a string.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No address, `[SSSS:]BB:DD.F`, where one must be.
    Address,
    /// A device above `1f`.
    Device,
    /// A function that is neither 0 to 7 nor `*`.
    Function,
    /// A slot that is not a hexadecimal number up to `1f`.
    Slot,
    /// Text after the address that is not a comma.
    Tail,
    /// A key without a value, or nothing between two commas.
    Pair,
    /// A key that xl does not know.
    UnknownKey,
    /// A key, or a slot, for the second time.
    Twice,
    /// A value that is neither 0 nor 1.
    Switch,
    /// A policy that is neither `strict` nor `relaxed`.
    Policy,
    /// A name that is empty, or has what cannot be written down again.
    Name,
    /// Neither an address nor a name.
    Nothing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "an address such as 0000:03:00.0 expected",
            Self::Device => "a device of at most 1f expected",
            Self::Function => "a function from 0 to 7, or *, expected",
            Self::Slot => "a slot of at most 1f expected",
            Self::Tail => "a comma or the end expected",
            Self::Pair => "key=value expected",
            Self::UnknownKey => "no such key",
            Self::Twice => "it was given before",
            Self::Switch => "0 or 1 expected",
            Self::Policy => "strict or relaxed expected",
            Self::Name => "a name expected",
            Self::Nothing => "an address or a name expected",
        })
    }
}
