//! The names of nodes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest path that a store takes.
const LONGEST: usize = 3072;

/// The absolute path of a node, checked: `/local/domain/7/name`.
///
/// ASCII letters, digits and `-_@`, separated by single slashes, none at the end, at most 3072 bytes. Relative paths mean
/// something else to each connection and are not used here.
///
/// ```
/// use pcidevs::xen::store::NodePath;
/// let guest = NodePath::new("/local/domain/7")?;
/// assert_eq!(guest.child("name")?.as_str(), "/local/domain/7/name");
/// assert!(NodePath::new("/libxl/pci/0000:03:00.0").is_err());
/// # Ok::<(), pcidevs::xen::store::InvalidPath>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(Arc<str>);

impl NodePath {
    /// Checks the text.
    pub fn new(path: &str) -> Result<Self, InvalidPath> {
        let well_formed = match path.strip_prefix('/') {
            Some("") => true,
            Some(names) => names.split('/').all(is_name),
            None => false,
        };
        if well_formed && path.len() <= LONGEST { Ok(Self(path.into())) } else { Err(InvalidPath) }
    }

    /// The root.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// A child of this node; `name` may have slashes and then names a descendant.
    pub fn child(&self, name: &str) -> Result<Self, InvalidPath> {
        Self::new(&format!("{}/{name}", if self.is_root() { "" } else { self.as_str() }))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.as_str() == "/"
    }

    /// The node above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            _ if self.is_root() => None,
            Some(0) | None => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].into())),
        }
    }

    /// The last name of the path; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether this node is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_prefix(other.as_str()) {
            Some(rest) => other.is_root() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte))
}

impl Borrow<str> for NodePath {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not the absolute path of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("not the absolute path of a node")]
pub struct InvalidPath;

/// What the store itself reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Special {
    /// A guest was made known.
    IntroduceDomain,
    /// A guest has died, was shut down or was released.
    ReleaseDomain,
}

/// What a watch is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// A node and everything below.
    Node(NodePath),
    /// What happens to guests.
    Special(Special),
}

impl Watched {
    /// Reads what a request or an event names.
    pub fn new(text: &str) -> Result<Self, InvalidPath> {
        match text {
            "@introduceDomain" => Ok(Self::Special(Special::IntroduceDomain)),
            "@releaseDomain" => Ok(Self::Special(Special::ReleaseDomain)),
            path => NodePath::new(path).map(Self::Node),
        }
    }

    /// As a request names it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Node(path) => path.as_str(),
            Self::Special(Special::IntroduceDomain) => "@introduceDomain",
            Self::Special(Special::ReleaseDomain) => "@releaseDomain",
        }
    }
}

impl From<NodePath> for Watched {
    fn from(path: NodePath) -> Self {
        Self::Node(path)
    }
}

impl From<Special> for Watched {
    fn from(special: Special) -> Self {
        Self::Special(special)
    }
}
