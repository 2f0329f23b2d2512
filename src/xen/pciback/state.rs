//! The states of backends, front ends and single devices.

use std::fmt;

/// How far one side has come. Both sides of a connection, and each device in it, have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the protocol's names; the module of the protocol says what they lead to")]
pub enum State {
    Unknown = 0,
    Initialising = 1,
    InitWait = 2,
    Initialised = 3,
    Connected = 4,
    Closing = 5,
    Closed = 6,
    Reconfiguring = 7,
    Reconfigured = 8,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// Reads a node's value. A guest writes its own, so anything can be there: [`Unknown`](Self::Unknown).
    pub fn read(value: &[u8]) -> Self {
        match value {
            [digit @ b'0'..=b'8'] => Self::ALL[usize::from(digit - b'0')],
            _ => Self::Unknown,
        }
    }

    /// As a node's value.
    pub fn number(self) -> String {
        (self as u8).to_string()
    }

    /// Whether this side has given up, or is about to.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closing | Self::Closed)
    }
}

/// `4 (Connected)`
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self:?})", *self as u8)
    }
}
