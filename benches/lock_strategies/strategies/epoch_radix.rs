//! A radix table under crossbeam-epoch: readers pin, devices carry a count of their own.
//!
//! Written by somebody who wants all promises kept: a removal closes the count and destroys the device at once,
//! and only the empty node waits for the epoch. The one strategy that needs unsafe code: what is loaded under a pin
//! is dereferenced by promise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use parking_lot::Mutex;
use pcidevs::Sbdf;

use super::counted::Counted;
use crate::device::{Device, ONES};
use crate::strategy::{Promises, Refused, Strategy};

struct Bus([Atomic<Counted>; 256]);

struct Buses {
    table: [Atomic<Bus>; 256],
    /// This is the registry's own table, which frees the nodes.
    owns_nodes: bool,
}

/// A table: the registry's, which owns the nodes, or a guest's, which leads to them.
pub(crate) struct Radix {
    buses: Arc<Buses>,
    /// For a guest's: it may outlive the registry.
    _nodes: Option<Arc<Buses>>,
    /// One writer at a time.
    writer: Mutex<()>,
}

impl Radix {
    fn of(nodes: Option<&Arc<Buses>>) -> Self {
        let buses = Buses { table: [const { Atomic::null() }; 256], owns_nodes: nodes.is_none() };
        Self { buses: Arc::new(buses), _nodes: nodes.cloned(), writer: Mutex::new(()) }
    }

    #[inline]
    fn leaf<'g>(&'g self, at: Sbdf, guard: &'g Guard) -> Option<&'g Atomic<Counted>> {
        let bus = self.buses.table[usize::from(at.bus().number())].load(Ordering::Acquire, guard);
        // SAFETY: tables are freed with the whole, and what is loaded is initialised.
        let bus = unsafe { bus.as_ref() }?;
        Some(&bus.0[usize::from(at.devfn().bits())])
    }

    #[inline]
    fn find<'g>(&'g self, at: Sbdf, guard: &'g Guard) -> Option<&'g Counted> {
        let node = self.leaf(at, guard)?.load(Ordering::Acquire, guard);
        // SAFETY: loaded under the pin: nodes are freed by `defer_destroy`, after every leaf has let go of them.
        unsafe { node.as_ref() }
    }

    /// For one writer at a time: the leaf, with its bus made if there was none.
    fn leaf_to_write<'g>(&'g self, at: Sbdf, guard: &'g Guard) -> &'g Atomic<Counted> {
        let bus = &self.buses.table[usize::from(at.bus().number())];
        if bus.load(Ordering::Relaxed, guard).is_null() {
            bus.store(Owned::new(Bus([const { Atomic::null() }; 256])), Ordering::Release);
        }
        // SAFETY: made above or before, freed with the whole.
        let bus = unsafe { bus.load(Ordering::Acquire, guard).deref() };
        &bus.0[usize::from(at.devfn().bits())]
    }
}

impl Drop for Buses {
    fn drop(&mut self) {
        for bus in self.table.iter_mut().map(std::mem::take) {
            // SAFETY: the last `Arc` says that no reader is left, and each entry owns its bus.
            let Some(bus) = (unsafe { bus.try_into_owned() }) else { continue };
            for node in bus.into_box().0 {
                if self.owns_nodes {
                    // SAFETY: as above, and no guest's table is left.
                    drop(unsafe { node.try_into_owned() });
                }
            }
        }
    }
}

pub(crate) struct EpochRadix(Radix);

/// A counted use: the count keeps the node from being closed, and only closed nodes are freed while the registry lasts.
pub(crate) struct Use<'a>(&'a Counted);

impl Drop for Use<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.put();
    }
}

/// A named use.
pub(crate) struct Named<'a> {
    using: Use<'a>,
    name: &'static str,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.using.0.unname(self.name);
    }
}

impl EpochRadix {
    /// A lookup, with something happening between finding the device and counting the use.
    #[inline]
    pub(crate) fn get_midway(&self, at: Sbdf, between: impl FnOnce()) -> Option<Use<'_>> {
        let guard = epoch::pin();
        let node: *const Counted = self.0.find(at, &guard)?;
        between();
        // SAFETY: loaded under the pin, which lasts until the use is counted; from then on the count keeps it, as
        // long as the registry lasts.
        let node = unsafe { &*node };
        node.get().then(|| Use(node))
    }
}

impl Strategy for EpochRadix {
    const NAME: &'static str = "crossbeam-epoch radix, counted";
    const PROMISES: Promises = Promises::ALL;
    type Use<'a> = Use<'a>;
    type Hold<'a> = Named<'a>;
    type Guest = Radix;

    fn new() -> Self {
        Self(Radix::of(None))
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        let guard = epoch::pin();
        let _writer = self.0.writer.lock();
        let leaf = self.0.leaf_to_write(at, &guard);
        if !leaf.load(Ordering::Relaxed, &guard).is_null() {
            return Err(device);
        }
        leaf.store(Owned::new(Counted::of(device)), Ordering::Release);
        Ok(())
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let guard = epoch::pin();
        let _writer = self.0.writer.lock();
        let leaf = self.0.leaf(at, &guard).ok_or(Refused::NotFound)?;
        let node = leaf.load(Ordering::Acquire, &guard);
        // SAFETY: loaded under the pin.
        unsafe { node.as_ref() }.ok_or(Refused::NotFound)?.close()?;
        leaf.store(Shared::null(), Ordering::Release);
        // SAFETY: closed, so it is on no guest's table, and the leaf was the last that led to it.
        unsafe { guard.defer_destroy(node) };
        Ok(())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Use<'_>> {
        self.get_midway(at, || ())
    }

    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Named<'_>> {
        let using = self.get(at)?;
        using.0.name(name);
        Some(Named { using, name })
    }

    /// Under the pin, which spares the count.
    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        let guard = epoch::pin();
        self.0.find(at, &guard).map_or(ONES, |node| node.read(register))
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        let guard = epoch::pin();
        if let Some(node) = self.0.find(at, &guard) {
            node.write(register, value);
        }
    }

    fn create_guest(&self, _number: u32) -> Radix {
        Radix::of(Some(&self.0.buses))
    }

    fn assign(&self, guest: &Radix, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let using = self.get(at).ok_or(Refused::NotFound)?;
        using.0.claim_for(guest_at)?;
        hook();
        let pin = epoch::pin();
        let _writer = guest.writer.lock();
        let leaf = guest.leaf_to_write(guest_at, &pin);
        if !leaf.load(Ordering::Relaxed, &pin).is_null() {
            using.0.settle(None);
            return Err(Refused::Busy { uses: 1, holders: vec!["the guest's slot is taken".into()] });
        }
        leaf.store(Shared::from(std::ptr::from_ref(using.0)), Ordering::Release);
        using.0.settle(Some(guest_at));
        // One more use: the assignment's, until the release.
        using.0.get();
        Ok(())
    }

    fn release(&self, guest: &Radix, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let using = self.get(at).ok_or(Refused::NotFound)?;
        using.0.claim_from(guest_at)?;
        let pin = epoch::pin();
        let node = Shared::from(std::ptr::from_ref(using.0));
        let leaf = guest.leaf(guest_at, &pin).filter(|leaf| leaf.load(Ordering::Relaxed, &pin) == node);
        let Some(leaf) = leaf else {
            using.0.settle(Some(guest_at));
            return Err(Refused::NotFound);
        };
        leaf.store(Shared::null(), Ordering::Release);
        drop(pin);
        hook();
        using.0.settle(None);
        // The assignment's.
        using.0.put();
        Ok(())
    }

    #[inline]
    fn guest_read(&self, guest: &Radix, guest_at: Sbdf, register: usize) -> u32 {
        let pin = epoch::pin();
        guest.find(guest_at, &pin).map_or(ONES, |node| node.read(register))
    }
}
