//! What happened last at each place, for whoever reads of a broken promise.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use pcidevs::Sbdf;
use pcidevs::lifecycle::Event;

/// How many events of a place are kept.
const KEPT: usize = 6;

/// The last events of each function, which are in address order.
pub(crate) struct Chronicle(Vec<(Sbdf, Mutex<VecDeque<String>>)>);

impl Chronicle {
    pub(crate) fn new(functions: impl Iterator<Item = Sbdf>) -> Self {
        Self(functions.map(|address| (address, Mutex::default())).collect())
    }

    fn of(&self, address: Sbdf) -> Option<&Mutex<VecDeque<String>>> {
        let place = self.0.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(&self.0[place].1)
    }

    pub(crate) fn write(&self, event: &Event<'_>) {
        if let Some(events) = self.of(event.device) {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() == KEPT {
                events.pop_front();
            }
            events.push_back(event.to_string());
        }
    }

    /// The last events of a function, the oldest first.
    pub(crate) fn read(&self, address: Sbdf) -> Vec<String> {
        let events = self.of(address).map(|events| events.lock().unwrap_or_else(PoisonError::into_inner));
        events.map_or_else(Vec::new, |events| events.iter().cloned().collect())
    }
}
