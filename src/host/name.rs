//! Names from outside: checked once, safe to put into a path or a journal from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a driver; the kernel's own limit for modules is 56.
const LONGEST_DRIVER: usize = 64;
/// The longest name of a manager or a guest.
const LONGEST_PARTY: usize = 255;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// There is nothing.
    #[error("a name must not be empty")]
    Empty,
    /// It is longer than this many bytes.
    #[error("a name has at most {0} bytes")]
    TooLong(usize),
    /// It has a character that names do not have.
    #[error("a name has no {0:?}")]
    Character(char),
}

/// A kernel driver's name. '-' and '_' are the same in comparisons, as they are to the kernel's module loader.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DriverName(String);

impl DriverName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The userspace stub that every host has: `vfio-pci`.
    pub(crate) fn vfio_pci() -> Self {
        Self("vfio-pci".into())
    }

    /// Whether it only keeps a device for userspace: VFIO's drivers and `pci-stub`. The rule of libvirt and of the
    /// kernel's group viability.
    pub fn is_stub(&self) -> bool {
        self.0.starts_with("vfio") || self == "pci-stub" || self.is_vfio_variant()
    }

    /// Variant drivers are named after their hardware, `mlx5_vfio_pci`.
    fn is_vfio_variant(&self) -> bool {
        self.folded().any(|byte| byte == b'_') && self.folded().collect::<Vec<_>>().ends_with(b"_vfio_pci")
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        fold(&self.0)
    }
}

fn fold(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte })
}

impl PartialEq for DriverName {
    fn eq(&self, other: &Self) -> bool {
        self.folded().eq(other.folded())
    }
}

impl PartialEq<str> for DriverName {
    fn eq(&self, other: &str) -> bool {
        self.folded().eq(fold(other))
    }
}

impl FromStr for DriverName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+');
        check(text, LONGEST_DRIVER, is_fine)?;
        // Names go into paths.
        if text.starts_with('.') { Err(InvalidName::Character('.')) } else { Ok(Self(text.into())) }
    }
}

impl TryFrom<String> for DriverName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<DriverName> for String {
    fn from(name: DriverName) -> Self {
        name.0
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A guest, as the pair of who runs it and what that one calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Pair", into = "Pair")]
pub struct GuestName {
    manager: String,
    guest: String,
}

impl GuestName {
    /// Checked: neither part is empty, longer than 255 bytes, or has control characters.
    pub fn new(manager: &str, guest: &str) -> Result<Self, InvalidName> {
        for part in [manager, guest] {
            check(part, LONGEST_PARTY, |c| !c.is_control())?;
        }
        Ok(Self { manager: manager.into(), guest: guest.into() })
    }

    /// Who runs it.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// What that one calls it.
    pub fn guest(&self) -> &str {
        &self.guest
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.guest, self.manager)
    }
}

/// How a guest's name stands in the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    manager: String,
    guest: String,
}

impl TryFrom<Pair> for GuestName {
    type Error = InvalidName;

    fn try_from(Pair { manager, guest }: Pair) -> Result<Self, InvalidName> {
        Self::new(&manager, &guest)
    }
}

impl From<GuestName> for Pair {
    fn from(GuestName { manager, guest }: GuestName) -> Self {
        Self { manager, guest }
    }
}

fn check(text: &str, longest: usize, is_fine: impl Fn(&char) -> bool) -> Result<(), InvalidName> {
    match text.chars().find(|c| !is_fine(c)) {
        _ if text.is_empty() => Err(InvalidName::Empty),
        _ if text.len() > longest => Err(InvalidName::TooLong(longest)),
        Some(character) => Err(InvalidName::Character(character)),
        None => Ok(()),
    }
}
