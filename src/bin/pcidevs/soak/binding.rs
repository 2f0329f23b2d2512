//! What an owner gets with a device: a view of it (its vPCI), and, when it asks, an interrupt vector.
//!
//! Both say in the device's [`Life`](super::life::Life) who has them, under the device's lock. An owner whose view is on may read and
//! write the device and program its DMA; the storm holds every effect of that against the view, the IOMMU and the
//! core's idea of the owner, which must agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pcidevs::platform::{Attachment, AttachmentKind, Binding, Claimed, Hardware, HookError};
use pcidevs::{Holder, Owner};

use super::ledger::{Books, Note};
use super::life::Model;
use super::mishaps::{Mishaps, take_time};
use super::party::{Guests, Party};

/// Who binds devices to their owners.
pub(crate) struct Binder {
    pub(crate) guests: Arc<Guests>,
    pub(crate) books: Arc<Books>,
    pub(crate) mishaps: Arc<Mishaps>,
}

impl Binder {
    /// The platform's `bind`.
    pub(crate) fn bind(
        &self,
        device: &dyn Claimed<Model>,
        owner: Owner,
    ) -> Result<Binding<Model>, HookError> {
        let party = self.guests.party(owner);
        if party == Party::NOBODY {
            return Ok(None);
        }
        self.mishaps.chance()?;
        let note = owner.guest().zip(place(device));
        let note = note.map(|(id, place)| self.books.note(place, Holder::Domain(id)));
        let view = View { party, note, mishaps: Arc::clone(&self.mishaps) };
        view.switch_on(device);
        Ok(Some(Box::new(view)))
    }
}

fn place(device: &dyn Claimed<Model>) -> Option<usize> {
    let mut place = None;
    device.with(&mut |model| place = Some(model.life.place));
    place
}

/// The vPCI of one owner.
struct View {
    party: Party,
    /// A guest certainly has the device while its view is on.
    note: Option<Note>,
    mishaps: Arc<Mishaps>,
}

impl View {
    fn switch_on(&self, device: &dyn Claimed<Model>) {
        device.with(&mut |model| model.life.view.set(self.party));
        if let Some(note) = &self.note {
            note.have();
        }
    }
}

impl Attachment<Model> for View {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn undo(&mut self, device: &dyn Claimed<Model>, _: Hardware) -> Result<(), HookError> {
        static UNDONE: AtomicU64 = AtomicU64::new(0);
        if let Some(note) = &self.note {
            note.let_go();
        }
        // Its owner may still use it to the last moment.
        take_time(UNDONE.fetch_add(1, Ordering::Relaxed));
        self.mishaps.chance()?;
        device.with(&mut |model| model.life.view.set(Party::NOBODY));
        Ok(())
    }

    fn redo(&mut self, device: &dyn Claimed<Model>) -> Result<(), HookError> {
        self.mishaps.chance()?;
        self.switch_on(device);
        Ok(())
    }
}

/// An interrupt vector of one owner.
pub(crate) struct Vector {
    pub(crate) party: Party,
    pub(crate) mishaps: Arc<Mishaps>,
}

impl Vector {
    fn point(device: &dyn Claimed<Model>, at: Party) {
        device.with(&mut |model| model.life.vector.set(at));
    }
}

impl Attachment<Model> for Vector {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::MsiVector
    }

    fn undo(&mut self, device: &dyn Claimed<Model>, _: Hardware) -> Result<(), HookError> {
        self.mishaps.chance()?;
        Self::point(device, Party::NOBODY);
        Ok(())
    }

    fn redo(&mut self, device: &dyn Claimed<Model>) -> Result<(), HookError> {
        self.mishaps.chance()?;
        Self::point(device, self.party);
        Ok(())
    }
}
