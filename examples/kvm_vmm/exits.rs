//! What happens when the guest leaves: ports and memory that nothing is mapped at.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::guest::IS_GONE;
use super::notes::Note;
use super::platform::GuestVcpu;

/// The wires between a guest and its VMM besides the PCI bus.
#[derive(Clone)]
pub(crate) struct Panel {
    /// What the guest tells.
    pub(crate) notes: Sender<(Note, u32)>,
    /// What it reads at [`IS_GONE`].
    pub(crate) is_gone: Arc<AtomicBool>,
}

/// One vCPU's exits.
pub(crate) struct Exits {
    vcpu: GuestVcpu,
    panel: Panel,
}

impl Exits {
    pub(crate) fn new(vcpu: GuestVcpu, panel: Panel) -> Self {
        Self { vcpu, panel }
    }

    pub(crate) fn port_read(&mut self, port: u16, data: &mut [u8]) {
        if self.vcpu.io_read(port, data) {
            return;
        }
        data.fill(0xff);
        if let (IS_GONE, Ok(data)) = (port, <&mut [u8; 4]>::try_from(data)) {
            // Acquire: pairs with the Release of the VMM, so that the guest reads what is so since then.
            *data = u32::from(self.panel.is_gone.load(Ordering::Acquire)).to_le_bytes();
        }
    }

    /// `Break` when the guest is done, or nobody listens any more.
    pub(crate) fn port_write(&mut self, port: u16, data: &[u8]) -> ControlFlow<()> {
        // The vCPU goes on when what it asked for is done: a BAR mapped, a vector routed.
        if self.vcpu.io_write(port, data).wait() {
            return ControlFlow::Continue(());
        }
        let Some((note, value)) = Note::of_port(port).zip(data.try_into().ok()) else {
            return ControlFlow::Continue(());
        };
        let is_heard = self.panel.notes.send((note, u32::from_le_bytes(value))).is_ok();
        if is_heard && note != Note::Done { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    pub(crate) fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        if !self.vcpu.mmio_read(address, data) {
            data.fill(0xff);
        }
    }

    pub(crate) fn memory_write(&mut self, address: u64, data: &[u8]) {
        // A write to nobody goes nowhere.
        let _is_pci = self.vcpu.mmio_write(address, data).wait();
    }
}
