//! A mutex around a hash map of counted devices, each with a lock of its own: what one writes first.
//!
//! The map's lock is let go before the device's is taken, so that a slow device holds up nobody else; that is
//! why a locked read takes a count as well. A removal holds the map's lock, so nobody can find the device and
//! count himself meanwhile: the `Arc`'s count is exact.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

use parking_lot::Mutex;
use pcidevs::Sbdf;

use super::entry::{Entry, Named};
use super::key::{FastHash, key};
use crate::device::{Device, ONES};
use crate::strategy::{Promises, Refused, Strategy};

type Map = Mutex<HashMap<u32, Arc<Entry>, FastHash>>;

pub(crate) struct MutexMap(Map);

#[inline]
fn find(map: &Map, at: Sbdf) -> Option<Arc<Entry>> {
    map.lock().get(&key(at)).cloned()
}

impl Strategy for MutexMap {
    const NAME: &'static str = "Mutex, HashMap of Arc";
    const PROMISES: Promises = Promises::ALL;
    type Use<'a> = Arc<Entry>;
    type Hold<'a> = Named;
    type Guest = Map;

    fn new() -> Self {
        Self(Mutex::default())
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        match self.0.lock().entry(key(at)) {
            hash_map::Entry::Occupied(_) => Err(device),
            hash_map::Entry::Vacant(place) => {
                place.insert(Entry::of(device));
                Ok(())
            }
        }
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let mut map = self.0.lock();
        let hash_map::Entry::Occupied(entry) = map.entry(key(at)) else { return Err(Refused::NotFound) };
        entry.get().unused()?;
        let last = entry.remove();
        drop(map);
        drop(last);
        Ok(())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Arc<Entry>> {
        find(&self.0, at)
    }

    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Named> {
        Some(Named::of(find(&self.0, at)?, name))
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        find(&self.0, at).map_or(ONES, |entry| entry.device.lock().read(register))
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        if let Some(entry) = find(&self.0, at) {
            entry.device.lock().write(register, value);
        }
    }

    fn create_guest(&self, _number: u32) -> Map {
        Map::default()
    }

    fn assign(&self, guest: &Map, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let entry = find(&self.0, at).ok_or(Refused::NotFound)?;
        entry.claim_for(guest_at)?;
        hook();
        guest.lock().insert(key(guest_at), entry.clone());
        entry.settle(Some(guest_at));
        Ok(())
    }

    fn release(&self, guest: &Map, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let entry = find(&self.0, at).ok_or(Refused::NotFound)?;
        entry.claim_from(guest_at)?;
        guest.lock().remove(&key(guest_at));
        hook();
        entry.settle(None);
        Ok(())
    }

    #[inline]
    fn guest_read(&self, guest: &Map, guest_at: Sbdf, register: usize) -> u32 {
        find(guest, guest_at).map_or(ONES, |entry| entry.device.lock().read(register))
    }
}
