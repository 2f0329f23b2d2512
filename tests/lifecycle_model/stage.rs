//! The life cycle on its stage: the operations are carried out, and what can be seen is collected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pcidevs::device::{ConfigSpace, find_capability};
use pcidevs::lifecycle::{
    Added, DeviceHandle, DeviceHold, DeviceInfo, Guest, Lifecycle, RemovalTicket, TransitionError, What,
};
use pcidevs::platform::{Fault, HookError, Platform, Simulated, Switch, Width};
use pcidevs::{Busy, CreateDomainError, DomainId, Errno, Holder, Member, Sbdf, TicketError};

use super::attachments::Ledger;
use super::machine::{self, Function};
use super::operations::{At, Callee, How, Operation, Set, Start, Trouble};

pub(crate) type Machine = Simulated<Data>;

/// The error of injected faults.
pub(crate) const INJECTED: HookError = HookError::new(Errno::EIO, "the script says so");

/// The embedder's data: counts itself, so that it shows when a destructor has run.
pub(crate) struct Data(Arc<AtomicUsize>);

impl Data {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(alive))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// A device was known already.
    Again,
    /// A removal waits for uses.
    Pending,
    Flag(bool),
    Count(usize),
    Refused(Reason),
}

/// Why not: the kind of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    NotFound,
    NoPf,
    Duplicate,
    Busy,
    Taken,
    NotOwned,
    Hidden,
    Broken,
    NotBroken,
    DmaNotBlocked,
    NotEndpoint,
    NotBridge,
    NoDomain,
    DomainExists,
    Dying,
    NotReleased,
    Refused,
    MsixMasked,
    NoMsix,
    VectorsInUse,
    GroupNotViable,
    GroupBusy,
    Inseparable,
    OthersInReset,
    BridgeTooLate,
    SlotTaken,
    NoFreeSlot,
    NotAsked,
    Topology,
    Gone,
    TicketGone,
    TicketOver,
    Failed,
    /// No operation of these tests can end so.
    Impossible,
}

fn reason(error: &TransitionError) -> Reason {
    match error {
        TransitionError::NotFound(_) => Reason::NotFound,
        TransitionError::NoPf { .. } => Reason::NoPf,
        TransitionError::Duplicate(_) => Reason::Duplicate,
        TransitionError::Busy(..) => Reason::Busy,
        TransitionError::Taken { .. } => Reason::Taken,
        TransitionError::NotOwned { .. } => Reason::NotOwned,
        TransitionError::Hidden(_) => Reason::Hidden,
        TransitionError::Broken { .. } => Reason::Broken,
        TransitionError::NotBroken(_) => Reason::NotBroken,
        TransitionError::DmaNotBlocked(_) => Reason::DmaNotBlocked,
        TransitionError::NotEndpoint(_) => Reason::NotEndpoint,
        TransitionError::NotBridge(_) => Reason::NotBridge,
        TransitionError::NoDomain(_) => Reason::NoDomain,
        TransitionError::Dying(_) => Reason::Dying,
        TransitionError::NotReleased { .. } => Reason::NotReleased,
        TransitionError::Refused(..) => Reason::Refused,
        TransitionError::MsixMasked(_) => Reason::MsixMasked,
        TransitionError::NoMsix(_) => Reason::NoMsix,
        TransitionError::VectorsInUse(_) => Reason::VectorsInUse,
        TransitionError::GroupNotViable { .. } => Reason::GroupNotViable,
        TransitionError::GroupBusy(_) => Reason::GroupBusy,
        TransitionError::Inseparable { .. } => Reason::Inseparable,
        TransitionError::OthersInReset { .. } => Reason::OthersInReset,
        TransitionError::BridgeTooLate { .. } => Reason::BridgeTooLate,
        TransitionError::SlotTaken(_) => Reason::SlotTaken,
        TransitionError::NoFreeSlot => Reason::NoFreeSlot,
        TransitionError::NotAsked(_) => Reason::NotAsked,
        TransitionError::Topology(_) => Reason::Topology,
        TransitionError::Gone(_) => Reason::Gone,
        TransitionError::Ticket(TicketError::Gone) => Reason::TicketGone,
        TransitionError::Ticket(TicketError::Over) => Reason::TicketOver,
        TransitionError::Failed(_) => Reason::Failed,
        _ => Reason::Impossible,
    }
}

/// A use that the embedder has.
enum Use {
    Handle(DeviceHandle<Machine>),
    Hold(DeviceHold<Machine>),
}

/// What was reported of devices that are gone since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Whose leavings were cleared up, or not yet: the last word counts.
    pub(crate) cleared: BTreeMap<Sbdf, bool>,
    /// The last sequence number of each address.
    sequences: BTreeMap<Sbdf, u64>,
    /// Events that were out of order.
    pub(crate) wrong: Vec<String>,
}

/// The machine, its life cycle, and everything an embedder holds of it.
pub(crate) struct Stage {
    pub(crate) lifecycle: Lifecycle<Machine>,
    uses: Vec<Use>,
    tickets: Vec<RemovalTicket<Machine>>,
    /// Handles of guests; those of guests that are gone come first.
    pub(crate) guests: Vec<Guest<Machine>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) reports: Arc<Mutex<Reports>>,
    pub(crate) alive: Arc<AtomicUsize>,
    /// Where each function has MSI and MSI-X.
    capabilities: BTreeMap<Sbdf, (Option<u16>, Option<u16>)>,
    /// Who was said to be in the way by the last operation.
    pub(crate) busy: Option<(Sbdf, Busy)>,
}

impl Stage {
    pub(crate) fn new(start: Start) -> Self {
        let machine = machine::build();
        let capabilities =
            machine::FUNCTIONS.iter().map(|function| (function.at(), capabilities(&machine, function.at())));
        let capabilities = capabilities.collect();
        let ledger = Arc::new(Ledger::default());
        let bind = Arc::clone(&ledger);
        machine.on_bind(move |_, owner| Ok(bind.view(owner)));
        let lifecycle = Lifecycle::new(machine).expect("memory");
        let reports = Arc::new(Mutex::new(Reports::default()));
        let listener = Arc::clone(&reports);
        let listen = move |event: &pcidevs::lifecycle::Event<'_>| {
            let mut reports = locked(&listener);
            let last = reports.sequences.insert(event.device, event.sequence).unwrap_or(0);
            if event.sequence != 0 && event.sequence != last + 1 {
                reports.wrong.push(format!("event {event} after number {last}"));
            }
            match event.what {
                What::Cleared => reports.cleared.insert(event.device, true),
                What::NotCleared(_) => reports.cleared.insert(event.device, false),
                _ => None,
            };
        };
        lifecycle.subscribe(Arc::new(listen)).expect("memory");
        let mut stage = Self {
            lifecycle,
            uses: Vec::new(),
            tickets: Vec::new(),
            guests: Vec::new(),
            ledger,
            reports,
            alive: Arc::default(),
            busy: None,
            capabilities,
        };
        stage.begin(start);
        stage
    }

    fn begin(&mut self, start: Start) {
        for guest in &super::operations::GUESTS[..2] {
            self.perform(&Operation::CreateDomain(*guest));
        }
        match start {
            Start::Empty => {}
            Start::Booted => {
                for function in machine::FUNCTIONS {
                    self.perform(&Operation::Add { at: At(function.at()), extended: false });
                }
            }
            Start::Scanned => {
                self.perform(&Operation::Scan);
            }
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.lifecycle.platform()
    }

    /// Lets calls of the next operation go wrong.
    pub(crate) fn arm(&self, troubles: &[Trouble]) {
        self.machine().count(true);
        for Trouble { call, of, how } in troubles {
            match (of, how) {
                (Callee::Hook, How::Error) => {
                    self.machine().fail_call(u64::from(*call), Fault::Error(INJECTED))
                }
                (Callee::Hook, How::Panic) => self.machine().fail_call(u64::from(*call), Fault::Panic),
                (Callee::Attachment, how) => self.ledger.fail_call(usize::from(*call), *how),
            }
        }
    }

    /// How many calls of hooks and of attachments went wrong since [`arm`](Self::arm).
    pub(crate) fn disarm(&self, injected_before: u64) -> (u64, usize) {
        self.machine().clear_faults();
        (self.machine().injected() - injected_before, self.ledger.disarm())
    }

    /// Carries an operation out.
    pub(crate) fn perform(&mut self, operation: &Operation) -> Outcome {
        self.busy = None;
        let result = self.try_perform(operation);
        result.unwrap_or_else(|error| {
            let reason = reason(&error);
            if let TransitionError::Busy(at, busy) = error {
                self.busy = Some((at, busy));
            }
            Outcome::Refused(reason)
        })
    }

    fn try_perform(&mut self, operation: &Operation) -> Result<Outcome, TransitionError> {
        let lifecycle = self.lifecycle.clone();
        let members = |set: &Set| -> Vec<Member> {
            let member = |(device, wanted): &(Sbdf, Option<Sbdf>)| match wanted {
                Some(wanted) => Member::at(*device, *wanted),
                None => Member::new(*device),
            };
            set.0.iter().map(member).collect()
        };
        match operation {
            Operation::Add { at, extended } => return self.add(at.0, *extended),
            Operation::Assign { set, guest } => lifecycle.assign(&members(set), *guest)?,
            Operation::Deassign { set, from } => lifecycle.deassign(&members(set), *from)?,
            Operation::Remove(at) => lifecycle.remove_device(at.0)?,
            Operation::RemoveSlot(at) => lifecycle.remove_slot(at.0)?,
            Operation::RemoveSubtree(at) => lifecycle.remove_subtree(at.0)?,
            Operation::BeginRemoval(at) => self.tickets.push(lifecycle.begin_removal(at.0)?),
            Operation::TryComplete(ticket) => return self.try_complete(*ticket),
            Operation::Cancel(ticket) => {
                if let Some(place) = nth(*ticket, self.tickets.len()) {
                    self.tickets.remove(place).cancel()?;
                }
            }
            Operation::ReportGone { at, pulled } => {
                if *pulled {
                    self.machine().unplug(at.0);
                }
                lifecycle.report_gone(at.0)?;
            }
            Operation::RunDeferred => return Ok(Outcome::Count(lifecycle.run_deferred())),
            Operation::Scan => {
                let found = lifecycle.scan(Sbdf::default().segment(), |_| Data::new(&self.alive))?;
                return Ok(Outcome::Count(found));
            }
            Operation::SetHost => lifecycle.set_host()?,
            Operation::Hide(at, visibility) => lifecycle.hide(at.0, *visibility)?,
            Operation::Quarantine(set) => lifecycle.quarantine(&members(set))?,
            Operation::AssignGroup { at, guest } => lifecycle.assign_group(at.0, *guest)?,
            Operation::CanAssign { at, guest } => lifecycle.can_assign(at.0, *guest)?,
            Operation::ReleaseDomain(guest) => lifecycle.release_domain(*guest)?,
            Operation::CreateDomain(guest) => return Ok(self.create_domain(*guest)),
            Operation::AcknowledgeGone { guest, at } => {
                let guest = lifecycle.domain(*guest).ok_or(TransitionError::NoDomain(*guest))?;
                let freed = guest.acknowledge_gone(at.0).map_err(|_| TransitionError::NotFound(at.0))?;
                return Ok(Outcome::Flag(freed));
            }
            Operation::Reset(at, kind) => lifecycle.reset(at.0, *kind)?,
            Operation::ReportReset(at, kind) => lifecycle.report_reset(at.0, *kind)?,
            Operation::Repair(at) => lifecycle.repair(at.0)?,
            Operation::Isolate(at) => self.isolate(at.0),
            Operation::ReportFault(at) => {
                let count = lifecycle.report_fault(at.0);
                return Ok(count.map_or(Outcome::Done, |count| Outcome::Count(count as usize)));
            }
            Operation::ReportFlushTimeout(at) => lifecycle.report_flush_timeout(at.0)?,
            Operation::MsiPrepare(at) => lifecycle.msi_prepare(at.0)?,
            Operation::MsiRelease(at) => lifecycle.msi_release(at.0)?,
            Operation::RequestUnplug(at) => lifecycle.request_unplug(at.0)?,
            Operation::UnplugAnswered(at, guest, answer) => {
                lifecycle.unplug_answered(at.0, *guest, *answer)?
            }
            Operation::Get(at) => {
                let handle = lifecycle.get(at.0).ok_or(TransitionError::NotFound(at.0))?;
                self.uses.push(Use::Handle(handle));
            }
            Operation::Hold(at) => {
                let hold = lifecycle.hold(at.0, HOLDER)?.ok_or(TransitionError::NotFound(at.0))?;
                self.uses.push(Use::Hold(hold));
            }
            Operation::Drop(which) => {
                if let Some(place) = nth(*which, self.uses.len()) {
                    match self.uses.remove(place) {
                        Use::Handle(handle) => handle.put(),
                        Use::Hold(hold) => hold.put(),
                    }
                }
            }
            Operation::Attach(at, kind) => {
                let mut device = lifecycle.lock(at.0).map_err(|_| TransitionError::NotFound(at.0))?;
                let attached = device.attach(self.ledger.attachment(*kind));
                drop(device);
                if let Err(refused) = attached {
                    self.ledger.forgive(refused.attachment);
                    return Ok(Outcome::Refused(match refused.reason {
                        pcidevs::lifecycle::AttachRefused::Broken => Reason::Broken,
                        _ => Reason::Impossible,
                    }));
                }
            }
            Operation::Detach(at, kind) => {
                let mut device = lifecycle.lock(at.0).map_err(|_| TransitionError::NotFound(at.0))?;
                let detached = device.detach(|attachment| attachment.kind() == kind.kind());
                drop(device);
                let found = detached.is_some();
                if let Some(attachment) = detached {
                    self.ledger.forgive(attachment);
                }
                return Ok(Outcome::Flag(found));
            }
            Operation::Enable(at) => self.enable(at.0),
            Operation::SetDriver(at, present) => self.machine().set_driver(at.0, *present),
            Operation::SetGroupInUse(group, in_use) => {
                let group = machine::GROUPS[usize::from(*group) % machine::GROUPS.len()];
                self.machine().set_group_in_use(group, *in_use);
            }
            Operation::Advance => self.machine().advance(20_000_000),
        }
        Ok(Outcome::Done)
    }

    fn add(&mut self, at: Sbdf, extended: bool) -> Result<Outcome, TransitionError> {
        let function = Function::find(at);
        // All ones: nobody answers. A virtual function has no vendor, but a status.
        if self.machine().config_read(at, COMMAND, Width::Dword) == u32::MAX {
            function.plug(self.machine());
        }
        let info =
            DeviceInfo { physical_function: function.physical_function(), is_extended_function: extended };
        match self.lifecycle.add(at, info, Data::new(&self.alive)) {
            Ok(Added::New) => Ok(Outcome::Done),
            Ok(Added::Again(_)) => Ok(Outcome::Again),
            Err(error) => Err(error.reason),
        }
    }

    fn try_complete(&mut self, ticket: u8) -> Result<Outcome, TransitionError> {
        let Some(place) = nth(ticket, self.tickets.len()) else { return Ok(Outcome::Done) };
        match self.tickets[place].try_complete() {
            Ok(false) => return Ok(Outcome::Pending),
            Ok(true) => {
                let again = self.tickets.remove(place).try_complete();
                assert_eq!(again, Err(TransitionError::Ticket(TicketError::Over)), "a ticket answers once");
            }
            Err(error) => {
                drop(self.tickets.remove(place));
                return Err(error);
            }
        }
        Ok(Outcome::Done)
    }

    fn create_domain(&mut self, id: DomainId) -> Outcome {
        match self.lifecycle.create_domain(id) {
            Ok(guest) => {
                self.guests.push(guest);
                Outcome::Done
            }
            Err(CreateDomainError::Exists(_)) => Outcome::Refused(Reason::DomainExists),
            Err(_) => Outcome::Refused(Reason::Impossible),
        }
    }

    /// The embedder has means of its own to block a device: nothing of it is a transition.
    fn isolate(&self, at: Sbdf) {
        let broken = self.lifecycle.lock(at).is_ok_and(|device| device.broken().is_some());
        if broken {
            for id in self.requesters(at) {
                self.machine().iommu_block(at, id).expect("no fault is armed");
            }
            self.machine().iommu_flush(at).expect("no fault is armed");
        }
    }

    pub(crate) fn requesters(&self, at: Sbdf) -> Vec<Sbdf> {
        self.lifecycle.lock(at).map(|device| device.requesters().to_vec()).unwrap_or_default()
    }

    fn enable(&self, at: Sbdf) {
        let Ok(_device) = self.lifecycle.lock(at) else { return };
        let machine = self.machine();
        machine.config_write(at, COMMAND, Width::Word, BUS_MASTER);
        if let (_, Some(msix)) = self.capabilities[&at] {
            machine.config_write(at, msix + 2, Width::Word, 1 << 15);
        }
        if machine.ats(at) == Switch::Off && Function::find(at).has_msix() {
            machine.set_ats(at, Switch::On).expect("no fault is armed");
        }
    }

    /// The registers that a transition changes, and its failure restores.
    pub(crate) fn registers(&self, at: Sbdf) -> Registers {
        let read = |offset: u16| self.machine().config_read(at, offset, Width::Word);
        let (msi, msix) = self.capabilities[&at];
        Registers {
            command: read(COMMAND),
            msix: msix.map(|msix| read(msix + 2)),
            msi: msi.map(|msi| read(msi + 2)),
            ats: self.machine().ats(at),
        }
    }

    /// Gives every use back, and every ticket.
    pub(crate) fn let_go(&mut self) {
        self.uses.clear();
        self.tickets.clear();
    }

    pub(crate) fn gone_wrong(&self) -> Vec<String> {
        let mut wrong = self.ledger.violations();
        wrong.extend(locked(&self.reports).wrong.iter().cloned());
        wrong
    }
}

/// Where a function has MSI and MSI-X.
fn capabilities(machine: &Machine, at: Sbdf) -> (Option<u16>, Option<u16>) {
    let config = machine.config(at).unwrap_or_default();
    let find = |id| find_capability(ConfigSpace::new(&config), id).map(u16::from);
    (find(MSI), find(MSIX))
}

const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;
const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;

/// The name of the embedder's holds.
pub(crate) const HOLDER: Holder = Holder::Named("a user of the script's");

/// What a failed transition restores of a function's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) command: u32,
    msix: Option<u32>,
    msi: Option<u32>,
    ats: Switch,
}

impl Registers {
    pub(crate) fn masters(self) -> bool {
        self.command & BUS_MASTER != 0
    }
}

/// The place that a byte means, if there is any.
pub(crate) fn nth(byte: u8, length: usize) -> Option<usize> {
    usize::from(byte).checked_rem(length)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
