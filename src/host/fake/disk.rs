//! The disk: files that are replaced whole, and a lock that ends with the process.

use super::Fake;
use crate::errno::Errno;
use crate::host::book::locked;
use crate::host::store::{LockRefused, Locked, Store};

impl Fake {
    /// What a file of the store holds.
    pub fn stored(&self, name: &str) -> Option<Vec<u8>> {
        locked(&self.shared.disk).get(name).cloned()
    }

    /// Damages a file of the store, or puts one there.
    pub fn store(&self, name: &str, bytes: &[u8]) {
        locked(&self.shared.disk).insert(name.into(), bytes.to_vec());
    }
}

impl Store for Fake {
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Errno> {
        let bytes = self.stored(name);
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > limit) { Err(Errno::EFBIG) } else { Ok(bytes) }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let temporary = format!("{name}.new");
        let torn = bytes.len() / 2;
        if let Err(errno) = self.strike(&format!("write {temporary}")) {
            // What is left of a write that did not end.
            self.store(&temporary, &bytes[..torn]);
            return Err(errno);
        }
        self.store(&temporary, bytes);
        self.strike(&format!("rename {temporary}"))?;
        let mut disk = locked(&self.shared.disk);
        if let Some(bytes) = disk.remove(&temporary) {
            disk.insert(name.into(), bytes);
        }
        Ok(())
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Locked>, LockRefused> {
        let mut locked = locked(&self.shared.is_locked);
        match &*locked {
            Some(holder) => Err(LockRefused::Taken(holder.clone())),
            None => {
                *locked = Some(holder.to_owned());
                Ok(Box::new(DiskLock(self.clone())))
            }
        }
    }
}

struct DiskLock(Fake);

impl Locked for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        *locked(&self.0.shared.is_locked) = None;
    }
}
