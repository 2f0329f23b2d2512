//! A vector of a device as an irqfd, and the irqfd as an attachment of the device.
//!
//! Two sides say whether a vector may interrupt. The *guest* routes it and masks it: the bus tells the wiring. The
//! *owner* of the device changes: the transition undoes the attachment, and redoes it if it fails. The irqfd is in place
//! while both agree, so neither side has to know in which order the other one comes.

use std::sync::{Arc, Mutex, PoisonError};

use pcidevs::platform::{Attachment, AttachmentKind, Claimed, Hardware, HookError};
use pcidevs::vpci::Message;

use super::hypervisor::{Hypervisor, Line};
use super::platform::Plugged;

/// One vector's way into the guest.
pub(crate) struct Irqfd {
    hypervisor: Arc<dyn Hypervisor>,
    line: Line,
    state: Mutex<State>,
}

struct State {
    /// What the guest wants sent; `None` while the vector is masked.
    routed: Option<Message>,
    /// A transition has undone it.
    is_undone: bool,
    /// What KVM sends.
    connected: Option<Message>,
}

impl Irqfd {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>, line: Line) -> Arc<Self> {
        let state = State { routed: None, is_undone: false, connected: None };
        Arc::new(Self { hypervisor, line, state: Mutex::new(state) })
    }

    /// The guest's side.
    pub(crate) fn route(&self, message: Option<Message>) -> Result<(), HookError> {
        self.change(|state| state.routed = message)
    }

    /// The device's side: sends it, once.
    pub(crate) fn send(&self) -> Result<(), HookError> {
        self.hypervisor.send(self.line)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), HookError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let wanted = state.routed.filter(|_| !state.is_undone);
        if wanted == state.connected {
            return Ok(());
        }
        match wanted {
            Some(message) => self.hypervisor.connect(self.line, message)?,
            None => self.hypervisor.disconnect(self.line)?,
        }
        state.connected = wanted;
        Ok(())
    }
}

/// The transitions' side.
pub(crate) struct AttachedIrqfd(pub(crate) Arc<Irqfd>);

impl Attachment<Plugged> for AttachedIrqfd {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::MsiVector
    }

    fn undo(&mut self, _: &dyn Claimed<Plugged>, _: Hardware) -> Result<(), HookError> {
        self.0.change(|state| state.is_undone = true)
    }

    fn redo(&mut self, _: &dyn Claimed<Plugged>) -> Result<(), HookError> {
        self.0.change(|state| state.is_undone = false)
    }
}
