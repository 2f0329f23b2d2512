//! What the guest's bus asks of this VMM: interrupts and mappings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pcidevs::lifecycle::Guest;
use pcidevs::platform::HookError;
use pcidevs::vpci::{Piece, Target, VectorWork, Wiring};
use pcidevs::{Errno, Sbdf};

use super::hypervisor::{Hypervisor, Line};
use super::irqfd::{AttachedIrqfd, Irqfd};
use super::memory::Memory;
use super::platform::Vmm;

/// Lines below are those of the interrupt controllers' pins.
const FIRST_LINE: u32 = 24;

/// Between the guest's devices and the hypervisor.
pub(crate) struct Wires {
    hypervisor: Arc<dyn Hypervisor>,
    guest: Guest<Vmm>,
    /// The irqfds of vectors. They are the attachments' own, and end with them.
    irqfds: Mutex<HashMap<(Sbdf, u16), Weak<Irqfd>>>,
    next_line: AtomicU32,
    /// The memory behind BARs that are mapped directly.
    shared: Mutex<HashMap<(Sbdf, u8), Memory>>,
    /// What the VMM would write to its log.
    failures: Mutex<Vec<HookError>>,
}

const NOT_SHARED: HookError = HookError::new(Errno::ENODEV, "no memory is behind this BAR");
const NOT_WHOLE: HookError = HookError::new(Errno::EINVAL, "only whole BARs are mapped here");

impl Wires {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>, guest: Guest<Vmm>) -> Self {
        Self {
            hypervisor,
            guest,
            irqfds: Mutex::default(),
            next_line: AtomicU32::new(FIRST_LINE),
            shared: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// What is behind a directly mapped BAR.
    pub(crate) fn share(&self, device: Sbdf, bar: u8, memory: Memory) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).insert((device, bar), memory);
    }

    /// What could not be done so far.
    pub(crate) fn failures(&self) -> Vec<HookError> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn irqfd(&self, target: Target, vector: u16) -> Option<Arc<Irqfd>> {
        let irqfds = self.irqfds.lock().unwrap_or_else(PoisonError::into_inner);
        irqfds.get(&(target.device, vector)).and_then(Weak::upgrade)
    }

    /// Makes the irqfd of a vector, as an attachment of its device: whatever ends the guest's binding disconnects it.
    fn attach_irqfd(&self, target: Target, vector: u16) -> Result<Arc<Irqfd>, HookError> {
        let line = Line(self.next_line.fetch_add(1, Ordering::Relaxed));
        let irqfd = Irqfd::new(self.hypervisor.clone(), line);
        let attachment = Box::new(AttachedIrqfd(irqfd.clone()));
        let mut device = self
            .guest
            .lock(target.seen_at)
            .map_err(|error| HookError::new(error.errno(), "the device is not with this guest"))?;
        device
            .attach(attachment)
            .map_err(|error| HookError::new(error.reason.errno(), "the irqfd cannot be attached now"))?;
        drop(device);
        let mut irqfds = self.irqfds.lock().unwrap_or_else(PoisonError::into_inner);
        irqfds.retain(|_, irqfd| irqfd.strong_count() > 0);
        irqfds.insert((target.device, vector), Arc::downgrade(&irqfd));
        Ok(irqfd)
    }
}

impl Wiring for Wires {
    fn vector(&self, target: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        let irqfd = self.irqfd(target, vector);
        match (work, irqfd) {
            (VectorWork::Route(message), Some(irqfd)) => irqfd.route(Some(message)),
            (VectorWork::Route(message), None) => self.attach_irqfd(target, vector)?.route(Some(message)),
            (VectorWork::Unroute, Some(irqfd)) => irqfd.route(None),
            (VectorWork::Send(_), Some(irqfd)) => irqfd.send(),
            // The binding is over, and the irqfd with it.
            (VectorWork::Unroute | VectorWork::Send(_), None) => Ok(()),
        }
    }

    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = shared.get(&(device, piece.id.bar)).ok_or(NOT_SHARED)?;
        if (piece.offset, piece.length) != (0, memory.size()) {
            return Err(NOT_WHOLE);
        }
        self.hypervisor.map(piece.base, memory)
    }

    fn unmap(&self, _: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.hypervisor.unmap(piece.base)
    }

    fn failed(&self, _: Target, error: HookError) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }
}
