//! The engine's hooks on a Xen host.
//!
//! Much of what a hypervisor does itself is Xen's or pciback's: the hypervisor knows phantom functions and aliases and
//! flushes its IOMMU, pciback switches bus mastering off and resets a device when a guest has had it. What is left is who
//! may do what, and the nodes by which driver and guest learn of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::Connect;
use super::error::XenError;
use super::grants::AllGranted;
use super::operation::{Current, Kind, Operation, Published};
use super::view::{View, Whose};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::Kernel;
use crate::owner::{DomainId, Owner};
use crate::platform::{
    Attachment, Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind,
    ResetScope, Switch, Width,
};
use crate::sync::DefaultLock;
use crate::transition::Transition;
use crate::xen::assignable::{self, Assignable};
use crate::xen::hypercall::Hypervisor;
use crate::xen::pciback::{Export, Exported, Options, Outcome, Patience, PcibackError, Toolstack};
use crate::xen::store::Store;

use super::export::Waiting;

pub(super) const GRANT: &str = "the hypervisor does not let the guest have it";
pub(super) const REVOKE: &str = "the hypervisor does not take it back";
const PUBLISH: &str = "the guest does not get it";
const MAKE: &str = "it cannot be put on pciback";

/// What platform and views share.
pub(super) struct Core {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) granted: Mutex<AllGranted>,
    pub(super) connect: Connect,
    patience: Patience,
    started: Instant,
}

impl Core {
    pub(super) fn new(
        kernel: Arc<dyn Kernel>,
        hypervisor: Arc<dyn Hypervisor>,
        connect: Connect,
        patience: Patience,
    ) -> Self {
        let granted = Mutex::new(BTreeMap::new());
        Self { kernel, hypervisor, granted, connect, patience, started: Instant::now() }
    }

    pub(super) fn toolstack<'s, S: Store + ?Sized>(
        &self,
        store: &'s mut S,
        guest: DomainId,
    ) -> Toolstack<'s, S> {
        Toolstack::new(store, guest).with_patience(self.patience)
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The whole set, in one transaction: as the guest's first devices, or beside those it has.
    pub(super) fn publish(
        &self,
        operation: &Operation,
        guest: DomainId,
        name: &str,
        set: &[Export],
    ) -> Result<Published, PcibackError> {
        let mut store = operation.store();
        for _ in 0..self.patience.attempts {
            match self.toolstack(&mut **store, guest).publish(set, name) {
                Ok(()) => return Ok(Published::First),
                Err(PcibackError::Backend(_)) => {}
                Err(error) => return Err(error),
            }
            match self.toolstack(&mut **store, guest).add(set) {
                Ok(_) => return Ok(Published::Added),
                // The last of its devices has gone meanwhile.
                Err(PcibackError::NoBackend) => {}
                Err(error) => return Err(error),
            }
        }
        Err(crate::xen::store::StoreError::Conflicts { attempts: self.patience.attempts }.into())
    }
}

/// The platform.
pub(super) struct XenPlatform {
    core: Arc<Core>,
}

impl XenPlatform {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn view(&self, whose: Whose) -> Box<dyn Attachment<()>> {
        Box::new(View::new(self.core.clone(), whose))
    }

    /// Whether a publication that failed may be in the store all the same: a store that fails when it is asked what became
    /// of it has committed before, or nobody knows.
    fn may_be_there(&self, error: &PcibackError, guest: DomainId, set: &[Export]) -> bool {
        match error {
            PcibackError::Unsettled { outcome, .. } => *outcome == Outcome::Pending,
            PcibackError::Store(_) => {
                let look = (self.core.connect)()
                    .map_err(PcibackError::from)
                    .and_then(|mut store| self.core.toolstack(&mut *store, guest).list());
                let is_of_set = |one: &Exported| set.iter().any(|export| export.device == one.device);
                look.map_or(true, |there| there.iter().any(is_of_set))
            }
            _ => false,
        }
    }

    /// The last member of the set has all that it needs: now all of them are published.
    fn export(&self, operation: &Operation, device: Sbdf) -> Result<Export, HookError> {
        let Kind::Export { guest, name, set, waiting } = &operation.kind else {
            return Ok(Export::of(device));
        };
        let export = set.iter().find(|export| export.device == device).cloned();
        let export = export.unwrap_or_else(|| Export::of(device));
        let mut state = operation.state();
        state.bound += 1;
        if state.bound < set.len() {
            return Ok(export);
        }
        drop(state);
        match self.core.publish(operation, *guest, name, set) {
            Ok(how) => operation.state().published = Some(how),
            // It is in the store, and the driver may be at it: the devices are the guest's until more is known.
            Err(error) if self.may_be_there(&error, *guest, set) => {
                let mut state = operation.state();
                (state.published, state.pending) = (Some(Published::Added), Some(error));
                return Ok(export);
            }
            Err(error) => return Err(operation.fails(device, error.into(), PUBLISH)),
        }
        let first = operation.state().published == Some(Published::First);
        if *waiting == Waiting::UntilConnected && first {
            let mut store = operation.store();
            let connected = self.core.toolstack(&mut **store, *guest).await_connected();
            if let Err(error) = connected {
                let failed = operation.fails(device, error.into(), PUBLISH);
                let released = self.core.toolstack(&mut **store, *guest).release();
                operation.state().published = None;
                if let Err(error) = released {
                    let _noted = operation.fails(device, error.into(), PUBLISH);
                }
                return Err(failed);
            }
        }
        Ok(export)
    }
}

impl Platform for XenPlatform {
    type Data = ();
    type Lock = DefaultLock;

    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        let mut bytes = [0xff; 4];
        assignable::config(&*self.core.kernel, device, offset.into(), &mut bytes[..width as usize]);
        u32::from_le_bytes(bytes)
    }

    /// pciback has the device, and writes its registers itself.
    fn config_write(&self, _: Sbdf, _: u16, _: Width, _: u32) {}

    fn facts(&self, _: Sbdf) -> Result<Facts, HookError> {
        // Under Xen Linux has no IOMMU, and so no groups: what belongs together the hypervisor says when asked.
        Ok(Facts::default())
    }

    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        let to_guest = request.transition == Transition::Assign && request.from == Some(Owner::Host);
        // A guest gets what is on pciback, and nothing else.
        if to_guest { Err(Refusal::Denied) } else { Ok(()) }
    }

    fn has_driver(&self, device: Sbdf) -> bool {
        !assignable::is_on_pciback(&*self.core.kernel, device)
    }

    fn group_in_use(&self, _: GroupId) -> bool {
        false
    }

    fn keeps_in_quarantine(&self, _: Sbdf) -> bool {
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.core.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        let Some(guest) = owner.guest().filter(|_| requester == device) else { return Ok(()) };
        let Some(operation) = Current::get() else {
            self.core.found(device, guest);
            return Ok(());
        };
        let options = match &operation.kind {
            Kind::Export { set, .. } => set.iter().find(|export| export.device == device),
            _ => None,
        };
        let options = options.map_or_else(Options::default, |export| export.options);
        self.core.give(device, guest, options).map_err(|error| operation.fails(device, error, GRANT))
    }

    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        let Some(operation) = Current::get().filter(|_| requester == device) else { return Ok(()) };
        self.core.take_back(device).map_err(|error| operation.fails(device, error, REVOKE))
    }

    fn iommu_detach(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_flush(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        let blocked = self.core.take_back(device);
        blocked.map(|()| true).map_err(|error| HookError::new(error.errno(), REVOKE))
    }

    fn set_ats(&self, _: Sbdf, _: Switch) -> Result<(), HookError> {
        Ok(())
    }

    fn await_idle(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn reset_scope(&self, _: Sbdf, _: Transition) -> Result<Option<ResetScope>, HookError> {
        Ok(None)
    }

    fn reset(&self, _: Sbdf, _: ResetScope, _: Option<ResetKind>) -> Result<(), HookError> {
        Err(HookError::new(Errno::EOPNOTSUPP, "pciback resets devices"))
    }

    fn msix_prepare(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn msix_release(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn bind(&self, device: &dyn Claimed<()>, owner: Owner) -> Result<Binding<()>, HookError> {
        let at = device.address();
        let operation = Current::get();
        match (owner, operation) {
            (Owner::Guest(guest), None) => Ok(Some(self.view(Whose::Guest(guest, Export::of(at))))),
            (Owner::Guest(guest), Some(operation)) => {
                let export = self.export(&operation, at)?;
                Ok(Some(self.view(Whose::Guest(guest, export))))
            }
            (Owner::Quarantine, Some(operation)) => {
                if let Kind::Make { name } = &operation.kind {
                    let mut store = operation.store();
                    let mut assignable =
                        Assignable::new(&*self.core.kernel, &*self.core.hypervisor, &mut **store);
                    let added = assignable.add(at, name.as_deref());
                    added.map_err(|error| operation.fails(at, XenError::from(error), MAKE))?;
                }
                Ok(Some(self.view(Whose::Pciback)))
            }
            (Owner::Quarantine, None) => Ok(Some(self.view(Whose::Pciback))),
            _ => Ok(None),
        }
    }

    fn ask_unplug(&self, _: Sbdf, _: DomainId) -> Result<(), HookError> {
        Err(HookError::new(Errno::EOPNOTSUPP, "detach asks the guest"))
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        if let Some(operation) = Current::get() {
            let what = format!("domain {guest} may still reach it: destroy that domain");
            operation.note(device, &what, because.errno());
        }
    }
}
