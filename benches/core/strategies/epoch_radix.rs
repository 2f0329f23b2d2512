//! A radix table under crossbeam-epoch: readers pin, devices carry a count of their own.
//!
//! The one strategy that needs unsafe code: a pointer loaded under a pin is dereferenced by promise.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use parking_lot::Mutex;
use pcidevs::Sbdf;

use super::Strategy;
use crate::devices::{Device, REGISTER};

struct Node {
    /// The table's own reference and those of users.
    references: AtomicUsize,
    device: Mutex<Device>,
}

struct Bus([Atomic<Node>; 256]);

pub(super) struct EpochRadix(Box<[Atomic<Bus>; 256]>);

impl EpochRadix {
    #[inline]
    fn find<'g>(&self, address: Sbdf, guard: &'g Guard) -> Shared<'g, Node> {
        let bus = self.0[usize::from(address.bus().number())].load(Ordering::Acquire, guard);
        // SAFETY: tables are freed with the whole, and what is loaded is initialised.
        let Some(bus) = (unsafe { bus.as_ref() }) else { return Shared::null() };
        bus.0[usize::from(address.devfn().bits())].load(Ordering::Acquire, guard)
    }
}

/// Counts one use unless the last one has gone.
#[inline]
fn get(node: &Node) -> bool {
    let mut seen = node.references.load(Ordering::Relaxed);
    while seen != 0 {
        let counted =
            node.references.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed);
        match counted {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// Gives one use back; the last one frees the device when no reader can see it any more.
#[inline]
fn put(node: Shared<'_, Node>, guard: &Guard) {
    // SAFETY: the use that is given back keeps the node.
    if unsafe { node.deref() }.references.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: the table's own reference has gone, so the table does not lead here any more.
        unsafe { guard.defer_destroy(node) };
    }
}

impl Strategy for EpochRadix {
    const NAME: &'static str = "crossbeam-epoch radix, counted";

    fn with(addresses: &[Sbdf]) -> Self {
        let table = Self(Box::new([const { Atomic::null() }; 256]));
        let guard = epoch::pin();
        for address in addresses {
            let bus = &table.0[usize::from(address.bus().number())];
            if bus.load(Ordering::Relaxed, &guard).is_null() {
                bus.store(Owned::new(Bus([const { Atomic::null() }; 256])), Ordering::Release);
            }
            // SAFETY: made above, freed with the whole.
            let bus = unsafe { bus.load(Ordering::Relaxed, &guard).deref() };
            let device = Mutex::new(Device::at(*address));
            let node = Owned::new(Node { references: AtomicUsize::new(1), device });
            bus.0[usize::from(address.devfn().bits())].store(node, Ordering::Release);
        }
        drop(guard);
        table
    }

    #[inline]
    fn keep(&self, address: Sbdf) -> bool {
        let guard = epoch::pin();
        let node = self.find(address, &guard);
        // SAFETY: loaded under the pin.
        if !unsafe { node.as_ref() }.is_some_and(get) {
            return false;
        }
        // One pin for both halves is a favour to this strategy: a long-lived use would pin twice.
        put(node, &guard);
        true
    }

    /// Under the pin, which spares the count.
    #[inline]
    fn read(&self, address: Sbdf) -> u32 {
        let guard = epoch::pin();
        // SAFETY: loaded under the pin.
        let node = unsafe { self.find(address, &guard).as_ref() };
        node.map_or(u32::MAX, |node| node.device.lock().registers[REGISTER])
    }
}

impl Drop for EpochRadix {
    fn drop(&mut self) {
        for bus in self.0.iter_mut().map(std::mem::take) {
            // SAFETY: `&mut self` says that no reader is left, and each entry owns what it leads to.
            let Some(bus) = (unsafe { bus.try_into_owned() }) else { continue };
            for node in bus.into_box().0 {
                // SAFETY: as above.
                drop(unsafe { node.try_into_owned() });
            }
        }
    }
}
