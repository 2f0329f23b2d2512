//! The operations.

mod attach;
mod detach;
mod error;
mod recover;
mod release;
mod repair;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use attach::{Attachable, SavedDevice};
pub use detach::Guarding;
pub use error::HostError;
pub use recover::{Recovered, Recovery};
pub use release::Released;
pub use status::{HostState, HostStatus};

use super::book::locked;
use super::function;
use super::guards;
use super::journal::Records;
use super::kernel::Kernel;
use super::name::GuestName;
use super::operation::{Current, Operation};
use super::platform::{Core, HostPlatform, WRITE_DEADLINE};
use super::record::{Record, Tenure};
use super::siblings;
use super::store::Locked;
use super::writer::LateEnd;
use crate::errno::Errno;
use crate::lifecycle::{AddDeviceError, DeviceInfo, Lifecycle, TransitionError, What};
use crate::owner::{DomainId, Owner};
use crate::registry::CreateDomainError;
use crate::{Member, Sbdf};

/// Whether a device that cannot be reset may go to another owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetPolicy {
    /// No guest gets it, and after a guest had it nobody does.
    #[default]
    Required,
    /// It goes as it is.
    Allow,
}

/// How the manager works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a kernel write may take before its device is stuck.
    pub write_deadline: Duration,
    /// Whether resets are required.
    pub reset: ResetPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self { write_deadline: WRITE_DEADLINE, reset: ResetPolicy::default() }
    }
}

/// The host manager: one a machine.
///
/// Operations of different devices run at the same time on as many threads as call them; two that meet at one device
/// or one group are `Busy`, and one of them wins.
pub struct HostManager {
    core: Arc<Core>,
    lifecycle: Lifecycle<HostPlatform>,
    guests: Mutex<Guests>,
    /// Why nothing may be written.
    read_only: Option<HostError>,
    _locked: Option<Box<dyn Locked>>,
}

/// The engine numbers guests.
#[derive(Default)]
struct Guests {
    numbers: BTreeMap<GuestName, DomainId>,
    next: u32,
}

impl HostManager {
    /// What is known of a device that is not simply the host's.
    pub fn record(&self, device: Sbdf) -> Option<Record> {
        self.core.book.records().get(&device).cloned()
    }

    /// How many uses the engine counts, of all devices together. While nothing is under way: one for each device that a
    /// guest has, and one of a physical function or a bridge for each device that depends on it.
    pub fn uses(&self) -> u32 {
        self.lifecycle.devices().map(|device| device.status.uses).sum()
    }

    /// Kernel writes that had passed their deadline and have ended since, each once. Their devices can be repaired.
    pub fn late_ends(&self) -> Vec<LateEnd> {
        self.core.writer.late_ends()
    }

    /// Looks for devices that have come or gone. What is gone is forgotten, guests included; returns their addresses.
    pub fn rescan(&self) -> Result<Vec<Sbdf>, HostError> {
        let present = function::all(self.kernel()).map_err(HostError::unreadable("list the devices"))?;
        let known: Vec<Sbdf> = self.lifecycle.devices().map(|device| device.status.address).collect();
        let gone: Vec<Sbdf> =
            known.into_iter().filter(|device| present.binary_search(device).is_err()).collect();
        for device in &gone {
            self.forget(*device)?;
        }
        self.add_all(&present);
        Ok(gone)
    }

    /// A device vanished: nobody has it any more.
    fn forget(&self, device: Sbdf) -> Result<(), HostError> {
        match self.lifecycle.report_gone(device) {
            // It is gone already.
            Ok(()) | Err(TransitionError::NotFound(_)) => {}
            Err(error) => return Err(self.failed(error, &Operation::new(super::operation::Kind::Replay))),
        }
        // A transition that has it takes its record along.
        self.core.book.correct(|records| drop(records.remove(&device))).map_err(HostError::Journal)
    }

    /// Makes devices known to the engine: bridges before what is behind them, physical functions before virtual ones.
    fn add_all(&self, present: &[Sbdf]) -> Vec<AddDeviceError<()>> {
        let pf = |device: Sbdf| function::physical_function(self.kernel(), device).ok().flatten();
        let (virtuals, others): (Vec<_>, Vec<_>) = present
            .iter()
            .filter(|device| self.lifecycle.lock(**device).is_err())
            .map(|device| (*device, pf(*device)))
            .partition(|(_, pf)| pf.is_some());
        let mut refused = Vec::new();
        for (device, physical_function) in others.into_iter().chain(virtuals) {
            self.core.preload(device);
            let info = DeviceInfo { physical_function, ..DeviceInfo::default() };
            refused.extend(self.lifecycle.add(device, info, ()).err());
            self.core.forget_preloaded(device);
        }
        refused
    }

    fn kernel(&self) -> &dyn Kernel {
        self.core.writer.kernel()
    }

    /// Writes the records as the engine ends transitions, while it still has their devices.
    fn listen(core: &Arc<Core>, lifecycle: &Lifecycle<HostPlatform>) -> Result<(), HostError> {
        let core = Arc::downgrade(core);
        let told = lifecycle.subscribe(Arc::new(move |event| {
            if let (What::Transition { error, .. }, Some(operation), Some(core)) =
                (event.what, Current::get(), core.upgrade())
            {
                operation.ended(&core, event.device, error);
            }
        }));
        told.map(|_subscription| ()).map_err(HostError::from)
    }

    /// The engine carries out an operation on this thread.
    fn carry_out(
        &self,
        operation: Operation,
        act: impl FnOnce(&Lifecycle<HostPlatform>) -> Result<(), TransitionError>,
    ) -> Result<Arc<Operation>, HostError> {
        let operation = Arc::new(operation);
        let current = Current::set(&operation);
        let done = act(&self.lifecycle);
        drop(current);
        match done {
            Ok(()) => Ok(operation),
            Err(error) => Err(self.failed(error, &operation)),
        }
    }

    /// The engine's refusal in the manager's words.
    fn failed(&self, error: TransitionError, operation: &Operation) -> HostError {
        match error {
            TransitionError::NotFound(device) => HostError::NotFound(device),
            TransitionError::Duplicate(device) => HostError::Duplicate(device),
            TransitionError::NotEndpoint(device) => HostError::Bridge(device),
            TransitionError::Busy(device, busy) => HostError::Busy(device, busy),
            TransitionError::Taken { device, owner } if self.guest(owner).is_some() => {
                match self.guest(owner) {
                    Some(owner) => HostError::InUse { device, owner },
                    None => unreachable!("asked before"),
                }
            }
            error => HostError::Failed { error: Box::new(error), failures: operation.failures() },
        }
    }

    /// The guest of this owner.
    fn guest(&self, owner: Owner) -> Option<GuestName> {
        let wanted = owner.guest()?;
        let guests = locked(&self.guests);
        guests.numbers.iter().find(|(_, number)| **number == wanted).map(|(name, _)| name.clone())
    }

    /// The number of a guest that has or had devices.
    fn number(&self, guest: &GuestName) -> Option<DomainId> {
        locked(&self.guests).numbers.get(guest).copied()
    }

    /// The number of a guest, known to the engine from now on.
    fn number_or_new(&self, guest: &GuestName) -> Result<DomainId, HostError> {
        let mut guests = locked(&self.guests);
        let number = match guests.numbers.get(guest) {
            Some(number) => *number,
            None => {
                let number = DomainId::new(guests.next);
                guests.next = guests.next.wrapping_add(1);
                guests.numbers.insert(guest.clone(), number);
                number
            }
        };
        drop(guests);
        match self.lifecycle.create_domain(number) {
            Ok(_) | Err(CreateDomainError::Exists(_)) => Ok(number),
            Err(CreateDomainError::NoMemory(no_memory)) => Err(no_memory.into()),
        }
    }

    /// Nothing may be written while the journal is in doubt.
    fn check_writable(&self) -> Result<(), HostError> {
        self.read_only.clone().map_or(Ok(()), Err)
    }

    /// What every request must be: devices, each once, that are there and can be written to.
    fn check_request(&self, set: &[Sbdf]) -> Result<Arc<Records>, HostError> {
        self.check_writable()?;
        if set.is_empty() {
            return Err(HostError::NoDevices);
        }
        let mut sorted = set.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(HostError::Duplicate(twice[0]));
        }
        if set.iter().any(|device| self.lifecycle.lock(*device).is_err()) {
            self.rescan()?;
        }
        let records = self.core.book.records();
        for device in set {
            self.check_device(*device, records.get(device))?;
        }
        Ok(records)
    }

    fn check_device(&self, device: Sbdf, record: Option<&Record>) -> Result<(), HostError> {
        if let Some(what) = self.core.writer.stuck_in(device) {
            return Err(HostError::Stuck { device, what });
        }
        let unreadable = HostError::unreadable("look for the device");
        if !function::is_present(self.kernel(), device).map_err(&unreadable)? {
            if self.lifecycle.lock(device).is_ok() {
                self.forget(device)?;
            }
            return Err(HostError::NotFound(device));
        }
        if self.lifecycle.lock(device).is_err() {
            return Err(HostError::NotFound(device));
        }
        let Some(record) = record else { return Ok(()) };
        // An address is no device: what was there may have been replaced while nobody looked.
        let identity = function::identity(self.kernel(), device).map_err(unreadable)?;
        if identity != record.identity {
            self.forget(device)?;
            self.add_all(&[device]);
            return Err(HostError::NotFound(device));
        }
        match &record.broken {
            Some(reason) => Err(HostError::Broken { device, reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// What the host cannot do without stays.
    fn check_guards(&self, set: &[Sbdf]) -> Result<(), HostError> {
        let found = guards::find(self.kernel(), set);
        let found = found.map_err(HostError::unreadable("look for what the host needs"))?;
        if found.is_empty() { Ok(()) } else { Err(HostError::Guarded(found)) }
    }

    fn check_no_bridge(&self, device: Sbdf) -> Result<(), HostError> {
        match siblings::is_bridge(self.kernel(), device) {
            Ok(false) => Ok(()),
            Ok(true) => Err(HostError::Bridge(device)),
            Err(errno) => Err(HostError::Unreadable { what: "read its header", errno }),
        }
    }

    /// A physical function keeps its driver while it has virtual ones: some drivers take them along, guests or not.
    fn check_no_virtual_functions(&self, device: Sbdf) -> Result<(), HostError> {
        match function::virtual_functions(self.kernel(), device) {
            Ok(0) => Ok(()),
            Ok(count) => Err(HostError::HasVirtualFunctions { device, count }),
            Err(errno) => Err(HostError::Unreadable { what: "count its virtual functions", errno }),
        }
    }

    /// A device without a record that sits on a stub is somebody else's.
    fn check_not_foreign(&self, device: Sbdf) -> Result<(), HostError> {
        match function::driver(self.kernel(), device) {
            Ok(Some(driver)) if driver.is_stub() => Err(HostError::Foreign { device, driver }),
            Ok(_) => Ok(()),
            Err(errno) => Err(HostError::Unreadable { what: "read its driver", errno }),
        }
    }
}

/// The members of an engine's set.
fn members(set: &[Sbdf]) -> Vec<Member> {
    set.iter().copied().map(Member::new).collect()
}

/// Whose a record says a device is.
fn guest_of(record: Option<&Record>) -> Option<&GuestName> {
    match record {
        Some(Record { tenure: Tenure::Guest(guest), .. }) => Some(guest),
        _ => None,
    }
}

/// The kernel's boot, by its own name.
fn boot_id(kernel: &dyn Kernel) -> Result<String, Errno> {
    let place = super::kernel::Place::new(super::kernel::Root::Proc, "sys/kernel/random/boot_id")?;
    Ok(String::from_utf8_lossy(&kernel.read(&place, 256)?).trim().to_owned())
}

impl fmt::Debug for HostManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostManager").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}
