//! The tree as a transaction sees it: what is committed, under its own changes.
//!
//! Like a real store's: a read sees what is committed at that moment, not when the transaction began; each node that
//! was looked at, changed or found missing is remembered, and a commit of somebody else that changes one of them makes
//! the transaction end in `EAGAIN`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::limits::Limits;
use super::tree::{HOST, Node, Tree, below};
use crate::owner::DomainId;
use crate::xen::store::{Access, NodePath, Permission, Refusal};

/// Who hears of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Extent {
    /// Watches of this node and of those above.
    Upwards,
    /// Watches of exactly this node: it went with one above.
    Exact,
}

/// What a transaction has looked at and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub(super) seen: BTreeSet<NodePath>,
    pub(super) changed: BTreeMap<NodePath, Option<Arc<Node>>>,
    /// In the order of the first change, for the events.
    pub(super) events: Vec<(NodePath, Extent)>,
    /// Somebody else has changed what this one has seen.
    pub(super) conflict: bool,
}

/// An open transaction of a domain, over what is committed.
pub(super) struct View<'a> {
    pub(super) tree: &'a Tree,
    pub(super) open: &'a mut Open,
    pub(super) domain: DomainId,
    pub(super) limits: Limits,
}

impl View<'_> {
    fn look(&mut self, path: &NodePath) -> Option<Arc<Node>> {
        self.open.seen.insert(path.clone());
        match self.open.changed.get(path) {
            Some(changed) => changed.clone(),
            None => self.tree.get(path).cloned(),
        }
    }

    /// The node, or `NotFound` for those who may know that, `Denied` for others.
    fn existing(&mut self, path: &NodePath, may: fn(Access) -> bool) -> Result<Arc<Node>, Refusal> {
        match self.look(path) {
            Some(node) if may(node.access(self.domain)) => Ok(node),
            Some(_) => Err(Refusal::Denied),
            None => Err(self.missing(path, may)),
        }
    }

    fn missing(&mut self, path: &NodePath, may: fn(Access) -> bool) -> Refusal {
        let (_, above) = self.nearest(path);
        if may(above.access(self.domain)) { Refusal::NotFound } else { Refusal::Denied }
    }

    /// The nearest node above that exists; the root always does.
    fn nearest(&mut self, path: &NodePath) -> (NodePath, Arc<Node>) {
        let mut at = path.clone();
        while let Some(above) = at.parent() {
            if let Some(node) = self.look(&above) {
                return (above, node);
            }
            at = above;
        }
        (at, Arc::new(Node::root()))
    }

    fn change(&mut self, path: &NodePath, node: Option<Node>) {
        self.open.seen.insert(path.clone());
        self.open.changed.insert(path.clone(), node.map(Arc::new));
    }

    fn tell(&mut self, path: &NodePath, extent: Extent) {
        let event = (path.clone(), extent);
        if !self.open.events.contains(&event) {
            self.open.events.push(event);
        }
    }

    /// Creates the node and what is missing above it.
    fn create(&mut self, path: &NodePath, value: Vec<u8>) -> Result<(), Refusal> {
        let (above, parent) = self.nearest(path);
        if !parent.access(self.domain).writes() {
            return Err(Refusal::Denied);
        }
        let template = parent.child(self.domain);
        let mut new = vec![path.clone()];
        while let Some(parent) = new.last().and_then(NodePath::parent)
            && parent != above
        {
            new.push(parent);
        }
        if template.owner() != HOST && self.owned(template.owner()) + new.len() > self.limits.nodes {
            return Err(Refusal::NoSpace);
        }
        for missing in new.iter().skip(1).rev() {
            self.change(missing, Some(template.clone()));
        }
        self.change(path, Some(Node { value, ..template }));
        Ok(())
    }

    /// How many nodes a domain has, as this transaction would leave them.
    fn owned(&self, domain: DomainId) -> usize {
        let kept =
            self.tree.iter().filter(|(path, _)| !self.open.changed.contains_key(*path)).map(|(_, node)| node);
        kept.chain(self.open.changed.values().flatten()).filter(|node| node.owner() == domain).count()
    }

    pub(super) fn read(&mut self, path: &NodePath) -> Result<Vec<u8>, Refusal> {
        Ok(self.existing(path, Access::reads)?.value.clone())
    }

    pub(super) fn write(&mut self, path: &NodePath, value: &[u8]) -> Result<(), Refusal> {
        if self.domain != HOST && path.as_str().len() + value.len() > self.limits.node_bytes {
            return Err(Refusal::NoSpace);
        }
        match self.look(path) {
            Some(node) if node.access(self.domain).writes() => {
                self.change(path, Some(Node { value: value.to_vec(), ..(*node).clone() }));
            }
            Some(_) => return Err(Refusal::Denied),
            None => self.create(path, value.to_vec())?,
        }
        self.tell(path, Extent::Upwards);
        Ok(())
    }

    pub(super) fn mkdir(&mut self, path: &NodePath) -> Result<(), Refusal> {
        match self.look(path) {
            Some(node) if node.access(self.domain).writes() => Ok(()),
            Some(_) => Err(Refusal::Denied),
            None => {
                self.create(path, Vec::new())?;
                self.tell(path, Extent::Upwards);
                Ok(())
            }
        }
    }

    pub(super) fn remove(&mut self, path: &NodePath) -> Result<(), Refusal> {
        let Some(parent) = path.parent() else { return Err(Refusal::Invalid) };
        match self.look(path) {
            Some(node) if node.access(self.domain).writes() => {}
            Some(_) => return Err(Refusal::Denied),
            None => {
                // Nothing to remove is right where there could be something.
                self.existing(&parent, Access::reads)?;
                return Ok(());
            }
        }
        // A parent's list of children is part of it.
        self.open.seen.insert(parent);
        for lost in self.descendants(path) {
            self.change(&lost, None);
            self.tell(&lost, Extent::Exact);
        }
        self.change(path, None);
        self.tell(path, Extent::Upwards);
        Ok(())
    }

    /// What is below a node, in this transaction's eyes.
    fn descendants(&self, path: &NodePath) -> Vec<NodePath> {
        let committed = below(self.tree, path).map(|(path, _)| path);
        let kept = committed.filter(|path| !self.open.changed.contains_key(*path));
        let mine = below(&self.open.changed, path).filter(|(_, node)| node.is_some()).map(|(path, _)| path);
        kept.chain(mine).cloned().collect()
    }

    pub(super) fn directory(&mut self, path: &NodePath) -> Result<Vec<String>, Refusal> {
        self.existing(path, Access::reads)?;
        let mut names: Vec<String> = self
            .descendants(path)
            .iter()
            .filter(|below| below.parent().as_ref() == Some(path))
            .map(|child| child.name().to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn permissions(&mut self, path: &NodePath) -> Result<Vec<Permission>, Refusal> {
        Ok(self.existing(path, Access::reads)?.permissions.clone())
    }

    pub(super) fn set_permissions(
        &mut self,
        path: &NodePath,
        permissions: &[Permission],
    ) -> Result<(), Refusal> {
        let Some(first) = permissions.first() else { return Err(Refusal::Invalid) };
        let node = self.existing(path, |_| true)?;
        if self.domain != HOST && (node.owner() != self.domain || first.domain != self.domain) {
            return Err(Refusal::Denied);
        }
        self.change(path, Some(Node { value: node.value.clone(), permissions: permissions.to_vec() }));
        self.tell(path, Extent::Upwards);
        Ok(())
    }
}

/// The nodes whose change a commit means to those who looked: itself, and for one created or removed also the parent, whose
/// list of children it is in.
pub(super) fn touched<'a>(tree: &'a Tree, open: &'a Open) -> impl Iterator<Item = NodePath> + 'a {
    open.changed.iter().flat_map(|(path, node)| {
        let existence = node.is_some() != tree.contains_key(path);
        std::iter::once(path.clone()).chain(path.parent().filter(|_| existence))
    })
}
