//! Maps from addresses to devices in `Arc`s, and the strategy that each of them makes.
//!
//! Most strategies differ in the map alone. Such a one implements [`Table`]; what is the same for all is here.

use std::sync::Arc;

use pcidevs::Sbdf;

use super::entry::{Entry, Named};
use super::key::key;
use crate::device::{Device, ONES};
use crate::strategy::{Promises, Refused, Strategy};

/// A concurrent map of devices.
pub(crate) trait Table: Default + Send + Sync + 'static {
    const NAME: &'static str;
    const PROMISES: Promises;

    /// Adds a device; gives it back if the key is taken.
    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>>;

    /// Adds many to an empty map, as [`Strategy::fill`].
    fn fill(&self, entries: impl Iterator<Item = (u32, Arc<Entry>)>) {
        for (key, entry) in entries {
            assert!(self.insert(key, entry).is_ok(), "each key once");
        }
    }

    /// Takes a device out if it is `allowed`; `NotFound` if there is none. A strategy that keeps its promises lets
    /// nobody find the device in between.
    fn remove_if(
        &self,
        key: u32,
        allowed: impl FnOnce(&Arc<Entry>) -> Result<(), Refused>,
    ) -> Result<Option<Arc<Entry>>, Refused>;

    /// One more reference to a device.
    fn find(&self, key: u32) -> Option<Arc<Entry>>;

    /// A step on a device, with the device found and kept in the cheapest way that the map has.
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R>;
}

impl<T: Table> Strategy for T {
    const NAME: &'static str = T::NAME;
    const PROMISES: Promises = T::PROMISES;
    type Use<'a> = Arc<Entry>;
    type Hold<'a> = Named;
    type Guest = T;

    fn new() -> Self {
        Self::default()
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        self.insert(key(at), Entry::of(device)).map_err(Entry::into_device)
    }

    fn fill(&self, devices: impl Iterator<Item = (Sbdf, Device)>) {
        Table::fill(self, devices.map(|(at, device)| (key(at), Entry::of(device))));
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let last = self.remove_if(key(at), Entry::unused)?;
        // Not under a lock of the map.
        drop(last);
        Ok(())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Arc<Entry>> {
        self.find(key(at))
    }

    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Named> {
        Some(Named::of(self.find(key(at))?, name))
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        self.with(key(at), |entry| entry.device.lock().read(register)).unwrap_or(ONES)
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        self.with(key(at), |entry| entry.device.lock().write(register, value));
    }

    fn create_guest(&self, _number: u32) -> T {
        T::default()
    }

    fn assign(&self, guest: &T, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let entry = self.find(key(at)).ok_or(Refused::NotFound)?;
        entry.claim_for(guest_at)?;
        hook();
        let taken = guest.insert(key(guest_at), entry.clone());
        entry.settle(taken.is_ok().then_some(guest_at));
        taken.map_err(|_| Refused::Busy { uses: 1, holders: vec!["the guest's slot is taken".into()] })
    }

    fn release(&self, guest: &T, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let entry = self.find(key(at)).ok_or(Refused::NotFound)?;
        entry.claim_from(guest_at)?;
        let same =
            |here: &Arc<Entry>| if Arc::ptr_eq(here, &entry) { Ok(()) } else { Err(Refused::NotFound) };
        let released = guest.remove_if(key(guest_at), same).map(drop);
        if released.is_ok() {
            hook();
        }
        entry.settle(released.is_err().then_some(guest_at));
        released
    }

    #[inline]
    fn guest_read(&self, guest: &T, guest_at: Sbdf, register: usize) -> u32 {
        guest.read(guest_at, register)
    }
}
