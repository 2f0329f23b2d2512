//! The records of this process, and their journal: what is read is what was written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::journal::{Journal, Records};
use super::store::Store;
use crate::errno::Errno;

/// All records. Readers get a copy and never wait for the disk.
pub(super) struct Book {
    store: Arc<dyn Store>,
    boot_id: String,
    /// Before `records`, always.
    journal: Mutex<Writer>,
    records: Mutex<Arc<Records>>,
}

struct Writer {
    journal: Journal,
    /// What is on disk is older than the records.
    is_stale: bool,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    pub(super) fn new(store: Arc<dyn Store>, boot_id: String, journal: Journal, records: Records) -> Self {
        let journal = Mutex::new(Writer { journal, is_stale: false });
        Self { store, boot_id, journal, records: Mutex::new(Arc::new(records)) }
    }

    /// The records at this moment.
    pub(super) fn records(&self) -> Arc<Records> {
        locked(&self.records).clone()
    }

    /// Changes the records if the journal can be written; else nothing is changed.
    pub(super) fn change(&self, change: impl FnOnce(&mut Records)) -> Result<(), Errno> {
        let mut writer = locked(&self.journal);
        let mut records = Records::clone(&self.records());
        change(&mut records);
        self.save(&mut writer, &records)?;
        *locked(&self.records) = Arc::new(records);
        Ok(())
    }

    /// Changes the records whether or not the journal can be written: this is what is so. The next change writes it.
    pub(super) fn correct(&self, change: impl FnOnce(&mut Records)) -> Result<(), Errno> {
        let mut writer = locked(&self.journal);
        let mut records = Records::clone(&self.records());
        change(&mut records);
        let saved = self.save(&mut writer, &records);
        writer.is_stale |= saved.is_err();
        *locked(&self.records) = Arc::new(records);
        saved
    }

    /// Writes what could not be written before.
    pub(super) fn flush(&self) -> Result<(), Errno> {
        let mut writer = locked(&self.journal);
        let records = self.records();
        self.save(&mut writer, &records)
    }

    fn save(&self, writer: &mut Writer, records: &Records) -> Result<(), Errno> {
        if !writer.is_stale && *self.records() == *records {
            return Ok(());
        }
        writer.journal.save(&*self.store, &self.boot_id, records)?;
        writer.is_stale = false;
        Ok(())
    }
}
