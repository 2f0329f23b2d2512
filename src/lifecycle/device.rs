//! What the life cycle keeps of a device, beside the embedder's data and under the same lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use super::departure::Departure;
use super::known::Known;
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::owner::Owner;
use crate::platform::{Attachment, AttachmentKind, HookError, Platform, ResetScope};
use crate::registry::{Hold, Locked};
use crate::sync::{Site, weakened};

/// One device: the embedder's data, which it dereferences to, and what its life cycle needs to know.
pub struct Device<P: Platform> {
    pub(super) known: Shared<Known<P::Lock>>,
    pub(super) bound: Bound<P::Data>,
    pub(super) condition: Condition,
    /// What the device takes along when it is gone; made when it is added, since there may be no memory then.
    pub(super) departure: Option<Box<Departure<P>>>,
    /// Kept while this device exists: the bridge it is behind, its physical function.
    pub(super) links: Links<P>,
    data: P::Data,
}

/// The devices that a device depends on.
pub(super) struct Links<P: Platform> {
    pub(super) bridge: Option<Link<P>>,
    pub(super) pf: Option<Link<P>>,
}

/// A use of one device by another.
pub(super) type Link<P> = Hold<Device<P>, <P as Platform>::Lock>;

/// The flags of a device.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own: they come in every combination"
)]
pub(super) struct Condition {
    /// Why no guest may get it.
    pub(super) broken: Option<HookError>,
    /// Deassigned, it goes to quarantine and not to the host.
    pub(super) sticky: bool,
    /// In quarantine until its group can go back to the host.
    pub(super) to_give_back: bool,
    /// The transition under way makes it [`to_give_back`](Self::to_give_back), if it succeeds.
    pub(super) will_wait: bool,
    /// Hidden, and its configuration may be read only.
    pub(super) read_only: bool,
    /// The guest was asked to let it go; it may still answer.
    pub(super) asked: bool,
    /// The host has its MSI-X table.
    pub(super) msix_table: bool,
    /// An invalidation of its translations timed out: no transition switches its ATS on again before it has moved.
    pub(super) ats_failed: bool,
    /// It faulted too often: no transition switches its bus mastering on again before its faults are forgotten.
    pub(super) silenced: bool,
    /// The reset that was due when it left its guest, and would have reached devices of others.
    pub(super) unreset: Option<ResetScope>,
    /// The NUMA node it is near.
    pub(super) node: Option<u32>,
    /// A physical function's "extended function" (ARI), which its virtual functions inherit.
    pub(super) extended_function: bool,
}

impl<P: Platform> Device<P> {
    pub(super) fn new(
        known: Shared<Known<P::Lock>>,
        links: Links<P>,
        departure: Box<Departure<P>>,
        condition: Condition,
        data: P::Data,
    ) -> Self {
        Self { known, bound: Bound::default(), condition, departure: Some(departure), links, data }
    }

    /// What the current binding set up, in order of registration (R10).
    pub fn attachments(&self) -> impl Iterator<Item = AttachmentKind> + '_ {
        self.bound.kinds().chain(self.condition.msix_table.then_some(AttachmentKind::MsixTable))
    }

    /// Why the device is broken, if it is: no guest gets it until it is repaired.
    pub fn broken(&self) -> Option<HookError> {
        self.condition.broken
    }

    /// Hidden with its configuration readable: writes by the host are to be dropped.
    pub fn is_read_only(&self) -> bool {
        self.condition.read_only
    }

    /// In quarantine until the last member of its IOMMU group has left its guest: the state "Deferred".
    pub fn is_deferred(&self) -> bool {
        self.condition.to_give_back
    }

    /// It was not reset since a guest had it, because the reset would have reached devices of others: it stays in
    /// quarantine until a transition that resets it succeeds.
    pub fn needs_reset(&self) -> bool {
        self.condition.unreset.is_some()
    }

    /// The NUMA node it is near.
    pub fn node(&self) -> Option<u32> {
        self.condition.node
    }

    /// The requester IDs under which the IOMMU sees it, its own first.
    pub fn requesters(&self) -> &[Sbdf] {
        &self.known.requesters
    }

    /// Its function number is 8 bits wide (ARI), as reported for its physical function.
    pub fn is_extended_function(&self) -> bool {
        self.condition.extended_function
    }

    /// What the device leaves behind, with what its binding had set up. Once.
    pub(super) fn depart(&mut self) -> Option<Box<Departure<P>>> {
        let mut departure = self.departure.take()?;
        departure.bound = core::mem::take(&mut self.bound);
        departure.msix_table = self.condition.msix_table;
        Some(departure)
    }

    pub(super) fn data_mut(&mut self) -> &mut P::Data {
        &mut self.data
    }
}

impl<P: Platform> Deref for Device<P> {
    type Target = P::Data;

    #[inline]
    fn deref(&self) -> &P::Data {
        &self.data
    }
}

impl<P: Platform> DerefMut for Device<P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut P::Data {
        &mut self.data
    }
}

impl<P: Platform> fmt::Debug for Device<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("condition", &self.condition)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

/// What the binding to the current owner set up, in order: what the owner sees first, then what was registered.
pub(super) struct Bound<D> {
    /// What [`Platform::bind`] returned.
    view: Option<Entry<D>>,
    registered: Vec<Entry<D>>,
    /// What another owner was to see, and could not be kept from seeing: the device is broken.
    stuck: Option<Entry<D>>,
}

/// One attachment, and whether it is in effect.
pub(super) struct Entry<D> {
    pub(super) attachment: Box<dyn Attachment<D>>,
    pub(super) effect: Effect,
}

/// Whether an attachment is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is.
    On,
    /// The transition under way has undone it.
    Undone,
    /// An earlier transition has, and could not redo it: the device is broken.
    UndoneBefore,
}

impl<D> Default for Bound<D> {
    fn default() -> Self {
        Self { view: None, registered: Vec::new(), stuck: None }
    }
}

impl<D> Entry<D> {
    fn new(attachment: Box<dyn Attachment<D>>) -> Self {
        Self { attachment, effect: Effect::On }
    }
}

impl<D> Bound<D> {
    /// A new binding: what its owner sees.
    pub(super) fn seen(view: Option<Box<dyn Attachment<D>>>) -> Self {
        Self { view: view.map(Entry::new), ..Self::default() }
    }

    /// A transition begins: what an earlier one has undone it does not redo.
    pub(super) fn begin(&mut self) {
        let entries = self.view.iter_mut().chain(&mut self.registered).chain(&mut self.stuck);
        for entry in entries.filter(|entry| entry.effect == Effect::Undone) {
            entry.effect = Effect::UndoneBefore;
        }
    }

    /// The old binding goes on, and with it what could not be undone of the new one.
    pub(super) fn keep(&mut self, stuck: Option<Box<dyn Attachment<D>>>) {
        if let Some(stuck) = stuck {
            self.stuck = Some(Entry::new(stuck));
        }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.view.is_some()) + self.registered.len() + usize::from(self.stuck.is_some())
    }

    /// The attachment at this place, counted from the last: the order of undoing.
    pub(super) fn nth_from_last(&mut self, place: usize) -> Option<&mut Entry<D>> {
        self.view.iter_mut().chain(&mut self.registered).chain(&mut self.stuck).nth_back(place)
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = AttachmentKind> + '_ {
        let entries = self.view.iter().chain(&self.registered).chain(&self.stuck);
        entries.flat_map(|entry| {
            let vectors = core::iter::repeat_n(AttachmentKind::MsiVector, entry.attachment.vectors());
            core::iter::once(entry.attachment.kind()).chain(vectors)
        })
    }

    pub(super) fn has(&self, kind: AttachmentKind) -> bool {
        self.kinds().any(|other| other == kind)
    }
}

impl<D> fmt::Debug for Bound<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}

/// An attachment could not be registered; it comes back.
pub struct AttachError<D> {
    /// What was to be registered.
    pub attachment: Box<dyn Attachment<D>>,
    /// Why it was not.
    pub reason: AttachRefused,
}

/// Why an attachment was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachRefused {
    /// A transition has the device, and the binding may be at its end; try again when it is over (EBUSY).
    #[error("a transition of the device is under way")]
    Transition,
    /// The device is broken (EBADF).
    #[error("the device is broken")]
    Broken,
    /// Nothing was registered (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl AttachRefused {
    /// What a C caller gets.
    pub const fn errno(&self) -> crate::Errno {
        match self {
            Self::Transition => crate::Errno::EBUSY,
            Self::Broken => crate::Errno::EBADF,
            Self::NoMemory(_) => crate::Errno::ENOMEM,
        }
    }
}

impl<D> fmt::Debug for AttachError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for AttachError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<D> core::error::Error for AttachError<D> {}

impl<P: Platform> Locked<'_, Device<P>, P::Lock> {
    /// Registers what the end of the current binding must undo (R11).
    pub fn attach(&mut self, attachment: Box<dyn Attachment<P::Data>>) -> Result<(), AttachError<P::Data>> {
        let reason = if self.is_claimed() && !weakened(Site::AttachChecksClaim) {
            AttachRefused::Transition
        } else if self.condition.broken.is_some() {
            AttachRefused::Broken
        } else {
            match self.bound.registered.try_reserve(1) {
                Ok(()) => {
                    self.bound.registered.push(Entry::new(attachment));
                    return Ok(());
                }
                Err(error) => NoMemory::from(error).into(),
            }
        };
        Err(AttachError { attachment, reason })
    }

    /// Takes out the attachment registered last that `which` names and that is in effect, not undone: what it set up is the caller's
    /// again. `None` while a transition has the device.
    pub fn detach(
        &mut self,
        which: impl Fn(&dyn Attachment<P::Data>) -> bool,
    ) -> Option<Box<dyn Attachment<P::Data>>> {
        if self.is_claimed() {
            return None;
        }
        let wanted = |entry: &Entry<_>| entry.effect == Effect::On && which(&*entry.attachment);
        let place = self.bound.registered.iter().rposition(wanted)?;
        Some(self.bound.registered.remove(place).attachment)
    }

    /// Whether the device belongs to this owner and to no transition: what it set up for that owner is in effect.
    pub fn is_settled_with(&self, owner: Owner) -> bool {
        !self.is_claimed() && self.owner() == owner
    }
}
