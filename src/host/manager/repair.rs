//! Broken devices, and resets by hand.

use super::{HostError, HostManager, guest_of, members};
use crate::Sbdf;
use crate::host::function;
use crate::host::operation::{Kind, Operation};
use crate::host::record::Tenure;
use crate::host::view::{View, Whose};
use crate::lifecycle::TransitionError;
use crate::platform::ResetKind;

impl HostManager {
    /// A broken device goes to quarantine, whole again: on its stub, bus mastering off, opened by nobody. From there it
    /// can be reattached.
    pub fn repair(&self, device: Sbdf) -> Result<(), HostError> {
        self.check_writable()?;
        if let Some(what) = self.core.writer.stuck_in(device) {
            return Err(HostError::Stuck { device, what });
        }
        let records = self.core.book.records();
        let Some(record) = records.get(&device) else { return Err(HostError::NotBroken(device)) };
        let is_broken = match self.lifecycle.lock(device) {
            Ok(known) => known.broken().is_some(),
            Err(_) => return Err(HostError::NotFound(device)),
        };
        if !is_broken && record.broken.is_none() {
            return Err(HostError::NotBroken(device));
        }
        let identity = function::identity(self.kernel(), device);
        if identity.map_err(HostError::unreadable("read its identity"))? != record.identity {
            self.forget(device)?;
            self.add_all(&[device]);
            return Err(HostError::NotFound(device));
        }
        let open = record.group.filter(|group| crate::host::driver::is_open(&self.core.writer, *group));
        if let Some(group) = open {
            return Err(HostError::GroupOpen(group));
        }
        if !is_broken {
            // Broken in an earlier life: the engine of this one knows nothing of it.
            self.carry_out(Operation::new(Kind::Move), |engine| engine.quarantine(&members(&[device])))?;
            return Ok(());
        }
        self.carry_out(Operation::new(Kind::Repair), |engine| {
            engine.repair(device)?;
            // A repair binds nothing; from now on the stub is what quarantine sees.
            let view = View::new(self.core.clone(), Whose::Stub);
            let mut known = engine.lock(device).map_err(|_| TransitionError::NotFound(device))?;
            // Where that is refused the device is on its stub all the same, which the next transition sees.
            let _refused = known.attach(Box::new(view));
            Ok(())
        })?;
        Ok(())
    }

    /// Resets a device that is in quarantine.
    pub fn reset(&self, device: Sbdf) -> Result<(), HostError> {
        let records = self.check_request(&[device])?;
        let record = records.get(&device);
        if let Some(owner) = guest_of(record) {
            return Err(HostError::InUse { device, owner: owner.clone() });
        }
        let Some(record) = record.filter(|record| record.tenure == Tenure::Quarantine) else {
            return Err(HostError::NotDetached(device));
        };
        let open = record.group.filter(|group| crate::host::driver::is_open(&self.core.writer, *group));
        if let Some(group) = open {
            return Err(HostError::GroupOpen(group));
        }
        self.carry_out(Operation::new(Kind::Move), |engine| engine.reset(device, ResetKind::Flr))?;
        Ok(())
    }
}
