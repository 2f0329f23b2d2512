//! Opening: after a start, a restart or a crash.
//!
//! One rule: the owner in the journal is the truth, and sysfs is made to agree with it. Everything it does looks first
//! and can be done again, so being killed meanwhile is no case of its own. What the journal and the machine do not
//! agree on without an intent of ours, somebody else did: that is reported, and not undone.

use std::sync::{Arc, Mutex};

use super::{Guests, HostError, HostManager, Options, boot_id, members};
use crate::Sbdf;
use crate::host::book::Book;
use crate::host::driver;
use crate::host::function;
use crate::host::identity;
use crate::host::journal::{self, JournalDamage, Loaded, Records};
use crate::host::kernel::Kernel;
use crate::host::operation::{Kind, Operation, WriteFailure};
use crate::host::platform::{Core, HostPlatform};
use crate::host::record::{Record, Tenure};
use crate::host::store::Store;
use crate::host::writer::Writer;
use crate::lifecycle::{Lifecycle, TransitionError};

/// What became of a device that the journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// It is as the journal says.
    Kept,
    /// An operation that had not ended was undone.
    RolledBack,
    /// An operation that had not ended could not be undone yet: somebody has its group open. It is in quarantine and
    /// waits.
    Deferred,
    /// Somebody has taken it from its stub, or is about to. It is with nobody else, and its record is kept.
    Unbound,
    /// It is away; nothing is known of it any more.
    Vanished,
    /// Another device is at its address, and was not touched.
    Replaced,
    /// The machine was booted since: the host has it.
    Rebooted,
    /// It is broken.
    Broken(String),
}

/// What opening the manager found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// What is wrong with the journal, if something is.
    pub damage: Option<JournalDamage>,
    /// What became of each device that the journal knows.
    pub devices: Vec<(Sbdf, Recovered)>,
    /// Devices on a stub that the journal does not know: adopt them, or leave them to whoever put them there.
    pub foreign: Vec<Sbdf>,
    /// Functions that the engine does not take, and why.
    pub refused: Vec<(Sbdf, TransitionError)>,
    /// The journal could not be written; the next operation tries again.
    pub unsaved: Option<crate::Errno>,
}

impl HostManager {
    /// Opens the one manager of this machine, and brings what an earlier one has left into a safe state.
    pub fn open(
        kernel: Arc<dyn Kernel>,
        store: Arc<dyn Store>,
        options: Options,
    ) -> Result<(Self, Recovery), HostError> {
        let boot = boot_id(&*kernel).map_err(HostError::unreadable("read the boot id"))?;
        let locked = store.lock(&format!("pid {} of boot {boot}", std::process::id()))?;
        let loaded = journal::load(&*store);
        let read_only = loaded.damage.clone().filter(JournalDamage::is_read_only);
        let mut recovery = Recovery { damage: loaded.damage.clone(), ..Recovery::default() };
        let writer = Writer::new(kernel, options.write_deadline);
        let records = recover(&writer, &boot, &loaded, &mut recovery);
        // What is on disk stays the truth until this is written; then this is.
        let book = Book::new(store, boot, loaded.journal(), loaded.records.clone());
        if read_only.is_none() {
            let replaced =
                if loaded.records == records { Ok(()) } else { book.correct(|old| *old = records) };
            recovery.unsaved = replaced.err();
        }
        let core = Arc::new(Core::new(writer, book, options.reset));
        let lifecycle = Lifecycle::new(HostPlatform::new(core.clone()))?;
        Self::listen(&core, &lifecycle)?;
        let guests = Mutex::new(Guests::default());
        let read_only = read_only.map(HostError::ReadOnly);
        let manager = Self { core, lifecycle, guests, read_only, _locked: Some(locked) };
        manager.populate(&mut recovery)?;
        Ok((manager, recovery))
    }

    /// Looks, also while another manager is at work: takes no lock, recovers and writes nothing. What it shows is what
    /// the journal said when this was called.
    pub fn observe(kernel: Arc<dyn Kernel>, store: Arc<dyn Store>) -> Result<(Self, Recovery), HostError> {
        let boot = boot_id(&*kernel).map_err(HostError::unreadable("read the boot id"))?;
        let loaded = journal::load(&*store);
        let records = if loaded.boot_id == boot { loaded.records.clone() } else { Records::new() };
        let recovery = Recovery { damage: loaded.damage.clone(), ..Recovery::default() };
        let Options { write_deadline, reset } = Options::default();
        let book = Book::new(store, boot, loaded.journal(), records);
        let core = Arc::new(Core::new(Writer::new(kernel, write_deadline), book, reset));
        let lifecycle = Lifecycle::new(HostPlatform::new(core.clone()))?;
        let (guests, read_only) = (Mutex::new(Guests::default()), Some(HostError::Observer));
        Ok((Self { core, lifecycle, guests, read_only, _locked: None }, recovery))
    }

    /// Tells the engine what is there, and with whom it is. Nothing is written to the kernel.
    fn populate(&self, recovery: &mut Recovery) -> Result<(), HostError> {
        let present = function::all(self.kernel()).map_err(HostError::unreadable("list the devices"))?;
        for refused in self.add_all(&present) {
            let at = error_address(&refused.reason);
            recovery.refused.push((at, refused.reason));
        }
        let records = self.core.book.records();
        for record in records.values().filter(|record| record.broken.is_none()) {
            let device = [record.address];
            let replayed = match &record.tenure {
                Tenure::Host => continue,
                Tenure::Quarantine => self
                    .carry_out(Operation::new(Kind::Replay), |engine| engine.quarantine(&members(&device))),
                Tenure::Guest(guest) => {
                    let number = self.number_or_new(guest)?;
                    let operation = Operation::new(Kind::Replay).with_guest(guest);
                    self.carry_out(operation, |engine| {
                        // Where it has come from is where it goes, by hand or not.
                        if !record.managed {
                            engine.quarantine(&members(&device))?;
                        }
                        engine.assign(&members(&device), number)
                    })
                }
            };
            if let Err(error) = replayed {
                let reason = format!("the journal and the machine do not agree: {error}");
                self.mark_broken(record.address, &reason, recovery);
            }
        }
        for device in present {
            let driver = function::driver(self.kernel(), device).ok().flatten();
            if driver.is_some_and(|driver| driver.is_stub()) && !records.contains_key(&device) {
                recovery.foreign.push(device);
            }
        }
        Ok(())
    }

    fn mark_broken(&self, device: Sbdf, reason: &str, recovery: &mut Recovery) {
        let saved = self.core.book.correct(|records| {
            if let Some(record) = records.get_mut(&device) {
                record.broken = Some(reason.to_owned());
            }
        });
        recovery.unsaved = recovery.unsaved.or(saved.err());
        recovery.devices.retain(|(at, _)| *at != device);
        recovery.devices.push((device, Recovered::Broken(reason.to_owned())));
    }
}

/// The device that an add was about.
fn error_address(error: &TransitionError) -> Sbdf {
    match error {
        TransitionError::NoPf { vf, .. } => *vf,
        TransitionError::BridgeTooLate { bridge, .. } => *bridge,
        TransitionError::Topology(device) | TransitionError::Busy(device, _) => *device,
        TransitionError::Failed(failure) => failure.device,
        _ => Sbdf::default(),
    }
}

/// Makes the machine agree with each record, or the record with what cannot be changed.
fn recover(writer: &Writer, boot: &str, loaded: &Loaded, recovery: &mut Recovery) -> Records {
    let mut records = Records::new();
    for record in loaded.records.values() {
        let mut record = record.clone();
        let recovered = if loaded.boot_id == boot {
            recover_one(writer, &mut record)
        } else {
            // The kernel has started anew, and with it everything that it knew.
            Recovered::Rebooted
        };
        let is_ours = match &recovered {
            Recovered::Kept | Recovered::Unbound | Recovered::Deferred | Recovered::Broken(_) => true,
            Recovered::RolledBack => record.tenure != Tenure::Host,
            Recovered::Vanished | Recovered::Replaced | Recovered::Rebooted => false,
        };
        recovery.devices.push((record.address, recovered));
        if is_ours {
            records.insert(record.address, record);
        }
    }
    records
}

fn recover_one(writer: &Writer, record: &mut Record) -> Recovered {
    match function::identity(writer.kernel(), record.address) {
        Ok(identity) if identity == record.identity => {}
        Ok(_) => return Recovered::Replaced,
        Err(errno) if function::is_absent(errno) => return Recovered::Vanished,
        Err(errno) => return broken(record, format!("its identity cannot be read: {errno}")),
    }
    if let Some(reason) = record.broken.clone() {
        // Also where a repair was cut off: what it has done is done again by the next one.
        return broken(record, reason);
    }
    match make_true(writer, record) {
        Ok(recovered) => {
            record.intent = false;
            recovered
        }
        Err(failure) => broken(record, format!("recovery: {}: {}", failure.what, failure.errno)),
    }
}

fn broken(record: &mut Record, reason: String) -> Recovered {
    record.intent = false;
    record.broken = Some(reason.clone());
    Recovered::Broken(reason)
}

fn make_true(writer: &Writer, record: &mut Record) -> Result<Recovered, WriteFailure> {
    let device = record.address;
    if !record.intent {
        // Nothing of ours was under way: what is otherwise, somebody else did.
        return match driver::current(writer, device)? {
            Some(driver) if driver == record.stub => Ok(Recovered::Kept),
            None => Ok(Recovered::Unbound),
            Some(driver) => {
                let what = format!("somebody has bound it to {driver} behind our back");
                Err(WriteFailure { device, what, errno: crate::Errno::EBUSY })
            }
        };
    }
    // Whoever has it by the journal has its network identity too.
    if let Some(network) = record.network {
        let is_guests = matches!(record.tenure, Tenure::Guest(_));
        identity::apply(writer, device, if is_guests { network.wanted } else { network.saved })?;
        record.network = record.network.filter(|_| is_guests);
    }
    if record.tenure != Tenure::Host {
        driver::put_on_stub(writer, device, &record.stub)?;
        return Ok(Recovered::RolledBack);
    }
    match driver::give_to_host(writer, device, record.group, &record.original) {
        Ok(()) => Ok(Recovered::RolledBack),
        // Nobody was to have it yet, but somebody has: it goes back when they are done.
        Err(WriteFailure { errno: crate::Errno::EBUSY, .. })
            if record.group.is_some_and(|group| driver::is_open(writer, group)) =>
        {
            (record.tenure, record.giving_back, record.managed) = (Tenure::Quarantine, true, true);
            Ok(Recovered::Deferred)
        }
        Err(failure) => Err(failure),
    }
}
