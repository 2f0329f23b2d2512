//! What there is.

use super::error::AssignableError;
use super::record::{self, Record};
use super::{Assignable, PCIBACK, driver};
use crate::Sbdf;
use crate::host::DriverName;
use crate::owner::DomainId;
use crate::xen::store::Store;

/// How it is with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssignableState {
    /// A guest can get it.
    Free,
    /// A guest has it.
    Exported(DomainId),
    /// Something was cut off: it has a record, and pciback does not have it. `assignable-add` goes on,
    /// `assignable-remove` brings back what the host had.
    Interrupted,
    /// It has a record, and the machine does not have it any more.
    Vanished,
}

/// A device that is assignable, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssignableDevice {
    /// The device.
    pub device: Sbdf,
    /// How it is with it.
    pub state: AssignableState,
    /// The driver that the host had, if that is known.
    pub original: Option<DriverName>,
    /// What it is called.
    pub name: Option<String>,
}

impl<S: Store + ?Sized> Assignable<'_, S> {
    /// All devices that are on pciback or have a record, in address order.
    pub fn list(&mut self) -> Result<Vec<AssignableDevice>, AssignableError> {
        let known = |errno| AssignableError::from(driver::failed(Sbdf::default(), "list the devices", errno));
        let recorded = record::devices(self.store)?;
        let mut all = driver::all(self.kernel).map_err(known)?;
        all.extend(&recorded);
        all.sort_unstable();
        all.dedup();
        let mut listed = Vec::new();
        for device in all {
            let on_pciback = driver::current(self.kernel, device)?.is_some_and(|now| now == *PCIBACK);
            let has_record = recorded.binary_search(&device).is_ok();
            if !on_pciback && !has_record {
                continue;
            }
            let record = if has_record { record::read(self.store, None, device)? } else { None };
            // libxl leaves empty ones behind: nothing was cut off there.
            if !on_pciback
                && record.as_ref().is_some_and(Record::is_empty)
                && !driver::has_slot(self.kernel, device)?
            {
                continue;
            }
            let Record { driver: original, name, guest } = record.unwrap_or_default();
            let state = match guest {
                Some(guest) => AssignableState::Exported(guest),
                None if on_pciback => AssignableState::Free,
                None if driver::is_present(self.kernel, device)? => AssignableState::Interrupted,
                None => AssignableState::Vanished,
            };
            listed.push(AssignableDevice { device, state, original, name });
        }
        Ok(listed)
    }

    /// The device of this name.
    pub fn named(&mut self, name: &str) -> Result<Option<Sbdf>, AssignableError> {
        for device in record::devices(self.store)? {
            let record = record::read(self.store, None, device)?;
            if record.and_then(|record| record.name).is_some_and(|its| its == name) {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }
}
