//! A mutex around a hash map of counted devices, each with a lock of its own: what one writes first.
//!
//! The map's lock is let go before the device's is taken, so that a slow device holds up nobody else; that is
//! why a locked read takes a count as well. A removal holds the map's lock, so nobody can find the device and
//! count himself meanwhile: the `Arc`'s count is exact.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promises, Refused};

#[derive(Default)]
pub(crate) struct MutexMap(Mutex<HashMap<u32, Arc<Entry>, FastHash>>);

impl Table for MutexMap {
    const NAME: &'static str = "Mutex, HashMap of Arc";
    const PROMISES: Promises = Promises::ALL;

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        match self.0.lock().entry(key) {
            hash_map::Entry::Occupied(_) => Err(entry),
            hash_map::Entry::Vacant(place) => {
                place.insert(entry);
                Ok(())
            }
        }
    }

    fn remove_if(
        &self,
        key: u32,
        allowed: impl FnOnce(&Arc<Entry>) -> Result<(), Refused>,
    ) -> Result<Option<Arc<Entry>>, Refused> {
        let mut map = self.0.lock();
        let hash_map::Entry::Occupied(place) = map.entry(key) else { return Err(Refused::NotFound) };
        allowed(place.get())?;
        Ok(Some(place.remove()))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.0.lock().get(&key).cloned()
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.find(key).map(|entry| step(&entry))
    }
}
