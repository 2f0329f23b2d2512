//! Who may do what with a node.

use std::fmt;
use std::str::FromStr;

use crate::owner::DomainId;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Both.
    Both,
}

impl Access {
    /// Whether reading is part of it.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether writing is part of it.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry of a node's permissions, written `r7`.
///
/// The first entry of a node is different: its domain owns the node and may do anything, and its access is what every
/// domain without an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// Whose entry it is.
    pub domain: DomainId,
    /// What that is.
    pub access: Access,
}

impl Permission {
    /// An entry.
    pub const fn new(domain: DomainId, access: Access) -> Self {
        Self { domain, access }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain)
    }
}

/// Text that is not a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("not a permission: n, r, w or b and a domain")]
pub struct InvalidPermission;

impl FromStr for Permission {
    type Err = InvalidPermission;

    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        let mut letters = text.chars();
        let access = match letters.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(InvalidPermission),
        };
        let domain = letters.as_str();
        if domain.is_empty() || !domain.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidPermission);
        }
        Ok(Self::new(DomainId::new(domain.parse().map_err(|_| InvalidPermission)?), access))
    }
}
