//! A hash map that is never changed but replaced, by arc-swap.
//!
//! Every version of the map has its own reference to every device, so the `Arc`'s count tells how many versions
//! there are; and whoever reads an older version finds what has been removed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::entry::Entry;
use super::key::FastHash;
use super::table::Table;
use crate::strategy::{Promise, Promises, Refused};

#[derive(Default)]
pub(crate) struct ArcSwapMap {
    map: ArcSwap<HashMap<u32, Arc<Entry>, FastHash>>,
    /// One writer at a time.
    writer: Mutex<()>,
}

impl ArcSwapMap {
    /// A lookup, with something happening between finding the device and counting the use.
    #[inline]
    pub(crate) fn find_midway(&self, key: u32, between: impl FnOnce()) -> Option<Arc<Entry>> {
        let map = self.map.load();
        let entry = map.get(&key)?;
        between();
        Some(entry.clone())
    }
}

impl Table for ArcSwapMap {
    const NAME: &'static str = "arc-swap'd HashMap of Arc";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("a lookup under way is not counted; a reader of an older map looks like a use"),
        deterministic_free: Promise::Broken("freed with the last older map"),
        no_lookup_after_remove: Promise::Broken("a lookup under way still succeeds"),
        ..Promises::ALL
    };

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        let _writer = self.writer.lock();
        let known = self.map.load_full();
        if known.contains_key(&key) {
            return Err(entry);
        }
        let mut map = HashMap::with_capacity_and_hasher(known.len() + 1, FastHash::default());
        map.extend(known.iter().map(|(key, entry)| (*key, entry.clone())));
        map.insert(key, entry);
        self.map.store(Arc::new(map));
        Ok(())
    }

    fn fill(&self, entries: impl Iterator<Item = (u32, Arc<Entry>)>) {
        self.map.store(Arc::new(entries.collect()));
    }

    fn remove_if(
        &self,
        key: u32,
        allowed: impl FnOnce(&Arc<Entry>) -> Result<(), Refused>,
    ) -> Result<Option<Arc<Entry>>, Refused> {
        let _writer = self.writer.lock();
        let known = self.map.load_full();
        allowed(known.get(&key).ok_or(Refused::NotFound)?)?;
        let mut map = HashMap::clone(&known);
        let removed = map.remove(&key);
        self.map.store(Arc::new(map));
        Ok(removed)
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.find_midway(key, || ())
    }

    /// Under the guard of the map, which spares the count.
    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.map.load().get(&key).map(|entry| step(entry))
    }
}
