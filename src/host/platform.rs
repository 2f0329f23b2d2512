//! The engine's hooks on a Linux host.
//!
//! The kernel does most of what a hypervisor does itself: VFIO attaches the IOMMU when a guest opens the device, and
//! blocks it when it is closed; ATS and MSI-X tables are the kernel's. What is left are drivers, resets, and bus
//! mastering.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::book::{Book, locked};
use super::driver;
use super::function;
use super::identity;
use super::kernel::Kernel;
use super::manager::ResetPolicy;
use super::name::DriverName;
use super::operation::{Current, Kind, Operation, WriteFailure};
use super::record::Tenure;
use super::view::{View, Whose};
use super::writer::Writer;
use crate::errno::Errno;
use crate::owner::{DomainId, Owner};
use crate::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope, Switch,
    Width,
};
use crate::sync::DefaultLock;
use crate::transition::Transition;
use crate::{Sbdf, platform};

pub(super) const UNBIND: &str = "taking it from its driver failed";
pub(super) const BIND: &str = "binding its driver failed";
pub(super) const NETWORK: &str = "its network identity cannot be set";
const MASTERING: &str = "its bus mastering does not go off";
const STUCK: &str = "a kernel write on it has not returned";

/// What platform, views and manager share.
pub(super) struct Core {
    pub(super) writer: Writer,
    pub(super) book: Book,
    pub(super) reset_policy: ResetPolicy,
    started: Instant,
    /// Configuration spaces that were read whole, while their devices are being added.
    preloaded: Mutex<BTreeMap<Sbdf, Vec<u8>>>,
}

impl Core {
    pub(super) fn new(writer: Writer, book: Book, reset_policy: ResetPolicy) -> Self {
        Self { writer, book, reset_policy, started: Instant::now(), preloaded: Mutex::default() }
    }

    /// Reads a device's configuration space in one go, for the engine to look at while it is added.
    pub(super) fn preload(&self, device: Sbdf) {
        let mut bytes = vec![0xff; 4096];
        let place = function::place(device, "config");
        let read = place.and_then(|place| self.writer.kernel().read_at(&place, 0, &mut bytes));
        // What cannot be read reads all ones, as a function that does not answer.
        bytes.truncate(read.unwrap_or(0).min(4096));
        locked(&self.preloaded).insert(device, bytes);
    }

    pub(super) fn forget_preloaded(&self, device: Sbdf) {
        locked(&self.preloaded).remove(&device);
    }

    fn command(&self, device: Sbdf) -> Result<u16, Errno> {
        let mut bytes = [0xff; 2];
        self.writer.kernel().read_at(&function::place(device, "config")?, 4, &mut bytes)?;
        let command = u16::from_le_bytes(bytes);
        if command == 0xffff { Err(Errno::ENODEV) } else { Ok(command) }
    }

    /// Bus mastering is off, for certain.
    pub(super) fn stop_mastering(&self, device: Sbdf) -> Result<(), WriteFailure> {
        const MASTER: u16 = 1 << 2;
        let failed = |errno| WriteFailure { device, what: "switch bus mastering off".into(), errno };
        let command = self.command(device).map_err(failed)?;
        if command & MASTER == 0 {
            return Ok(());
        }
        let place = function::place(device, "config").map_err(failed)?;
        self.writer.kernel().write_at(&place, 4, &(command & !MASTER).to_le_bytes()).map_err(failed)?;
        if self.command(device).map_err(failed)? & MASTER == 0 { Ok(()) } else { Err(failed(Errno::EIO)) }
    }
}

/// Puts a failure into the operation's report, and makes it the engine's.
pub(super) fn hook(operation: &Operation, failure: WriteFailure, reason: &'static str) -> HookError {
    let errno = failure.errno;
    operation.fail(failure);
    HookError::new(errno, if errno == Errno::ETIMEDOUT { STUCK } else { reason })
}

/// Whether a reset of its bus would reset a device that has none of its own: it has siblings, and a bridge above.
fn is_reset_by_bus(kernel: &dyn Kernel, device: Sbdf) -> Result<bool, Errno> {
    Ok(function::is_below_bridge(kernel, device)? && function::on_bus(kernel, device)?.len() > 1)
}

/// The platform.
pub(super) struct HostPlatform {
    core: Arc<Core>,
}

impl HostPlatform {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn view(&self, whose: Whose) -> View {
        View::new(self.core.clone(), whose)
    }

    /// A new owner's driver is put in place.
    fn put_in_place(&self, operation: &Operation, device: Sbdf, owner: Owner) -> Result<(), WriteFailure> {
        let Some(record) = self.core.book.records().get(&device).cloned() else { return Ok(()) };
        let writer = &self.core.writer;
        let leaves_guest = operation.course(device).is_some_and(|(from, _)| from.guest().is_some());
        match owner {
            Owner::Host => {
                // Before its driver, which reads it.
                self.restore_network(operation, device)?;
                driver::give_to_host(writer, device, record.group, &record.original)
            }
            Owner::Quarantine => {
                // It comes from its stub. What the guest still has open may be stuck in somebody's unbind, and then so
                // would be whoever asks for its driver.
                if !leaves_guest || !record.group.is_some_and(|group| driver::is_open(writer, group)) {
                    driver::put_on_stub(writer, device, &record.stub)?;
                }
                self.core.stop_mastering(device)?;
                match self.restore_network(operation, device) {
                    // A guest gets rid of its device. What is still due nobody else gets it without.
                    Err(failure) if leaves_guest => operation.fail(failure),
                    restored => restored?,
                }
                Ok(())
            }
            _ => {
                driver::put_on_stub(writer, device, &record.stub)?;
                let Some(network) = operation.network(device) else { return Ok(()) };
                operation.touches_network(device);
                identity::give(writer, device, network)
            }
        }
    }

    /// The network identity that the host had given it.
    fn restore_network(&self, operation: &Operation, device: Sbdf) -> Result<(), WriteFailure> {
        let Some(network) = operation.network(device) else { return Ok(()) };
        operation.touches_network(device);
        identity::apply(&self.core.writer, device, network.saved)?;
        operation.network_restored(device);
        Ok(())
    }

    /// What its reset reaches, as the kernel says; `None` if it has none and policy allows that.
    fn scope(&self, device: Sbdf) -> Result<Option<ResetScope>, HookError> {
        let unknown = |errno| HookError::new(errno, "its reset methods cannot be read");
        let kernel = self.core.writer.kernel();
        let methods = function::reset_methods(kernel, device).map_err(unknown)?;
        match (methods.and_then(|methods| methods.into_iter().next()), self.core.reset_policy) {
            (Some(first), _) if first == "bus" => Ok(Some(ResetScope::Bus)),
            (Some(_), _) => Ok(Some(ResetScope::Function)),
            // The kernel lists a bus reset only for who was alone on the bus when it was found.
            (None, _) if is_reset_by_bus(kernel, device).map_err(unknown)? => Ok(Some(ResetScope::Bus)),
            (None, ResetPolicy::Allow) => Ok(None),
            (None, ResetPolicy::Required) => {
                Err(HookError::new(Errno::EOPNOTSUPP, "it cannot be reset, and policy demands it"))
            }
        }
    }

    /// Whether no other function of its bus stays with a guest. What cannot be asked may.
    fn leaves_bus(&self, operation: &Operation, device: Sbdf) -> bool {
        let records = self.core.book.records();
        let stays = |other: &Sbdf| {
            let is_guests =
                records.get(other).is_some_and(|record| matches!(record.tenure, Tenure::Guest(_)));
            is_guests && operation.course(*other).is_none()
        };
        let bus = function::on_bus(self.core.writer.kernel(), device);
        bus.is_ok_and(|bus| !bus.iter().any(stays))
    }

    /// Resets a whole bus, all of which the engine has claimed: each is of this transition or in quarantine.
    fn reset_bus(&self, operation: &Operation, device: Sbdf) -> Result<(), WriteFailure> {
        let core = &self.core;
        let failed = |errno| WriteFailure { device, what: "look at its bus".into(), errno };
        let members = function::on_bus(core.writer.kernel(), device).map_err(failed)?;
        if members.len() < 2 {
            return self.reset_alone(device);
        }
        let records = core.book.records();
        let mut groups = Vec::new();
        for record in members.iter().filter_map(|member| records.get(member)) {
            // Those that come from the host in this transition are on no driver yet.
            driver::put_on_stub(&core.writer, record.address, &record.stub)?;
            groups.extend(record.group.filter(|group| !groups.contains(group)));
        }
        // Its own comes first.
        groups.sort_by_key(|group| records.get(&device).is_none_or(|record| record.group != Some(*group)));
        let failed = |errno| WriteFailure { device, what: "reset its bus by VFIO".into(), errno };
        core.writer.hot_reset(device, groups).map_err(failed)?;
        for member in members {
            operation.was_reset(member);
        }
        Ok(())
    }

    fn reset_alone(&self, device: Sbdf) -> Result<(), WriteFailure> {
        let place = function::place(device, "reset");
        let written = place.and_then(|place| self.core.writer.write(device, place, b"1"));
        written.map_err(|errno| WriteFailure { device, what: "reset".into(), errno })
    }
}

impl Platform for HostPlatform {
    type Data = ();
    type Lock = DefaultLock;

    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        let (from, size) = (usize::from(offset), width as usize);
        let mut bytes = [0xff; 4];
        if let Some(known) = locked(&self.core.preloaded).get(&device) {
            if let Some(part) = known.get(from..from + size) {
                bytes[..size].copy_from_slice(part);
            }
        } else if let Ok(place) = function::place(device, "config") {
            // What cannot be read reads all ones, as a function that does not answer.
            let _read = self.core.writer.kernel().read_at(&place, u64::from(offset), &mut bytes[..size]);
        }
        u32::from_le_bytes(bytes)
    }

    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        let Some(operation) = Current::get().filter(|operation| !operation.is_replay()) else { return };
        let bytes = value.to_le_bytes();
        let written = function::place(device, "config").and_then(|place| {
            let kernel = self.core.writer.kernel();
            kernel.write_at(&place, u64::from(offset), &bytes[..width as usize])
        });
        if let Err(errno) = written {
            // Whether bus mastering is off is looked at again where it matters.
            operation.fail(WriteFailure { device, what: format!("write config at {offset:#x}"), errno });
        }
    }

    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        let unknown = |errno| HookError::new(errno, "its IOMMU group cannot be read");
        let kernel = self.core.writer.kernel();
        let group = function::group(kernel, device).map_err(unknown)?;
        let node = function::text(kernel, device, "numa_node").unwrap_or_default();
        // -1 for "no node".
        Ok(Facts { group, node: node.and_then(|node| node.parse().ok()), ..Facts::default() })
    }

    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        if let (Some(operation), Some(from)) = (Current::get(), request.from) {
            operation.expect(request.device, from, request.to);
        }
        Ok(())
    }

    fn has_driver(&self, device: Sbdf) -> bool {
        // What cannot be read may have one.
        let driver = function::driver(self.core.writer.kernel(), device);
        driver.map_or(true, |driver| driver.is_some_and(|driver: DriverName| !driver.is_stub()))
    }

    fn group_in_use(&self, group: GroupId) -> bool {
        let gives_back = |operation: Arc<Operation>| matches!(operation.kind, Kind::GiveBack);
        // A release ends in quarantine; what waits for it goes with it, in one transition, and not before it.
        !Current::get().is_some_and(gives_back) || driver::is_open(&self.core.writer, group)
    }

    fn keeps_in_quarantine(&self, _: Sbdf) -> bool {
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.core.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn iommu_attach(&self, _: Sbdf, _: Sbdf, _: Owner) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_block(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_detach(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_flush(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    /// It is on its stub, nobody has it open, and its bus mastering is off. What is missing of that is made so.
    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        let Some(operation) = Current::get() else { return Ok(false) };
        let Some(record) = self.core.book.records().get(&device).cloned() else { return Ok(false) };
        if record.group.is_some_and(|group| driver::is_open(&self.core.writer, group)) {
            return Ok(false);
        }
        operation
            .begin(&self.core)
            .map_err(|failure| hook(&operation, failure, "the journal cannot be written"))?;
        let taken = driver::put_on_stub(&self.core.writer, device, &record.stub);
        let stopped = taken.and_then(|()| self.core.stop_mastering(device));
        stopped.map_err(|failure| hook(&operation, failure, MASTERING))?;
        if matches!(operation.kind, Kind::Repair) {
            let restored = self.restore_network(&operation, device);
            restored.map_err(|failure| hook(&operation, failure, NETWORK))?;
        }
        Ok(true)
    }

    fn set_ats(&self, _: Sbdf, _: Switch) -> Result<(), HookError> {
        Ok(())
    }

    /// The kernel waits in its resets; there is nobody else's transaction to wait for.
    fn await_idle(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        let Some(operation) = Current::get().filter(|operation| !operation.is_replay()) else {
            return Ok(None);
        };
        match why {
            Transition::Assign | Transition::Reset => self.scope(device),
            Transition::Deassign => {
                let Some(record) = self.core.book.records().get(&device).cloned() else { return Ok(None) };
                let leaves_guest = operation.course(device).is_some_and(|(from, _)| from.guest().is_some());
                if !record.used {
                    Ok(None)
                } else if !leaves_guest {
                    self.scope(device)
                } else if record.group.is_some_and(|group| driver::is_open(&self.core.writer, group)) {
                    // Its file is still open. The reset stays due, and nobody gets the device without it.
                    Ok(None)
                } else {
                    // A guest gets rid of a device, whatever becomes of the reset.
                    let scope = self.scope(device).unwrap_or(None);
                    Ok(scope.filter(|scope| *scope != ResetScope::Bus || self.leaves_bus(&operation, device)))
                }
            }
            _ => Ok(None),
        }
    }

    fn reset(&self, device: Sbdf, scope: ResetScope, _: Option<ResetKind>) -> Result<(), HookError> {
        let Some(operation) = Current::get().filter(|operation| !operation.is_replay()) else {
            return Ok(());
        };
        let done = match scope {
            ResetScope::Bus => self.reset_bus(&operation, device),
            _ => self.reset_alone(device),
        };
        match done {
            Ok(()) => {
                operation.was_reset(device);
                Ok(())
            }
            Err(failure) => {
                let failed = hook(&operation, failure, "its reset failed");
                let leaves_guest = operation.course(device).is_some_and(|(from, _)| from.guest().is_some());
                // The reset stays due.
                if leaves_guest { Ok(()) } else { Err(failed) }
            }
        }
    }

    fn msix_prepare(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn msix_release(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn bind(&self, device: &dyn Claimed<()>, owner: Owner) -> Result<Binding<()>, HookError> {
        let at = device.address();
        let whose = if owner == Owner::Host { Whose::Host } else { Whose::Stub };
        let Some(operation) = Current::get().filter(|operation| operation.course(at).is_some()) else {
            return Ok(Some(Box::new(self.view(whose))));
        };
        if !operation.is_replay() {
            let begun = operation.begin(&self.core);
            let placed = begun.and_then(|()| self.put_in_place(&operation, at, owner));
            placed.map_err(|failure| hook(&operation, failure, BIND))?;
        }
        operation
            .bound(&self.core, at)
            .map_err(|failure| hook(&operation, failure, "the journal cannot be written"))?;
        Ok(Some(Box::new(self.view(whose))))
    }

    fn ask_unplug(&self, _: Sbdf, _: DomainId) -> Result<(), HookError> {
        Err(HookError::new(Errno::EOPNOTSUPP, "the host manager does not talk to guests"))
    }

    fn stop_guest(&self, _: DomainId, device: Sbdf, because: platform::HookError) {
        if let Some(operation) = Current::get() {
            let what = "its guest may still reach it and must be stopped".into();
            operation.fail(WriteFailure { device, what, errno: because.errno() });
        }
    }
}

/// How long a kernel write may take.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(30);
