//! Nodes, and who may do what with them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::owner::DomainId;
use crate::xen::store::{Access, NodePath, Permission};

/// The host: it may do anything.
pub(super) const HOST: DomainId = DomainId::new(0);

/// A node's value and permissions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its value.
    pub value: Vec<u8>,
    /// Who may do what: the owner and everybody first. Never empty.
    pub permissions: Vec<Permission>,
}

impl Node {
    /// What the root begins as: the host's, and nobody else's business.
    pub(super) fn root() -> Self {
        Self { value: Vec::new(), permissions: vec![Permission::new(HOST, Access::None)] }
    }

    /// A child that `creator` makes below this node.
    pub(super) fn child(&self, creator: DomainId) -> Self {
        let mut permissions = self.permissions.clone();
        if creator != HOST
            && let Some(owner) = permissions.first_mut()
        {
            owner.domain = creator;
        }
        Self { value: Vec::new(), permissions }
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> DomainId {
        self.permissions.first().map_or(HOST, |first| first.domain)
    }

    /// What `domain` may do with it.
    pub(super) fn access(&self, domain: DomainId) -> Access {
        if domain == HOST || domain == self.owner() {
            return Access::Both;
        }
        let mut entries = self.permissions.iter();
        let everybody = entries.next().map_or(Access::None, |first| first.access);
        entries.find(|entry| entry.domain == domain).map_or(everybody, |entry| entry.access)
    }
}

/// All nodes. A node's children are those whose path says so.
pub(super) type Tree = BTreeMap<NodePath, Arc<Node>>;

/// Everything below `path`, in order, without `path` itself.
pub(super) fn below<'a, T>(
    tree: &'a BTreeMap<NodePath, T>,
    path: &NodePath,
) -> impl Iterator<Item = (&'a NodePath, &'a T)> {
    let text = if path.is_root() { "" } else { path.as_str() };
    // What follows '/' in the order of bytes, so that the range ends after the last descendant.
    let (first, after) = (format!("{text}/"), format!("{text}0"));
    let root = path.is_root();
    tree.range::<str, _>((Bound::Included(first.as_str()), Bound::Excluded(after.as_str())))
        .filter(move |(path, _)| !(root && path.is_root()))
        .collect::<Vec<_>>()
        .into_iter()
}
