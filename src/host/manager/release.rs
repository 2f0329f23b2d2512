//! Back from a guest, and back to the host.
//!
//! Both are the engine's `deassign`. A release ends in quarantine, whatever comes then: that a host driver fails must
//! not give the device back to a guest that has ended. Going back to the host waits for the whole group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{HostError, HostManager, guest_of, members};
use crate::Sbdf;
use crate::host::name::GuestName;
use crate::host::operation::{Kind, Operation, WriteFailure};
use crate::host::record::{Record, Tenure};
use crate::owner::Owner;
use crate::platform::GroupId;

/// What became of devices that a guest, or an administrator, gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// They are with the host's drivers.
    pub returned: Vec<Sbdf>,
    /// They wait in quarantine until their group is out of all guests and nobody has it open.
    pub deferred: Vec<Sbdf>,
    /// They stay in quarantine: somebody detached them by hand.
    pub detached: Vec<Sbdf>,
    /// They could not be given back, and why; they are in quarantine and will be tried again.
    pub failed: Vec<(Sbdf, HostError)>,
    /// File operations that failed and were not needed for this: a reset that stays due, for example.
    pub failures: Vec<WriteFailure>,
}

/// How long the first pause between two attempts is, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

impl HostManager {
    /// Takes devices back from a guest: all of them, or none. Those that an attach took from the host go back there,
    /// when their group can, and with them what waits in it; others stay detached.
    pub fn release(&self, set: &[Sbdf], guest: &GuestName) -> Result<Released, HostError> {
        let records = self.check_request(set)?;
        for device in set {
            if guest_of(records.get(device)) != Some(guest) {
                return Err(HostError::NotOwner { device: *device, guest: guest.clone() });
            }
        }
        let number = self.number(guest).map(Owner::Guest);
        let Some(owner) = number else {
            return Err(HostError::NotOwner { device: set[0], guest: guest.clone() });
        };
        let done = self.carry_out(Operation::new(Kind::Move), |engine| engine.deassign(&members(set), owner));
        let operation = done.map_err(|error| not_owner(error, guest))?;
        let (managed, detached): (Vec<_>, Vec<_>) =
            set.iter().partition(|device| records.get(device).is_some_and(|record| record.managed));
        let mut released = self.give_back(&managed);
        released.detached.extend(detached);
        released.failures.splice(0..0, operation.failures());
        Ok(released)
    }

    /// Gives devices back to the host, whoever detached them. Those whose group cannot go yet wait for it.
    pub fn reattach(&self, set: &[Sbdf]) -> Result<Released, HostError> {
        let records = self.check_request(set)?;
        let mut ours = Vec::new();
        let mut with_host = Vec::new();
        for device in set {
            match records.get(device) {
                None => {
                    self.check_not_foreign(*device)?;
                    with_host.push(*device);
                }
                record => match guest_of(record) {
                    Some(owner) => return Err(HostError::InUse { device: *device, owner: owner.clone() }),
                    None => ours.push(*device),
                },
            }
        }
        self.mark(&ours)?;
        let mut released = self.give_back(&ours);
        released.returned.extend(with_host);
        Ok(released)
    }

    /// Tries again what waits for its group, and to write what the journal could not take. For the embedder to call now
    /// and then; a release tries its own groups.
    pub fn retry_deferred(&self) -> Result<Released, HostError> {
        self.check_writable()?;
        self.core.book.flush().map_err(HostError::Journal)?;
        // What a device that is gone has left; groups are given back below, where it is reported what becomes of them.
        self.lifecycle.run_deferred();
        let records = self.core.book.records();
        let waiting: Vec<Sbdf> =
            records.values().filter(|record| waits(record)).map(|record| record.address).collect();
        Ok(self.give_back(&waiting))
    }

    /// Tries again until nothing waits or the time is up: then they stay deferred, which the result says.
    pub fn wait_for_deferred(&self, patience: Duration) -> Result<Released, HostError> {
        let end = Instant::now() + patience;
        let (mut pause, longest) = PAUSES;
        loop {
            let released = self.retry_deferred()?;
            let left = end.saturating_duration_since(Instant::now());
            if released.deferred.is_empty() && released.failed.is_empty() || left.is_zero() {
                return Ok(released);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(longest);
        }
    }

    /// They wait from now on to go back to the host, also over a restart.
    fn mark(&self, set: &[Sbdf]) -> Result<(), HostError> {
        let marked = self.core.book.change(|records| {
            for device in set {
                if let Some(record) = records.get_mut(device)
                    && record.tenure == Tenure::Quarantine
                {
                    record.giving_back = true;
                }
            }
        });
        marked.map_err(HostError::Journal)
    }

    /// Group by group: each is one transition.
    fn give_back(&self, set: &[Sbdf]) -> Released {
        let records = self.core.book.records();
        let mut groups: BTreeMap<(Option<GroupId>, Option<Sbdf>), Vec<Sbdf>> = BTreeMap::new();
        for device in set {
            if let Some(record) = records.get(device) {
                // What has no group goes for itself.
                let alone = record.group.is_none().then_some(*device);
                groups.entry((record.group, alone)).or_default().push(*device);
            }
        }
        let mut released = Released::default();
        for ((group, _), mut set) in groups {
            if group.is_some() {
                // All that waits in the group: this process may not have marked all of it.
                set = records
                    .values()
                    .filter(|record| record.group == group && waits(record))
                    .map(|it| it.address)
                    .collect();
            }
            self.give_group_back(&set, &mut released);
        }
        released
    }

    fn give_group_back(&self, set: &[Sbdf], released: &mut Released) {
        if set.is_empty() {
            return;
        }
        let operation = std::sync::Arc::new(Operation::new(Kind::GiveBack));
        let current = crate::host::operation::Current::set(&operation);
        let done = self.lifecycle.deassign(&members(set), Owner::Quarantine);
        drop(current);
        let records = self.core.book.records();
        for device in set {
            match (records.get(device), &done, operation.refusal(*device)) {
                (None, ..) => released.returned.push(*device),
                (Some(_), Err(error), _) => {
                    released.failed.push((*device, self.failed(error.clone(), &operation)));
                }
                (Some(_), Ok(()), Some(error)) => {
                    released.failed.push((*device, self.failed(error, &operation)));
                }
                (Some(_), Ok(()), None) => released.deferred.push(*device),
            }
        }
        released.failures.extend(operation.failures());
    }
}

/// Whether it waits for its group to go back.
fn waits(record: &Record) -> bool {
    record.giving_back && record.tenure == Tenure::Quarantine && record.broken.is_none()
}

/// The guest lost it in the meantime.
fn not_owner(error: HostError, guest: &GuestName) -> HostError {
    match &error {
        HostError::Failed { error: inner, .. } => match **inner {
            crate::lifecycle::TransitionError::NotOwned { device, .. } => {
                HostError::NotOwner { device, guest: guest.clone() }
            }
            _ => error,
        },
        _ => error,
    }
}
