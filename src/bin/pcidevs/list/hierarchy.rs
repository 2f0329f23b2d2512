//! Which function hangs below which: buses below their bridges, virtual functions below their physical one.
//!
//! Bus numbers come from recordings and may say anything, also that two bridges are behind each other. Every
//! function is drawn exactly once all the same: one that no root leads to is drawn as if it were a root.

use std::collections::{BTreeMap, BTreeSet};

use pcidevs::Sbdf;
use pcidevs::address::Bus;
use pcidevs::topology::{Function, Machine};

use super::known::Known;

/// A place in the tree.
#[derive(Clone, Copy)]
pub(super) enum Node<'m> {
    /// A root bus: what stands on it is below no bridge.
    RootBus(Bus),
    /// A function.
    Function(&'m Function),
}

/// A line of the tree: the branches drawn before it, and what it shows.
pub(super) struct Line<'m> {
    pub(super) branches: String,
    pub(super) node: Node<'m>,
}

/// The lines of one segment of the machine, from top to bottom.
pub(super) fn lines<'m>(segment: &'m [Function], machine: &Machine, known: &Known) -> Vec<Line<'m>> {
    Forest::new(segment, machine, known).draw()
}

struct Forest<'m> {
    roots: BTreeMap<Bus, Vec<&'m Function>>,
    below: BTreeMap<Sbdf, Vec<&'m Function>>,
    /// What is a root or below one.
    reached: BTreeSet<Sbdf>,
}

impl<'m> Forest<'m> {
    fn new(segment: &'m [Function], machine: &Machine, known: &Known) -> Self {
        let mut forest = Self { roots: BTreeMap::new(), below: BTreeMap::new(), reached: BTreeSet::new() };
        let mut roots = Vec::new();
        for function in segment {
            match parent(machine, known, function) {
                Some(parent) => forest.below.entry(parent).or_default().push(function),
                None => roots.push(function),
            }
        }
        // After the true roots, whatever they did not lead to.
        for root in roots.into_iter().chain(segment) {
            forest.add_root(root);
        }
        forest
    }

    fn add_root(&mut self, root: &'m Function) {
        if self.reached.contains(&root.address) {
            return;
        }
        self.roots.entry(root.address.bus()).or_default().push(root);
        let mut next = vec![root.address];
        while let Some(address) = next.pop() {
            if self.reached.insert(address) {
                next.extend(self.below.get(&address).into_iter().flatten().map(|function| function.address));
            }
        }
    }

    /// Draws with a stack of its own: a made-up tree may be deeper than the program's.
    fn draw(&self) -> Vec<Line<'m>> {
        let mut drawn: BTreeSet<Sbdf> = self.roots.values().flatten().map(|root| root.address).collect();
        let mut lines = Vec::new();
        for (bus, roots) in &self.roots {
            lines.push(Line { branches: String::new(), node: Node::RootBus(*bus) });
            let mut next = Vec::new();
            push(&mut next, "", roots.clone());
            while let Some((indent, last, function)) = next.pop() {
                let below = self.below.get(&function.address).into_iter().flatten().copied();
                let below = below.filter(|function| drawn.insert(function.address)).collect();
                push(&mut next, &format!("{indent}{}", if last { "   " } else { "│  " }), below);
                let branches = indent + if last { "└─ " } else { "├─ " };
                lines.push(Line { branches, node: Node::Function(function) });
            }
        }
        lines
    }
}

/// Puts siblings on the stack, so that the first of them comes off first.
fn push<'m>(stack: &mut Vec<(String, bool, &'m Function)>, indent: &str, siblings: Vec<&'m Function>) {
    for (place, function) in siblings.into_iter().rev().enumerate() {
        stack.push((indent.to_owned(), place == 0, function));
    }
}

/// What a function is drawn below: its physical function, or the bridge above it.
fn parent(machine: &Machine, known: &Known, function: &Function) -> Option<Sbdf> {
    let pf = function.physfn.and_then(|address| machine.function(address));
    let same_segment = |pf: &&Function| pf.address.segment() == function.address.segment();
    let pf = pf.filter(|pf| !pf.is_virtual()).filter(same_segment);
    pf.map(|pf| pf.address).or_else(|| known.bridge_above(function.address))
}
