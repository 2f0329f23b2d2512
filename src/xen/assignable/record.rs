//! What the host had: `/libxl/pci/<device>/driver_path`, and beside it how the device is called and which guest has it.
//!
//! libxl writes the path of the driver's folder, `/sys/bus/pci/drivers/igb`, and so do we: either can bring back what the
//! other took. A device that had no driver has a record without one.

use super::error::AssignableError;
use super::{ATTEMPTS, driver::failed};
use crate::Sbdf;
use crate::host::{DriverName, WriteFailure};
use crate::owner::DomainId;
use crate::xen::pciback::Place;
use crate::xen::store::{Change, NodePath, Refusal, Store, StoreError, TransactionId, transact};

const FOLDER: &str = "/libxl/pci";
const DRIVERS: &str = "/sys/bus/pci/drivers/";

/// What stands in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The driver that the host had; `None` if it had none.
    pub(super) driver: Option<DriverName>,
    pub(super) name: Option<String>,
    /// The guest that has it.
    pub(super) guest: Option<DomainId>,
}

impl Record {
    /// It says nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn text<S: Store + ?Sized>(
    store: &mut S,
    t: Option<TransactionId>,
    at: &NodePath,
) -> Result<Option<String>, AssignableError> {
    match store.find(t, at)? {
        None => Ok(None),
        Some(value) => String::from_utf8(value).map(Some).map_err(|_| AssignableError::Nonsense(at.clone())),
    }
}

/// The record of a device; `None` if it has none.
pub(super) fn read<S: Store + ?Sized>(
    store: &mut S,
    t: Option<TransactionId>,
    device: Sbdf,
) -> Result<Option<Record>, AssignableError> {
    let folder = Place::record(device)?;
    if store.find(t, &folder)?.is_none() {
        return Ok(None);
    }
    let [at_driver, at_name, at_guest] =
        [child(&folder, "driver_path")?, child(&folder, "name")?, child(&folder, "domid")?];
    let driver = match text(store, t, &at_driver)? {
        None => None,
        Some(path) => {
            let name = path.strip_prefix(DRIVERS).and_then(|name| name.parse().ok());
            Some(name.ok_or(AssignableError::Nonsense(at_driver))?)
        }
    };
    let guest = match text(store, t, &at_guest)? {
        None => None,
        Some(number) => {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let guest = number.parse().ok().filter(|_| digits).map(DomainId::new);
            Some(guest.ok_or(AssignableError::Nonsense(at_guest))?)
        }
    };
    Ok(Some(Record { driver, name: text(store, t, &at_name)?, guest }))
}

fn child(folder: &NodePath, name: &str) -> Result<NodePath, StoreError> {
    Ok(folder.child(name)?)
}

/// All devices that have a record, in address order. Names that are no device's are left out.
pub(super) fn devices<S: Store + ?Sized>(store: &mut S) -> Result<Vec<Sbdf>, AssignableError> {
    let folder = NodePath::new(FOLDER).map_err(StoreError::from)?;
    let names = match store.directory(None, &folder) {
        Err(StoreError::Refused(Refusal::NotFound)) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found: Vec<Sbdf> = names.iter().filter_map(|name| device(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// `0000-03-00-0`.
fn device(name: &str) -> Option<Sbdf> {
    let [segment, bus, device, function]: [&str; 4] = name.split('-').collect::<Vec<_>>().try_into().ok()?;
    format!("{segment}:{bus}:{device}.{function}").parse().ok()
}

/// Writes down what the host has, and how the device is called. What a record says of a guest stays.
pub(super) fn write<S: Store + ?Sized>(
    store: &mut S,
    device: Sbdf,
    record: &Record,
) -> Result<(), AssignableError> {
    let folder = Place::record(device)?;
    let leaf = |name: &str, value: Option<String>| -> Result<Change, StoreError> {
        let at = child(&folder, name)?;
        Ok(value.map_or(Change::Remove(at.clone()), |value| Change::Write(at, value)))
    };
    let path = record.driver.as_ref().map(|driver| format!("{DRIVERS}{driver}"));
    let changes =
        vec![Change::Mkdir(folder.clone()), leaf("driver_path", path)?, leaf("name", record.name.clone())?];
    transact(store, ATTEMPTS, |_, _| Ok((changes.clone(), ())))
}

/// Puts back what was there before: a record, or none. A guest that has the device keeps what is written of it.
pub(super) fn restore<S: Store + ?Sized>(
    store: &mut S,
    device: Sbdf,
    before: Option<&Record>,
) -> Result<(), WriteFailure> {
    let restored = match before {
        Some(before) => write(store, device, before),
        None => transact(store, ATTEMPTS, |store, t| {
            let held = read(store, Some(t), device)?.is_some_and(|record| record.guest.is_some());
            let folder = Place::record(device)?;
            let removed = if held {
                vec![Change::Remove(child(&folder, "driver_path")?), Change::Remove(child(&folder, "name")?)]
            } else {
                vec![Change::Remove(folder)]
            };
            Ok((removed, ()))
        }),
    };
    restored.map_err(|error| in_store(device, "restore its record", &error))
}

/// A failure of the store as a step's.
pub(super) fn in_store(device: Sbdf, what: &str, error: &AssignableError) -> WriteFailure {
    failed(device, format!("{what}: {error}"), error.errno())
}
