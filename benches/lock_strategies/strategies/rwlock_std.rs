//! The same as `rwlock_map` with the standard library's lock, which writers do not overtake readers in.

use std::collections::{HashMap, hash_map};
use std::sync::{Arc, PoisonError, RwLock};

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promises, Refused};

#[derive(Default)]
pub(crate) struct RwLockStd(RwLock<HashMap<u32, Arc<Entry>, FastHash>>);

impl Table for RwLockStd {
    const NAME: &'static str = "RwLock (std), HashMap of Arc";
    const PROMISES: Promises = Promises::ALL;

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        match self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key) {
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
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let hash_map::Entry::Occupied(place) = map.entry(key) else { return Err(Refused::NotFound) };
        allowed(place.get())?;
        Ok(Some(place.remove()))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(|entry| step(entry))
    }
}
