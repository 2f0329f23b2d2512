//! A device in the hands of a transition: how its data is reached, and what the transition has done with it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::device::{Bound, Device, Link, Links};
use super::group::Group;
use super::known::Known;
use super::registers::Quiesced;
use crate::Sbdf;
use crate::memory::Shared;
use crate::owner::Owner;
use crate::platform::{Attachment, Claimed, Hardware, HookError, Platform, ResetKind, ResetScope};
use crate::registry::{Claim, Closing, Departed, Hold};

/// A device that only this transition may touch.
pub(super) trait InHand<D>: Claimed<D> {
    /// It was reported gone: its hardware may not be touched any more.
    fn is_gone(&self) -> bool;

    /// Puts back what the binding had set up: the transition did not come to its steps.
    fn give_back(&self, bound: Bound<D>);
}

impl<P: Platform> Claimed<P::Data> for Claim<Device<P>, P::Lock> {
    fn address(&self) -> Sbdf {
        self.address()
    }

    fn with(&self, step: &mut dyn FnMut(&mut P::Data)) {
        // It fails only for a thread that holds the device's lock already, and a transition begins by taking it.
        let ran = self.with(|device, _| step(device.data_mut()));
        debug_assert!(ran.is_ok(), "a hook called from inside the device");
    }
}

impl<P: Platform> InHand<P::Data> for Claim<Device<P>, P::Lock> {
    fn is_gone(&self) -> bool {
        self.is_gone_by_now()
    }

    fn give_back(&self, bound: Bound<P::Data>) {
        let given = self.with(|device, _| device.bound = bound);
        debug_assert!(given.is_ok(), "given back from inside the device");
    }
}

/// A device that is not known yet.
pub(super) struct Newcomer<D> {
    pub(super) address: Sbdf,
    pub(super) data: RefCell<D>,
}

impl<D> Claimed<D> for Newcomer<D> {
    fn address(&self) -> Sbdf {
        self.address
    }

    fn with(&self, step: &mut dyn FnMut(&mut D)) {
        if let Ok(mut data) = self.data.try_borrow_mut() {
            step(&mut data);
        }
    }
}

impl<D> InHand<D> for Newcomer<D> {
    fn is_gone(&self) -> bool {
        false
    }

    fn give_back(&self, _: Bound<D>) {}
}

/// A device that is closed and on its way out. Dropping it gives the device back.
pub(super) struct Leaver<'a, P: Platform> {
    /// `None` once it has left.
    closing: RefCell<Option<Closing<'a, Device<P>, P::Lock>>>,
    /// Its uses of members of the same set; theirs is the count at which those close.
    links: Links<P>,
    address: Sbdf,
}

impl<'a, P: Platform> Leaver<'a, P> {
    /// A device that leaves alone.
    pub(super) fn new(closing: Closing<'a, Device<P>, P::Lock>) -> Self {
        Self::among(closing, &[])
    }

    /// A device that leaves with others.
    pub(super) fn among(mut closing: Closing<'a, Device<P>, P::Lock>, set: &[Sbdf]) -> Self {
        let address = closing.address();
        let links = closing.data(|device| {
            let Links { bridge, pf } = &mut device.links;
            let is_member = |link: &mut Link<P>| set.contains(&link.address());
            Links { bridge: bridge.take_if(is_member), pf: pf.take_if(is_member) }
        });
        Self { closing: RefCell::new(Some(closing)), links, address }
    }

    /// How many uses of this member it has.
    pub(super) fn holds(&self, member: Sbdf) -> u32 {
        let links = [&self.links.bridge, &self.links.pf];
        links.into_iter().flatten().map(|link| u32::from(link.address() == member)).sum()
    }

    fn device<R>(&self, step: impl FnOnce(&mut Device<P>) -> R) -> Option<R> {
        self.closing.try_borrow_mut().ok()?.as_mut().map(|closing| closing.data(step))
    }

    /// What the steps of leaving need.
    pub(super) fn work(&self) -> Option<Work<'_, P>> {
        let owner = self.closing.try_borrow_mut().ok()?.as_mut()?.owner();
        self.device(|device| {
            let bound = core::mem::take(&mut device.bound);
            let mut work = Work::new(self, device.known.clone(), bound, owner, Owner::Unowned);
            work.msix_table = device.condition.msix_table;
            work
        })
    }

    /// The device stays, with what it had; broken, if something says so.
    pub(super) fn stay(&self, bound: Bound<P::Data>, broken: Option<HookError>) {
        self.device(|device| {
            device.bound = bound;
            device.condition.broken = device.condition.broken.or(broken);
        });
    }

    /// What is known of it; `None` once it has left.
    pub(super) fn known(&self) -> Option<Shared<Known<P::Lock>>> {
        self.device(|device| device.known.clone())
    }

    /// Unlinks and destroys the device. Its uses of members end without a put: they were counted as theirs.
    pub(super) fn finish(mut self) {
        let links = [self.links.bridge.take(), self.links.pf.take()];
        links.into_iter().flatten().for_each(Hold::forfeit);
        if let Some(closing) = self.closing.get_mut().take() {
            closing.finish();
        }
    }
}

impl<P: Platform> Drop for Leaver<'_, P> {
    fn drop(&mut self) {
        let Links { bridge, pf } = &mut self.links;
        let (bridge, pf) = (bridge.take(), pf.take());
        self.device(|device| {
            device.links.bridge = bridge.or(device.links.bridge.take());
            device.links.pf = pf.or(device.links.pf.take());
        });
    }
}

impl<P: Platform> Claimed<P::Data> for Leaver<'_, P> {
    fn address(&self) -> Sbdf {
        self.address
    }

    fn with(&self, step: &mut dyn FnMut(&mut P::Data)) {
        self.device(|device| step(device.data_mut()));
    }
}

impl<P: Platform> InHand<P::Data> for Leaver<'_, P> {
    fn is_gone(&self) -> bool {
        false
    }

    fn give_back(&self, bound: Bound<P::Data>) {
        self.device(|device| device.bound = bound);
    }
}

/// A device that is gone, while it is cleared up after it.
impl<P: Platform> Claimed<P::Data> for Departed<Device<P>, P::Lock> {
    fn address(&self) -> Sbdf {
        self.address()
    }

    fn with(&self, step: &mut dyn FnMut(&mut P::Data)) {
        let ran = self.with(|device| step(device.data_mut()));
        debug_assert!(ran.is_ok(), "a hook called from inside the device");
    }
}

/// One member of a transition.
pub(super) struct Work<'a, P: Platform> {
    pub(super) hand: &'a dyn InHand<P::Data>,
    pub(super) address: Sbdf,
    pub(super) known: Shared<Known<P::Lock>>,
    pub(super) from: Owner,
    pub(super) to: Owner,
    /// What the old binding set up.
    pub(super) bound: Bound<P::Data>,
    /// How many of it an earlier transition had undone, when it broke the device.
    undone_before: usize,
    /// Requester IDs whose entries devices outside the set need too.
    pub(super) keeps: Vec<Sbdf>,
    /// What the new owner sees.
    pub(super) view: Option<Box<dyn Attachment<P::Data>>>,
    pub(super) quiesced: Option<Quiesced>,
    /// The reset it is the first member of, if the transition resets.
    pub(super) reset: Option<ResetScope>,
    pub(super) reset_kind: Option<ResetKind>,
    /// The host has its MSI-X table.
    pub(super) msix_table: bool,
    /// Whether the host has the table since a step of this transition.
    pub(super) msix_mapped: Option<bool>,
    /// Under how many requester IDs it may reach the new owner.
    pub(super) attached: usize,
    /// It may have reached the new owner at some time of this transition.
    pub(super) reached: bool,
    /// What was undone in the IOMMU may not be in effect.
    pub(super) unflushed: bool,
    /// A step of this device could not be undone.
    pub(super) broken: Option<HookError>,
}

impl<'a, P: Platform> Work<'a, P> {
    pub(super) fn new(
        hand: &'a dyn InHand<P::Data>,
        known: Shared<Known<P::Lock>>,
        bound: Bound<P::Data>,
        from: Owner,
        to: Owner,
    ) -> Self {
        Self {
            hand,
            address: hand.address(),
            known,
            from,
            to,
            undone_before: bound.undone,
            bound,
            keeps: Vec::new(),
            view: None,
            quiesced: None,
            reset: None,
            reset_kind: None,
            msix_table: false,
            msix_mapped: None,
            attached: 0,
            reached: false,
            unflushed: false,
            broken: None,
        }
    }

    /// Runs `step`, which reads and writes configuration space, under the device's lock.
    pub(super) fn with_config<R>(&self, step: impl Fn(&Known<P::Lock>) -> R) -> Option<R> {
        let mut result = None;
        self.hand.with(&mut |_| result = Some(step(&self.known)));
        result
    }

    /// Whether it is a member of this group.
    pub(super) fn is_of(&self, group: &Group<P::Lock>) -> bool {
        self.known.group.as_ref().is_some_and(|own| own.key == group.key)
    }

    /// How many attachments are in effect when the transition begins.
    pub(super) fn attachments(&self) -> usize {
        self.bound.len() - self.undone_before
    }

    /// Undoes an attachment, counted from the last that is in effect.
    pub(super) fn undo_attachment(&mut self, item: usize) -> Result<(), HookError> {
        let place = self.undone_before + item;
        let Some(attachment) = self.bound.nth_from_last(place) else { return Ok(()) };
        attachment.undo(self.hand, Hardware::Present)?;
        self.bound.undone = place + 1;
        Ok(())
    }

    pub(super) fn redo_attachment(&mut self, item: usize) -> Result<(), HookError> {
        let place = self.undone_before + item;
        if let Some(attachment) = self.bound.nth_from_last(place) {
            attachment.redo(self.hand)?;
            self.bound.undone = place;
        }
        Ok(())
    }

    pub(super) fn undo_bind(&mut self) -> Result<(), HookError> {
        match self.view.take() {
            Some(mut view) => view.undo(self.hand, Hardware::Present),
            None => Ok(()),
        }
    }

    /// Whether the DMA of a broken device may still reach a guest that had it, or was to have it.
    pub(super) fn is_stranded(&self) -> bool {
        let reached = self.to.guest().is_some() && (self.attached > 0 || self.reached && self.unflushed);
        self.broken.is_some() && (self.from.guest().is_some() || reached)
    }

    /// The guest that has to be stopped, should the device be broken.
    pub(super) fn endangered(&self) -> Option<crate::DomainId> {
        if self.is_stranded() { self.to.guest().or(self.from.guest()) } else { None }
    }
}

impl<P: Platform> Drop for Work<'_, P> {
    fn drop(&mut self) {
        if self.bound.len() > 0 {
            self.hand.give_back(core::mem::take(&mut self.bound));
        }
    }
}
