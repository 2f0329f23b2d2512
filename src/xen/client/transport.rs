//! How to reach the store.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::connection::Connection;
use crate::xen::store::StoreError;

/// A stream to the store, which never blocks: it answers `WouldBlock`, and can be polled.
pub trait Transport: Read + Write + AsFd {}

impl<T: Read + Write + AsFd> Transport for T {}

/// Connects to the store of this host: the daemon's socket if there is one, else the kernel's device.
///
/// The socket is where `XENSTORED_PATH` says, or `socket` in `XENSTORED_RUNDIR`, or in `/run/xenstored`.
pub fn connect() -> Result<Connection<Box<dyn Transport + Send>>, StoreError> {
    let folder = env::var_os("XENSTORED_RUNDIR").map_or_else(|| "/run/xenstored".into(), PathBuf::from);
    let path = env::var_os("XENSTORED_PATH").map_or_else(|| folder.join("socket"), PathBuf::from);
    if path.exists() {
        return Ok(Connection::new(Box::new(socket(&path)?)));
    }
    Ok(Connection::new(Box::new(device(Path::new("/dev/xen/xenbus"))?)))
}

/// Connects to a daemon's socket.
pub fn connect_socket(path: &Path) -> Result<Connection<UnixStream>, StoreError> {
    Ok(Connection::new(socket(path)?))
}

/// Opens the kernel's device, which passes requests on: `/dev/xen/xenbus`.
pub fn connect_device(path: &Path) -> Result<Connection<File>, StoreError> {
    Ok(Connection::new(device(path)?))
}

fn socket(path: &Path) -> Result<UnixStream, StoreError> {
    let socket = UnixStream::connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn device(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    Ok(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?)
}
