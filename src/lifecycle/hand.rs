//! A device in the hands of a transition: how its data is reached, and what the transition has done with it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::device::{Bound, Condition, Device, Effect, Link, Links};
use super::group::Group;
use super::known::Known;
use super::registers::Quiesced;
use crate::Sbdf;
use crate::memory::{Few, Shared};
use crate::owner::Owner;
use crate::platform::{Attachment, Binding, Claimed, Hardware, HookError, Platform, ResetKind, ResetScope};
use crate::registry::{Claim, Closing, Departed, Hold};

/// A device that only this transition may touch.
pub(super) trait InHand<D>: Claimed<D> {
    /// It was reported gone: its hardware may not be touched any more.
    fn is_gone(&self) -> bool;

    /// Runs `step` on the device's flags under its lock.
    fn with_condition(&self, step: &mut dyn FnMut(&mut Condition));

    /// Takes back what the transition has in hand of the device: it ended before its end, or did not come to its steps.
    fn give_back(&self, rest: Rest<D>);
}

/// What a transition has in hand of a device.
pub(super) struct Rest<D> {
    /// What the old binding set up.
    pub(super) bound: Bound<D>,
    /// What the new owner was to see, and could not be kept from seeing.
    pub(super) view: Binding<D>,
    /// Why the device is broken.
    pub(super) broken: Option<HookError>,
}

impl<D> Rest<D> {
    /// The device stays where it was, with what it had.
    pub(super) fn settle(self, bound: &mut Bound<D>, condition: &mut Condition) {
        *bound = self.bound;
        bound.keep(self.view);
        condition.broken = condition.broken.or(self.broken);
    }
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

    fn with_condition(&self, step: &mut dyn FnMut(&mut Condition)) {
        let ran = self.with(|device, _| step(&mut device.condition));
        debug_assert!(ran.is_ok(), "a step called from inside the device");
    }

    fn give_back(&self, rest: Rest<P::Data>) {
        let given = self.with(|device, _| rest.settle(&mut device.bound, &mut device.condition));
        debug_assert!(given.is_ok(), "given back from inside the device");
    }
}

/// A device that is not known yet.
pub(super) struct Newcomer<D> {
    pub(super) address: Sbdf,
    pub(super) data: RefCell<D>,
    /// What is left of an add that could not be undone.
    pub(super) left: RefCell<Option<Rest<D>>>,
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

    fn with_condition(&self, step: &mut dyn FnMut(&mut Condition)) {
        step(&mut Condition::default());
    }

    fn give_back(&self, rest: Rest<D>) {
        if let Ok(mut left) = self.left.try_borrow_mut() {
            *left = Some(rest);
        }
    }
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
            work.was_broken = device.condition.broken.is_some();
            work
        })
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

impl<P: Platform> Leaver<'_, P> {
    /// The device stays. Whether it was reported gone meanwhile: then it may not.
    pub(super) fn reopen(mut self) -> bool {
        self.take_links_back();
        self.closing.get_mut().take().is_some_and(Closing::reopen)
    }

    /// This one does not leave with it, it has gone: what it holds of that is a use like any other.
    pub(super) fn leave_without(&mut self, other: Sbdf) {
        let is_other = |link: &mut Link<P>| link.address() == other;
        let Links { bridge, pf } = &mut self.links;
        let links = Links { bridge: bridge.take_if(is_other), pf: pf.take_if(is_other) };
        self.give_links_back(links);
    }

    fn take_links_back(&mut self) {
        let Links { bridge, pf } = &mut self.links;
        let links = Links { bridge: bridge.take(), pf: pf.take() };
        self.give_links_back(links);
    }

    fn give_links_back(&mut self, Links { bridge, pf }: Links<P>) {
        self.device(|device| {
            device.links.bridge = bridge.or(device.links.bridge.take());
            device.links.pf = pf.or(device.links.pf.take());
        });
    }
}

impl<P: Platform> Drop for Leaver<'_, P> {
    fn drop(&mut self) {
        self.take_links_back();
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
        let closing = self.closing.try_borrow();
        closing.is_ok_and(|closing| closing.as_ref().is_some_and(Closing::is_lost))
    }

    fn with_condition(&self, step: &mut dyn FnMut(&mut Condition)) {
        self.device(|device| step(&mut device.condition));
    }

    fn give_back(&self, rest: Rest<P::Data>) {
        self.device(|device| rest.settle(&mut device.bound, &mut device.condition));
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

/// The members of a transition.
pub(super) type Works<'a, P> = Few<Work<'a, P>, 1>;

/// One member of a transition.
#[expect(clippy::struct_excessive_bools, reason = "each says one thing that a step found or did")]
pub(super) struct Work<'a, P: Platform> {
    pub(super) hand: &'a dyn InHand<P::Data>,
    pub(super) address: Sbdf,
    pub(super) known: Shared<Known<P::Lock>>,
    pub(super) from: Owner,
    pub(super) to: Owner,
    /// What the old binding set up.
    pub(super) bound: Bound<P::Data>,
    /// Requester IDs whose entries devices outside the set need too.
    pub(super) keeps: Vec<Sbdf>,
    /// What the new owner sees.
    pub(super) view: Option<Box<dyn Attachment<P::Data>>>,
    pub(super) quiesced: Quiesced,
    /// Address translation services were on.
    pub(super) had_ats: bool,
    /// The reset it is the first member of, if the transition resets.
    pub(super) reset: Option<ResetScope>,
    pub(super) reset_kind: Option<ResetKind>,
    /// The reset it still needs since a guest had it: before the transition, and then after it.
    pub(super) unreset: Option<ResetScope>,
    /// The host has its MSI-X table.
    pub(super) msix_table: bool,
    /// It was broken before: who knows what entries it has.
    pub(super) was_broken: bool,
    /// Whether the host has the table since a step of this transition.
    pub(super) msix_mapped: Option<bool>,
    /// Under how many requester IDs it may reach the new owner.
    pub(super) attached: usize,
    /// It may have reached the new owner at some time of this transition.
    pub(super) reached: bool,
    /// What was undone in the IOMMU may not be in effect.
    pub(super) unflushed: bool,
    /// The attachment whose end has just failed is as it was before.
    pub(super) is_intact: bool,
    /// A step of this device could not be undone.
    pub(super) broken: Option<HookError>,
    /// The device has what it is to have: nothing of it is left in hand.
    pub(super) is_settled: bool,
}

impl<'a, P: Platform> Work<'a, P> {
    pub(super) fn new(
        hand: &'a dyn InHand<P::Data>,
        known: Shared<Known<P::Lock>>,
        mut bound: Bound<P::Data>,
        from: Owner,
        to: Owner,
    ) -> Self {
        bound.begin();
        Self {
            hand,
            address: hand.address(),
            known,
            from,
            to,
            bound,
            keeps: Vec::new(),
            view: None,
            quiesced: Quiesced::default(),
            had_ats: false,
            reset: None,
            reset_kind: None,
            unreset: None,
            msix_table: false,
            was_broken: false,
            msix_mapped: None,
            attached: 0,
            reached: false,
            unflushed: false,
            is_intact: false,
            broken: None,
            is_settled: false,
        }
    }

    /// Whether something is so of the device now, as its flags say.
    pub(super) fn is(&self, what: impl Fn(&Condition) -> bool) -> bool {
        let mut is = false;
        self.hand.with_condition(&mut |condition| is = what(condition));
        is
    }

    /// Runs `step`, which reads and writes configuration space, under the device's lock.
    pub(super) fn with_config(&mut self, mut step: impl FnMut(&Known<P::Lock>, &mut Quiesced)) {
        let (known, quiesced) = (&*self.known, &mut self.quiesced);
        self.hand.with(&mut |_| step(known, quiesced));
    }

    /// Whether it is a member of this group.
    pub(super) fn is_of(&self, group: &Group<P::Lock>) -> bool {
        self.known.group.as_ref().is_some_and(|own| own.key == group.key)
    }

    /// Undoes an attachment, counted from the last.
    pub(super) fn undo_attachment(&mut self, place: usize) -> Result<(), HookError> {
        if let Some(entry) = self.bound.nth_from_last(place)
            && entry.effect == Effect::On
        {
            self.is_intact = false;
            if let Err(error) = entry.attachment.undo(self.hand, Hardware::Present) {
                self.is_intact = entry.attachment.is_intact();
                return Err(error);
            }
            entry.effect = Effect::Undone;
        }
        Ok(())
    }

    pub(super) fn redo_attachment(&mut self, place: usize) -> Result<(), HookError> {
        if let Some(entry) = self.bound.nth_from_last(place)
            && entry.effect == Effect::Undone
        {
            entry.attachment.redo(self.hand)?;
            entry.effect = Effect::On;
        }
        Ok(())
    }

    /// If it fails the view is still there: nobody knows what its owner sees.
    pub(super) fn undo_bind(&mut self) -> Result<(), HookError> {
        if let Some(view) = &mut self.view {
            view.undo(self.hand, Hardware::Present)?;
        }
        self.view = None;
        Ok(())
    }

    /// Whether its requests may reach the new owner: it is attached there, or was and that is still cached.
    pub(super) fn is_exposed(&self) -> bool {
        self.attached > 0 || self.reached && self.unflushed
    }

    /// Whether the DMA of a broken device may still reach a guest that had it, or was to have it.
    pub(super) fn is_stranded(&self) -> bool {
        let reached = self.to.guest().is_some() && self.is_exposed();
        self.broken.is_some() && (self.from.guest().is_some() || reached)
    }

    /// The guest that has to be stopped, should the device be broken.
    pub(super) fn endangered(&self) -> Option<crate::DomainId> {
        if self.is_stranded() { self.to.guest().or(self.from.guest()) } else { None }
    }
}

impl<P: Platform> Drop for Work<'_, P> {
    fn drop(&mut self) {
        if !self.is_settled && (self.bound.len() > 0 || self.view.is_some() || self.broken.is_some()) {
            let (bound, view) = (core::mem::take(&mut self.bound), self.view.take());
            self.hand.give_back(Rest { bound, view, broken: self.broken });
        }
    }
}
