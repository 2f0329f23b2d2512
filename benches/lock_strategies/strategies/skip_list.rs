//! crossbeam's skip list: an ordered map whose readers take no lock, under epochs.
//!
//! It breaks what papaya breaks, for the same reasons.

use std::sync::Arc;

use crossbeam_skiplist::SkipMap;

use super::entry::Entry;
use super::table::Table;
use crate::strategy::{Promise, Promises, Refused};

#[derive(Default)]
pub(crate) struct SkipList(SkipMap<u32, Arc<Entry>>);

impl SkipList {
    /// A lookup, with something happening between finding the device and counting the use.
    #[inline]
    pub(crate) fn find_midway(&self, key: u32, between: impl FnOnce()) -> Option<Arc<Entry>> {
        let entry = self.0.get(&key)?;
        between();
        Some(entry.value().clone())
    }
}

impl Table for SkipList {
    const NAME: &'static str = "crossbeam-skiplist of Arc";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("a lookup under way is not counted; what a guest had still is, for a while"),
        deterministic_free: Promise::Broken("freed some epochs later"),
        no_lookup_after_remove: Promise::Broken("a lookup under way still succeeds"),
        ..Promises::ALL
    };

    fn insert(&self, key: u32, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        let inserted = self.0.get_or_insert(key, entry.clone());
        if Arc::ptr_eq(inserted.value(), &entry) { Ok(()) } else { Err(entry) }
    }

    fn remove_if(
        &self,
        key: u32,
        allowed: impl FnOnce(&Arc<Entry>) -> Result<(), Refused>,
    ) -> Result<Option<Arc<Entry>>, Refused> {
        let found = self.0.get(&key).ok_or(Refused::NotFound)?;
        allowed(found.value())?;
        if found.remove() { Ok(None) } else { Err(Refused::NotFound) }
    }

    #[inline]
    fn find(&self, key: u32) -> Option<Arc<Entry>> {
        self.find_midway(key, || ())
    }

    #[inline]
    fn with<R>(&self, key: u32, step: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.0.get(&key).map(|entry| step(entry.value()))
    }
}
