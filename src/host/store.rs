//! Where the journal is kept: a few small files that are replaced whole, and a lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use super::kernel::errno;
use crate::errno::Errno;

/// Keeps small files over crashes.
pub trait Store: Send + Sync + 'static {
    /// A file's content, `None` if there is none; EFBIG if it is longer than `limit`.
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Errno>;

    /// Replaces a file: after a crash it is the old one or the new one, and the new one once this has returned.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Errno>;

    /// Keeps every other manager out, until the guard is dropped or the process ends. `holder` says who has it.
    fn lock(&self, holder: &str) -> Result<Box<dyn Locked>, LockRefused>;
}

/// A store that is locked. Dropping it unlocks it.
pub trait Locked: Send + Sync {}

/// Another manager has the store, or it cannot be locked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockRefused {
    /// Another manager is at work: wait for it, or ask it.
    #[error("another manager has the state folder: {0}")]
    Taken(String),
    /// The lock file cannot be used.
    #[error("the lock file cannot be used: {0}")]
    Failed(Errno),
}

/// A folder.
///
/// In `/run` the journal ends with the boot whose kernel it describes, which is where it belongs.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A folder, made if there is none.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, Errno> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(errno)?;
        Ok(Self(folder))
    }

    /// A folder that is not made if there is none: then it is empty.
    pub fn existing(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }
}

impl Store for Directory {
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Errno> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(errno(error)),
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes).map_err(errno)?;
        if bytes.len() > limit { Err(Errno::EFBIG) } else { Ok(Some(bytes)) }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let temporary = self.0.join(format!("{name}.new"));
        let mut file = File::create(&temporary).map_err(errno)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(errno)?;
        fs::rename(&temporary, self.0.join(name)).map_err(errno)?;
        // The new name is on disk once the folder is.
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(errno)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Locked>, LockRefused> {
        let failed = |error| LockRefused::Failed(errno(error));
        let path = self.0.join("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
                file.write_all(holder.as_bytes()).map_err(failed)?;
                Ok(Box::new(LockFile { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut who = Vec::new();
                file.take(1024).read_to_end(&mut who).map_err(failed)?;
                let who = String::from_utf8_lossy(&who).escape_debug().to_string();
                Err(LockRefused::Taken(who))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// The kernel unlocks it when the process ends, however that happens.
struct LockFile {
    _file: File,
}

impl Locked for LockFile {}
