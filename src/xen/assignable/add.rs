//! From the host's driver to pciback.

use super::error::{AssignableError, StepsFailed};
use super::record::{self, Record};
use super::{Assignable, PCIBACK, driver};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::{DriverName, WriteFailure};
use crate::xen::hypercall::QUARANTINE;
use crate::xen::spec::RdmPolicy;
use crate::xen::store::{Store, StoreError};

/// What making a device assignable did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Added {
    /// It is assignable now.
    Now,
    /// It was before.
    Before,
}

/// What was done, and is to be undone if a later step fails.
#[derive(Default)]
struct Done {
    /// Whether the record was written, and what stood there before.
    record_written: bool,
    record_before: Option<Record>,
    unbound: Option<DriverName>,
    left_driver: bool,
    has_slot: bool,
}

impl<S: Store + ?Sized> Assignable<'_, S> {
    /// Takes a device from its driver and makes it assignable. One that is already is left as it is, but for quarantine,
    /// which is asked for again.
    pub fn add(&mut self, device: Sbdf, name: Option<&str>) -> Result<Added, AssignableError> {
        let (now, before) = self.check(device, name)?;
        if before.as_ref().is_some_and(|record| record.guest.is_some()) {
            return Ok(Added::Before);
        }
        let is_there = now.as_ref().is_some_and(|now| *now == *PCIBACK);
        let kept = before.clone().unwrap_or_default();
        // What has it now is what the host has. On pciback, or on nothing after a crash, that is what the record says.
        let original = if is_there { kept.driver } else { now.or(kept.driver) };
        let record = Record { driver: original, name: name.map(str::to_owned).or(kept.name), guest: None };
        let mut done = Done::default();
        match self.steps(device, &record, before, &mut done) {
            Ok(()) if is_there => Ok(Added::Before),
            Ok(()) => Ok(Added::Now),
            Err(failure) => {
                let undo = self.undo_add(device, &done);
                Err(StepsFailed { failure, undo }.into())
            }
        }
    }

    /// What can be said without touching anything: the driver that has it, and its record.
    fn check(
        &mut self,
        device: Sbdf,
        name: Option<&str>,
    ) -> Result<(Option<DriverName>, Option<Record>), AssignableError> {
        device.to_u32()?;
        let is_fine = |name: &str| {
            (1..=255).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if !name.is_none_or(is_fine) {
            return Err(AssignableError::Name);
        }
        if !driver::is_present(self.kernel, device)? {
            return Err(AssignableError::NotFound(device));
        }
        let slots = driver::slots(self.kernel);
        if slots.map_err(|errno| driver::failed(device, "read pciback's slots", errno))?.is_none() {
            return Err(AssignableError::NoPciback);
        }
        if driver::is_bridge(self.kernel, device) {
            return Err(AssignableError::NotEndpoint(device));
        }
        if let Some(text) = driver::driver_override(self.kernel, device)?.filter(|text| text != PCIBACK) {
            return Err(AssignableError::Overridden { device, text });
        }
        let now = driver::current(self.kernel, device)?;
        if let Some(driver) = now.clone().filter(DriverName::is_stub) {
            return Err(AssignableError::Foreign { device, driver });
        }
        if let Some(name) = name
            && let Some(other) = self.named(name)?.filter(|other| *other != device)
        {
            return Err(AssignableError::NameTaken(other));
        }
        let record = record::read(self.store, None, device)?;
        Ok((now, record))
    }

    fn steps(
        &mut self,
        device: Sbdf,
        record: &Record,
        before: Option<Record>,
        done: &mut Done,
    ) -> Result<(), WriteFailure> {
        if before.as_ref() != Some(record) {
            let written = record::write(self.store, device, record);
            // What the store refused it has not done; of any other error nobody knows.
            if !matches!(written, Err(AssignableError::Store(StoreError::Refused(_)))) {
                (done.record_written, done.record_before) = (true, before);
            }
            written.map_err(|error| record::in_store(device, "write its record", &error))?;
        }
        if driver::current(self.kernel, device)?.is_none_or(|now| now != *PCIBACK) {
            // Noted before: a look that fails after a write tells nothing of what the write did.
            done.unbound = driver::current(self.kernel, device)?;
            done.left_driver = true;
            driver::unbind(self.kernel, device)?;
            done.has_slot = !driver::has_slot(self.kernel, device)?;
            driver::new_slot(self.kernel, device)?;
            driver::bind(self.kernel, device, PCIBACK)?;
        }
        self.quarantine(device)
    }

    /// Whatever was done, in reverse. The record goes only when the host's driver was seen to have the device.
    fn undo_add(&mut self, device: Sbdf, done: &Done) -> Vec<WriteFailure> {
        let mut failures = Vec::new();
        if done.left_driver {
            failures.extend(driver::unbind_from(self.kernel, device, PCIBACK).err());
        }
        if done.has_slot {
            failures.extend(driver::remove_slot(self.kernel, device).err());
        }
        if let Some(original) = &done.unbound {
            failures.extend(driver::bind(self.kernel, device, original.as_str()).err());
        }
        if done.record_written && failures.is_empty() {
            failures.extend(record::restore(self.store, device, done.record_before.as_ref()).err());
        }
        failures
    }

    /// Asks for the quarantine of a device that is on pciback.
    pub(super) fn quarantine(&self, device: Sbdf) -> Result<(), WriteFailure> {
        self.hypervisor
            .assign_device(QUARANTINE, device, RdmPolicy::Relaxed)
            .map_err(|error| driver::failed(device, error.to_string(), error.errno()))
    }

    /// Ends its quarantine; one that is not in it is no error.
    pub(super) fn end_quarantine(&self, device: Sbdf) -> Result<(), WriteFailure> {
        match self.hypervisor.deassign_device(QUARANTINE, device) {
            Ok(()) => Ok(()),
            // The host has it already, or a guest that was being given it when its tool stack ended: then it stays, because
            // the host's driver would work on that guest's memory.
            Err(error) if error.errno() == Errno::ENODEV => {
                match self.hypervisor.test_assign_device(QUARANTINE, device) {
                    Err(error) if error.errno() == Errno::EINVAL => Err(driver::failed(
                        device,
                        "end its quarantine: a guest has it in the hypervisor; attach it there again and detach it, or destroy that guest",
                        Errno::EBUSY,
                    )),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(driver::failed(device, error.to_string(), error.errno())),
        }
    }
}
