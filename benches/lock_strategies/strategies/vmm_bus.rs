//! The shape of today's VMMs (Cloud Hypervisor, Firecracker): a bus behind a mutex, on it devices in
//! `Arc<Mutex<_>>`.
//!
//! The bus is locked while the device's handler runs. An unplug takes the device off the bus and succeeds; then
//! what is to be cleaned up depends on `Arc::strong_count`, and who still has an `Arc` keeps the device. This is
//! the PCI bus alone: in the real ones, an address map of all buses, with a lock of its own, comes before it.

use std::collections::{BTreeMap, btree_map};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcidevs::Sbdf;

use super::key::key;
use crate::device::{Device, ONES};
use crate::strategy::{Promise, Promises, Refused, Strategy};

type Shared = Arc<Mutex<Device>>;

/// One VM's bus.
#[derive(Default)]
pub(crate) struct Bus(Mutex<BTreeMap<u32, Shared>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        lock(&self.0).get(&key(at)).map_or(ONES, |device| lock(device).read(register))
    }
}

pub(crate) struct VmmBus(Bus);

impl Strategy for VmmBus {
    const NAME: &'static str = "VMM: bus mutex, BTreeMap of Arc";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("never refuses"),
        deterministic_free: Promise::Broken("freed by whoever drops the last Arc"),
        names_holders: Promise::Broken("an Arc has no name"),
        ..Promises::ALL
    };
    type Use<'a> = Shared;
    type Hold<'a> = Shared;
    type Guest = Bus;

    fn new() -> Self {
        Self(Bus::default())
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        match lock(&self.0.0).entry(key(at)) {
            btree_map::Entry::Occupied(_) => Err(device),
            btree_map::Entry::Vacant(place) => {
                place.insert(Arc::new(Mutex::new(device)));
                Ok(())
            }
        }
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let removed = lock(&self.0.0).remove(&key(at)).ok_or(Refused::NotFound)?;
        drop(removed);
        Ok(())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Shared> {
        lock(&self.0.0).get(&key(at)).cloned()
    }

    fn hold(&self, at: Sbdf, _name: &'static str) -> Option<Shared> {
        self.get(at)
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        self.0.read(at, register)
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        if let Some(device) = lock(&self.0.0).get(&key(at)) {
            lock(device).write(register, value);
        }
    }

    fn create_guest(&self, _number: u32) -> Bus {
        Bus::default()
    }

    fn assign(&self, guest: &Bus, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let device = self.get(at).ok_or(Refused::NotFound)?;
        hook();
        match lock(&guest.0).entry(key(guest_at)) {
            btree_map::Entry::Occupied(_) => {
                Err(Refused::Busy { uses: 1, holders: vec!["the guest's slot is taken".into()] })
            }
            btree_map::Entry::Vacant(place) => {
                place.insert(device);
                Ok(())
            }
        }
    }

    fn release(&self, guest: &Bus, _at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let removed = lock(&guest.0).remove(&key(guest_at)).ok_or(Refused::NotFound)?;
        hook();
        drop(removed);
        Ok(())
    }

    #[inline]
    fn guest_read(&self, guest: &Bus, guest_at: Sbdf, register: usize) -> u32 {
        guest.read(guest_at, register)
    }
}
