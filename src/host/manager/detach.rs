//! From the host to quarantine: detached by hand, or adopted from somebody else's stub.

use super::{HostError, HostManager, guest_of, members};
use crate::Sbdf;
use crate::host::driver_type::{DriverChoice, DriverType};
use crate::host::function;
use crate::host::operation::{Kind, Operation, Wish};
use crate::host::record::Tenure;

/// Whether what the host cannot do without is guarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guarding {
    /// It is refused.
    #[default]
    On,
    /// The caller knows better (`--force`).
    Off,
}

impl HostManager {
    /// Takes devices from the host's drivers: all of them, or none. They stay detached until they are reattached,
    /// whatever guests have them meanwhile. One that is detached already stays so.
    pub fn detach(&self, set: &[Sbdf], driver: &DriverType, guard: Guarding) -> Result<(), HostError> {
        driver.check()?;
        let records = self.check_request(set)?;
        let mut operation = Operation::new(Kind::Move);
        for device in set {
            self.check_no_bridge(*device)?;
            match records.get(device) {
                None => {
                    self.check_not_foreign(*device)?;
                    self.check_no_virtual_functions(*device)?;
                    let wish = Wish { driver: DriverChoice::Configured(driver.clone()), managed: false };
                    operation = operation.with_wish(*device, wish);
                }
                record => {
                    if let Some(owner) = guest_of(record) {
                        return Err(HostError::InUse { device: *device, owner: owner.clone() });
                    }
                }
            }
        }
        if guard == Guarding::On {
            let hosts: Vec<Sbdf> =
                set.iter().copied().filter(|device| !records.contains_key(device)).collect();
            self.check_guards(&hosts)?;
        }
        self.carry_out(operation, |engine| engine.quarantine(&members(set)))?;
        self.keep_detached(set)
    }

    /// Takes over devices that somebody else has put on a stub. What they had before is unknown: reattached, they get
    /// what the kernel takes for them.
    pub fn adopt(&self, set: &[Sbdf]) -> Result<(), HostError> {
        let records = self.check_request(set)?;
        for device in set {
            self.check_no_bridge(*device)?;
            let driver = function::driver(self.kernel(), *device);
            let driver = driver.map_err(HostError::unreadable("read its driver"))?;
            if records.contains_key(device) || !driver.is_some_and(|driver| driver.is_stub()) {
                return Err(HostError::NotForeign(*device));
            }
            let group =
                function::group(self.kernel(), *device).map_err(HostError::unreadable("read its group"))?;
            if let Some(group) = group
                && crate::host::driver::is_open(&self.core.writer, group)
            {
                return Err(HostError::GroupOpen(group));
            }
        }
        self.carry_out(Operation::new(Kind::Adopt), |engine| engine.quarantine(&members(set)))?;
        Ok(())
    }

    /// What was to go back to the host, and is detached by hand now, stays.
    fn keep_detached(&self, set: &[Sbdf]) -> Result<(), HostError> {
        let kept = self.core.book.change(|records| {
            for device in set {
                if let Some(record) = records.get_mut(device)
                    && record.tenure == Tenure::Quarantine
                    && !record.intent
                {
                    (record.managed, record.giving_back) = (false, false);
                }
            }
        });
        kept.map_err(HostError::Journal)
    }
}
