//! From pciback to the host's driver.

use super::error::{AssignableError, StepsFailed};
use super::record::{self, Record};
use super::{Assignable, PCIBACK, Step, driver};
use crate::Sbdf;
use crate::host::{DriverName, WriteFailure};
use crate::xen::store::Store;

/// What becomes of a device that is not assignable any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Afterwards {
    /// The host's driver has it again.
    Rebind,
    /// Nothing has it. What the host had is forgotten.
    LeaveUnbound,
}

/// What was done, and is to be done again if a later step fails.
#[derive(Default)]
struct Done {
    quarantine_ended: bool,
    leaves_pciback: bool,
}

impl<S: Store + ?Sized> Assignable<'_, S> {
    /// Gives a device back to the host. Returns the driver that has it now.
    ///
    /// Also what a crash has left half done is brought to its end. pciback lets a device go that a guest uses, and
    /// only warns: what refuses that is [`AssignableError::Exported`].
    pub fn remove(
        &mut self,
        device: Sbdf,
        afterwards: Afterwards,
    ) -> Result<Option<DriverName>, AssignableError> {
        let (record, now) = self.check_removal(device)?;
        let mut done = Done::default();
        match self.removal_steps(device, &record, afterwards, &mut done) {
            Ok(()) => Ok(driver::current(self.kernel, device)?),
            Err(failure) => {
                let was_on = now.is_some_and(|now| now == *PCIBACK);
                let undo = if was_on { self.undo_removal(device, &done) } else { Vec::new() };
                Err(StepsFailed { failure, undo }.into())
            }
        }
    }

    /// Brings back what the host had, whatever a crash or a failed undo has left. The same steps as
    /// [`remove`](Self::remove); a step that fails is not taken back, and the rest is still done.
    pub fn revert(&mut self, device: Sbdf) -> Result<Option<DriverName>, AssignableError> {
        let (record, _) = self.check_removal(device)?;
        let mut failures = Vec::new();
        failures.extend(self.end_quarantine(device).err());
        failures.extend(driver::unbind_from(self.kernel, device, PCIBACK).err());
        failures.extend(driver::remove_slot(self.kernel, device).err());
        if failures.is_empty() {
            failures.extend(self.rebind(device, &record).err());
        }
        if failures.is_empty() {
            failures.extend(record::restore(self.store, device, None).err());
        }
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Ok(driver::current(self.kernel, device)?),
            Some(failure) => Err(StepsFailed { failure, undo: failures.collect() }.into()),
        }
    }

    fn check_removal(&mut self, device: Sbdf) -> Result<(Record, Option<DriverName>), AssignableError> {
        let record = record::read(self.store, None, device)?;
        if let Some(guest) = record.as_ref().and_then(|record| record.guest) {
            return Err(AssignableError::Exported { device, guest });
        }
        if !driver::is_present(self.kernel, device)? {
            return Err(AssignableError::NotFound(device));
        }
        let now = driver::current(self.kernel, device)?;
        let is_on = now.as_ref().is_some_and(|now| *now == *PCIBACK);
        let is_known = record.as_ref().is_some_and(|record| !record.is_empty());
        if !is_on && !is_known && !driver::has_slot(self.kernel, device)? {
            return Err(AssignableError::NotAssignable(device));
        }
        Ok((record.unwrap_or_default(), now))
    }

    fn removal_steps(
        &mut self,
        device: Sbdf,
        record: &Record,
        afterwards: Afterwards,
        done: &mut Done,
    ) -> Step {
        // The hypervisor does all of it or nothing.
        self.end_quarantine(device)?;
        done.quarantine_ended = true;
        done.leaves_pciback = true;
        driver::unbind_from(self.kernel, device, PCIBACK)?;
        driver::remove_slot(self.kernel, device)?;
        if afterwards == Afterwards::Rebind {
            self.rebind(device, record)?;
        }
        record::restore(self.store, device, None)
    }

    /// The host's driver has it, if it had one; one that has taken it by itself keeps it.
    fn rebind(&self, device: Sbdf, record: &Record) -> Step {
        match &record.driver {
            Some(original) => driver::bind(self.kernel, device, original.as_str()),
            None => Ok(()),
        }
    }

    /// Assignable as before. The record is still there: it goes last.
    fn undo_removal(&mut self, device: Sbdf, done: &Done) -> Vec<WriteFailure> {
        let mut failures = Vec::new();
        if done.leaves_pciback {
            let back = driver::current(self.kernel, device).and_then(|now| {
                if now.is_some_and(|now| now != *PCIBACK) {
                    driver::unbind(self.kernel, device)?;
                }
                driver::new_slot(self.kernel, device)?;
                driver::bind(self.kernel, device, PCIBACK)
            });
            failures.extend(back.err());
        }
        if done.quarantine_ended && failures.is_empty() {
            failures.extend(self.quarantine(device).err());
        }
        failures
    }
}
