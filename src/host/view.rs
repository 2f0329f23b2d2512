//! What an owner sees of a device on a Linux host: its driver.
//!
//! The host's view is its driver; quarantine's and a guest's is the stub. Between those two nothing is bound or
//! unbound. A view whose end fails puts everything back and says so: then the device is as before, and not broken.

use std::sync::Arc;

use super::driver;
use super::identity;
use super::operation::{Current, Kind, Operation, WriteFailure};
use super::platform::{BIND, Core, NETWORK, UNBIND, hook};
use crate::Sbdf;
use crate::platform::{Attachment, AttachmentKind, Claimed, Hardware, HookError};

/// Whose view it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Host,
    /// Quarantine's or a guest's.
    Stub,
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

    /// The operation under way, if it writes anything for this view.
    fn operation(device: Sbdf) -> Option<Arc<Operation>> {
        Current::get().filter(|operation| !operation.is_replay() && operation.course(device).is_some())
    }

    fn take_away(&self, operation: &Operation, device: Sbdf) -> Result<(), WriteFailure> {
        let Some(record) = self.core.book.records().get(&device).cloned() else { return Ok(()) };
        match self.whose {
            Whose::Host => driver::take_from_host(&self.core.writer, device, &record.stub),
            Whose::Stub if operation.touches_host(device) => {
                driver::take_from_stub(&self.core.writer, device, record.group)
            }
            Whose::Stub => Ok(()),
        }
    }

    fn put_in_place(&self, operation: &Operation, device: Sbdf) -> Result<(), WriteFailure> {
        let Some(record) = self.core.book.records().get(&device).cloned() else { return Ok(()) };
        match self.whose {
            Whose::Host => driver::give_to_host(&self.core.writer, device, record.group, &record.original),
            Whose::Stub if operation.touches_host(device) => {
                driver::put_on_stub(&self.core.writer, device, &record.stub)
            }
            Whose::Stub => Ok(()),
        }
    }
}

impl Attachment<()> for View {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Other(match self.whose {
            Whose::Host => "host driver",
            Whose::Stub => "stub driver",
        })
    }

    fn undo(&mut self, device: &dyn Claimed<()>, hardware: Hardware) -> Result<(), HookError> {
        let at = device.address();
        self.is_intact = false;
        let (Hardware::Present, Some(operation)) = (hardware, Self::operation(at)) else { return Ok(()) };
        if matches!(operation.kind, Kind::Repair) {
            // It is on its stub by now, and stays there.
            return Ok(());
        }
        if let Err(failure) = operation.begin(&self.core) {
            self.is_intact = true;
            return Err(hook(&operation, failure, UNBIND));
        }
        let Err(failure) = self.take_away(&operation, at) else { return Ok(()) };
        let failed = hook(&operation, failure, UNBIND);
        match self.put_in_place(&operation, at) {
            Ok(()) => self.is_intact = true,
            Err(failure) => {
                operation.breaks(at);
                operation.fail(failure);
            }
        }
        Err(failed)
    }

    fn is_intact(&self) -> bool {
        self.is_intact
    }

    fn redo(&mut self, device: &dyn Claimed<()>) -> Result<(), HookError> {
        let Some(operation) = Self::operation(device.address()) else { return Ok(()) };
        let at = device.address();
        // Before the driver, which reads it. If one of the two fails the other is put back all the same.
        let network = operation.network_before(at);
        let network = network.map_or(Ok(()), |before| identity::apply(&self.core.writer, at, before));
        let network = network.map_err(|failure| hook(&operation, failure, NETWORK));
        let placed = self.put_in_place(&operation, at);
        let placed = placed.map_err(|failure| hook(&operation, failure, BIND));
        network.and(placed).inspect_err(|_| operation.breaks(at))
    }
}
