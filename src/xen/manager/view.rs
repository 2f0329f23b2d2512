//! What an owner sees of a device: pciback's file, or a guest's nodes in xenstore.

use std::sync::Arc;

use super::error::XenError;
use super::operation::{Current, Kind, Operation, Published};
use super::platform::{Core, REVOKE};
use crate::Sbdf;
use crate::owner::DomainId;
use crate::platform::{Attachment, AttachmentKind, Claimed, Hardware, HookError};
use crate::xen::assignable::{Assignable, AssignableError};
use crate::xen::pciback::{Export, PcibackError};

const WITHDRAW: &str = "the guest does not let it go";
const UNMAKE: &str = "the host does not get it back";

/// Whose view it is.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    Pciback,
    Guest(DomainId, Export),
}

/// A view.
pub(super) struct View {
    core: Arc<Core>,
    whose: Whose,
    is_intact: bool,
}

impl View {
    pub(super) fn new(core: Arc<Core>, whose: Whose) -> Self {
        Self { core, whose, is_intact: false }
    }

    /// The guest does not see it any more.
    fn withdraw(&self, operation: &Operation, guest: DomainId, device: Sbdf) -> Result<(), XenError> {
        let mut store = operation.store();
        let mut toolstack = self.core.toolstack(&mut **store, guest);
        let is_all = match &operation.kind {
            Kind::Release => operation.state().released.is_none(),
            // A set that was to be the guest's first devices is taken back whole.
            Kind::Export { .. } => {
                operation.state().published.take_if(|how| *how == Published::First).is_some()
            }
            _ => false,
        };
        if is_all {
            let released = toolstack.release()?;
            operation.state().released = Some(released);
            return Ok(());
        }
        let is_one = match &operation.kind {
            Kind::Withdraw => true,
            Kind::Export { .. } => operation.state().published == Some(Published::Added),
            _ => false,
        };
        if !is_one {
            return Ok(());
        }
        match toolstack.remove(device) {
            // Somebody else was faster, or a removal that was given up has come to its end.
            Ok(()) | Err(PcibackError::NotExported(_) | PcibackError::NoBackend) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Attachment<()> for View {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Other(match self.whose {
            Whose::Pciback => "pciback",
            Whose::Guest(..) => "pciback export",
        })
    }

    fn undo(&mut self, device: &dyn Claimed<()>, hardware: Hardware) -> Result<(), HookError> {
        let at = device.address();
        self.is_intact = false;
        let (Hardware::Present, Some(operation)) = (hardware, Current::get()) else { return Ok(()) };
        match (&self.whose, &operation.kind) {
            (Whose::Guest(guest, _), _) => {
                let withdrawn = self.withdraw(&operation, *guest, at);
                // A guest that does not let go has the device as before.
                self.is_intact = withdrawn.is_err();
                withdrawn.map_err(|error| operation.fails(at, error, WITHDRAW))
            }
            (Whose::Pciback, Kind::Unmake { .. } | Kind::Make { .. }) => {
                let afterwards = match operation.kind {
                    Kind::Unmake { afterwards } => afterwards,
                    _ => crate::xen::assignable::Afterwards::Rebind,
                };
                let mut store = operation.store();
                let mut assignable =
                    Assignable::new(&*self.core.kernel, &*self.core.hypervisor, &mut **store);
                let removed = assignable.remove(at, afterwards);
                self.is_intact = match &removed {
                    Err(AssignableError::Failed(failed)) => failed.undo.is_empty(),
                    removed => removed.is_err(),
                };
                removed.map(|_| ()).map_err(|error| operation.fails(at, error.into(), UNMAKE))
            }
            (Whose::Pciback, _) => Ok(()),
        }
    }

    fn is_intact(&self) -> bool {
        self.is_intact
    }

    fn redo(&mut self, device: &dyn Claimed<()>) -> Result<(), HookError> {
        let at = device.address();
        let Some(operation) = Current::get() else { return Ok(()) };
        match (&self.whose, &operation.kind) {
            (Whose::Guest(guest, export), Kind::Withdraw) => {
                // The hypervisor may have taken back a part of it.
                let again = self.core.give_again(at, *guest, export.options).and_then(|()| {
                    let name = guest.to_string();
                    Ok(self.core.publish(&operation, *guest, &name, std::slice::from_ref(export))?)
                });
                again.map(|_| ()).map_err(|error| operation.fails(at, error, WITHDRAW))
            }
            (Whose::Pciback, Kind::Unmake { .. }) => {
                let mut store = operation.store();
                let mut assignable =
                    Assignable::new(&*self.core.kernel, &*self.core.hypervisor, &mut **store);
                let added = assignable.add(at, None);
                added.map(|_| ()).map_err(|error| operation.fails(at, error.into(), UNMAKE))
            }
            // A grant that could not be taken back when the next failed: it is now, or nobody gets the device.
            (Whose::Pciback, Kind::Export { .. }) => {
                self.core.take_back(at).map_err(|error| operation.fails(at, error, REVOKE))
            }
            _ => Ok(()),
        }
    }
}
