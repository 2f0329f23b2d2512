//! A read-write lock around the map: what was proposed for Xen's vPCI before counting was.
//!
//! A locked read stays under the read lock, which spares the count but is a write to the lock's own line, shared by
//! all readers. A removal has the write lock, so nobody can find the device meanwhile: the `Arc`'s count is exact.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use parking_lot::RwLock;

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promises, Refused};

#[derive(Default)]
pub(crate) struct RwLockMap(RwLock<HashMap<u32, Arc<Entry>, FastHash>>);

impl Table for RwLockMap {
    const NAME: &'static str = "RwLock, HashMap of Arc";
    const PROMISES: Promises = Promises::ALL;

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        match self.0.write().entry(key) {
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
        let mut map = self.0.write();
        let hash_map::Entry::Occupied(place) = map.entry(key) else { return Err(Refused::NotFound) };
        allowed(place.get())?;
        Ok(Some(place.remove()))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.0.read().get(&key).cloned()
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.0.read().get(&key).map(|entry| step(entry))
    }
}
