//! dashmap: a hash map cut into shards, each with its own read-write lock.
//!
//! Threads meet where their devices share a shard. A removal has its shard's write lock, so nobody can find the
//! device meanwhile: the `Arc`'s count is exact.

use std::sync::Arc;

use dashmap::DashMap;

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promises, Refused};

#[derive(Default)]
pub(crate) struct Dash(DashMap<u32, Arc<Entry>, FastHash>);

impl Table for Dash {
    const NAME: &'static str = "dashmap of Arc";
    const PROMISES: Promises = Promises::ALL;

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        match self.0.entry(key) {
            dashmap::Entry::Occupied(_) => Err(entry),
            dashmap::Entry::Vacant(place) => {
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
        let dashmap::Entry::Occupied(place) = self.0.entry(key) else { return Err(Refused::NotFound) };
        allowed(place.get())?;
        Ok(Some(place.remove()))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.0.get(&key).map(|entry| entry.clone())
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.0.get(&key).map(|entry| step(&entry))
    }
}
