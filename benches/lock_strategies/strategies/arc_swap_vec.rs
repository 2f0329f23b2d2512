//! A sorted vector that is never changed but replaced, by arc-swap; its devices carry a count of their own.
//!
//! The count and the emptied node keep all promises in spite of older vectors that are still being read; the
//! nodes' memory goes with the last of these.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pcidevs::Sbdf;

use super::counted::Counted;
use super::key::key;
use crate::device::{Device, ONES};
use crate::strategy::{Promises, Refused, Strategy};

type Node = (u32, Arc<Counted>);

/// A table: the registry's, or a guest's.
#[derive(Default)]
pub(crate) struct Sorted {
    nodes: ArcSwap<Vec<Node>>,
    /// One writer at a time.
    writer: Mutex<()>,
}

fn place(nodes: &[Node], key: u32) -> Result<usize, usize> {
    nodes.binary_search_by_key(&key, |(key, _)| *key)
}

impl Sorted {
    #[inline]
    fn with<R>(&self, at: Sbdf, step: impl FnOnce(&Arc<Counted>) -> R) -> Option<R> {
        let nodes = self.nodes.load();
        let place = place(&nodes, key(at)).ok()?;
        Some(step(&nodes[place].1))
    }

    fn insert(&self, at: Sbdf, node: Arc<Counted>) -> Result<(), Arc<Counted>> {
        let _writer = self.writer.lock();
        let known = self.nodes.load_full();
        let Err(place) = place(&known, key(at)) else { return Err(node) };
        let mut nodes = Vec::with_capacity(known.len() + 1);
        nodes.extend_from_slice(&known[..place]);
        nodes.push((key(at), node));
        nodes.extend_from_slice(&known[place..]);
        self.nodes.store(Arc::new(nodes));
        Ok(())
    }

    fn remove_if(&self, at: Sbdf, allowed: impl FnOnce(&Arc<Counted>) -> Result<(), Refused>) -> Result<(), Refused> {
        let _writer = self.writer.lock();
        let known = self.nodes.load_full();
        let place = place(&known, key(at)).map_err(|_| Refused::NotFound)?;
        allowed(&known[place].1)?;
        let mut nodes = Vec::with_capacity(known.len() - 1);
        nodes.extend_from_slice(&known[..place]);
        nodes.extend_from_slice(&known[place + 1..]);
        self.nodes.store(Arc::new(nodes));
        Ok(())
    }
}

pub(crate) struct ArcSwapVec(Sorted);

/// A counted use. The `Arc` keeps the node's memory, the count the device.
pub(crate) struct Use(Arc<Counted>);

impl Drop for Use {
    #[inline]
    fn drop(&mut self) {
        self.0.put();
    }
}

/// A named use.
pub(crate) struct Named {
    using: Use,
    name: &'static str,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.using.0.unname(self.name);
    }
}

impl ArcSwapVec {
    /// A lookup, with something happening between finding the device and counting the use.
    #[inline]
    pub(crate) fn get_midway(&self, at: Sbdf, between: impl FnOnce()) -> Option<Use> {
        self.0.with(at, |node| {
            between();
            node.get().then(|| Use(node.clone()))
        })?
    }
}

impl Strategy for ArcSwapVec {
    const NAME: &'static str = "arc-swap'd sorted Vec, counted";
    const PROMISES: Promises = Promises::ALL;
    type Use<'a> = Use;
    type Hold<'a> = Named;
    type Guest = Sorted;

    fn new() -> Self {
        Self(Sorted::default())
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        self.0.insert(at, Arc::new(Counted::of(device))).map_err(|node| {
            Arc::into_inner(node).and_then(Counted::into_device).expect("refused before anybody saw it")
        })
    }

    fn fill(&self, devices: impl Iterator<Item = (Sbdf, Device)>) {
        let mut nodes: Vec<Node> = devices.map(|(at, device)| (key(at), Arc::new(Counted::of(device)))).collect();
        nodes.sort_by_key(|(key, _)| *key);
        self.0.nodes.store(Arc::new(nodes));
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        self.0.remove_if(at, |node| node.close())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Use> {
        self.get_midway(at, || ())
    }

    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Named> {
        let using = self.get(at)?;
        using.0.name(name);
        Some(Named { using, name })
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        self.0.with(at, |node| node.read(register)).unwrap_or(ONES)
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        self.0.with(at, |node| node.write(register, value));
    }

    fn create_guest(&self, _number: u32) -> Sorted {
        Sorted::default()
    }

    fn assign(&self, guest: &Sorted, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let using = self.get(at).ok_or(Refused::NotFound)?;
        using.0.claim_for(guest_at)?;
        hook();
        let taken = guest.insert(guest_at, using.0.clone());
        using.0.settle(taken.is_ok().then_some(guest_at));
        match taken {
            Ok(()) => {
                // One more use: the assignment's, until the release.
                using.0.get();
                Ok(())
            }
            Err(_) => Err(Refused::Busy { uses: 1, holders: vec!["the guest's slot is taken".into()] }),
        }
    }

    fn release(&self, guest: &Sorted, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let using = self.get(at).ok_or(Refused::NotFound)?;
        using.0.claim_from(guest_at)?;
        let same = |node: &Arc<Counted>| if Arc::ptr_eq(node, &using.0) { Ok(()) } else { Err(Refused::NotFound) };
        let released = guest.remove_if(guest_at, same);
        if released.is_ok() {
            hook();
            // The assignment's.
            using.0.put();
        }
        using.0.settle(released.is_err().then_some(guest_at));
        released
    }

    #[inline]
    fn guest_read(&self, guest: &Sorted, guest_at: Sbdf, register: usize) -> u32 {
        guest.with(guest_at, |node| node.read(register)).unwrap_or(ONES)
    }
}
