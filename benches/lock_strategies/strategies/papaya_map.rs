//! papaya: a hash map whose readers take no lock.
//!
//! A reader that has found a device counts himself a moment later, and a removal in that moment has seen nobody.
//! What is removed is freed when the map's collector comes to it, which is when enough has been removed.

use std::sync::Arc;

use papaya::HashMap;

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promise, Promises, Refused};

pub(crate) struct Papaya(HashMap<u32, Arc<Entry>, FastHash>);

impl Default for Papaya {
    fn default() -> Self {
        Self(HashMap::builder().hasher(FastHash::default()).build())
    }
}

impl Papaya {
    /// A lookup, with something happening between finding the device and counting the use.
    #[inline]
    pub(crate) fn find_midway(&self, key: u32, between: impl FnOnce()) -> Option<Arc<Entry>> {
        let guard = self.0.guard();
        let entry = self.0.get(&key, &guard)?;
        between();
        Some(entry.clone())
    }
}

impl Table for Papaya {
    const NAME: &'static str = "papaya of Arc";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("a lookup under way is not counted; what a guest had still is, for a while"),
        deterministic_free: Promise::Broken("freed when the map's collector comes to it"),
        no_lookup_after_remove: Promise::Broken("a lookup under way still succeeds"),
        ..Promises::ALL
    };

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        let given_back = entry.clone();
        self.0.pin().try_insert(key, entry).map(drop).map_err(|_| given_back)
    }

    fn remove_if(
        &self,
        key: u32,
        allowed: impl FnOnce(&Arc<Entry>) -> Result<(), Refused>,
    ) -> Result<Option<Arc<Entry>>, Refused> {
        let map = self.0.pin();
        allowed(map.get(&key).ok_or(Refused::NotFound)?)?;
        // The map keeps what was removed until its collector comes to it; there is nothing to give back.
        map.remove(&key).map(|_| None).ok_or(Refused::NotFound)
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.find_midway(key, || ())
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        let guard = self.0.guard();
        self.0.get(&key, &guard).map(|entry| step(entry))
    }
}
