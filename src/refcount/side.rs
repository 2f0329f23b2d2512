//! A side table: something small and shared for every address ever used, found with loads only.
//!
//! Entries are made once and stay until the table goes, so who finds one may keep it, in an interrupt too. What
//! is in them must be fit for many threads; for a device's own state there is the slot.

use super::table::Table;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::sync::RawLock;

/// One `S` per address.
pub(crate) struct SideTable<S, L> {
    table: Table<S, L>,
}

impl<S: Sync, L: RawLock> SideTable<S, L> {
    pub(crate) fn new() -> Self {
        Self { table: Table::new() }
    }

    /// The entry of an address, if there ever was one.
    pub(crate) fn find(&self, address: Sbdf) -> Option<&S> {
        self.table.find(address)
    }

    /// The entry of an address, made if there is none.
    pub(crate) fn find_or_make(&self, address: Sbdf, make: impl FnOnce() -> S) -> Result<&S, NoMemory> {
        let mut leaf = self.table.segment_or_make(address.segment())?.write(address)?;
        match leaf.current() {
            Some(entry) => Ok(entry),
            None => leaf.swing(|_| false, make),
        }
    }
}
