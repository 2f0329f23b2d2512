//! What is left to do when a device is gone: attachments without hardware, IOMMU entries that still name it.
//!
//! Its address is free only when that is done (the holder named "dma teardown"). Whoever has the device in hand does
//! it: the transition that claimed it, else the one who reports it gone. What fails waits in a queue, and
//! [`Lifecycle::run_deferred`] tries again. The memory for all of it was allocated when the device was added.

use alloc::boxed::Box;

use super::Lifecycle;
use super::device::{Bound, Device};
use super::known::Known;
use super::transaction::guarded;
use crate::Sbdf;
use crate::memory::{NoMemory, Shared, try_box};
use crate::platform::{Attachment, Claimed, Hardware, HookError, Platform};
use crate::registry::Departed;
use crate::sync::Lock;

/// What one device leaves behind.
pub(super) struct Departure<P: Platform> {
    /// Replaced when the device is added again.
    pub(super) known: Shared<Known<P::Lock>>,
    departed: Option<Departed<Device<P>, P::Lock>>,
    pub(super) bound: Bound<P::Data>,
    view: Option<Box<dyn Attachment<P::Data>>>,
    /// How many requester IDs are cleared.
    cleared: usize,
    next: Option<Box<Departure<P>>>,
}

impl<P: Platform> Departure<P> {
    pub(super) fn try_new(known: Shared<Known<P::Lock>>) -> Result<Box<Self>, NoMemory> {
        let (departed, bound, view, next) = (None, Bound::default(), None, None);
        try_box(Self { known, departed, bound, view, cleared: 0, next })
    }

    /// One attempt at everything that is not done yet.
    fn attempt(&mut self, platform: &P) -> Result<(), HookError> {
        let Some(departed) = &self.departed else { return Ok(()) };
        let device = departed.address();
        let hand: &dyn Claimed<P::Data> = departed;
        if let Some(view) = &mut self.view {
            guarded(|| view.undo(hand, Hardware::Gone))?;
            self.view = None;
        }
        while self.bound.undone < self.bound.len() {
            let place = self.bound.undone;
            if let Some(attachment) = self.bound.nth_from_last(place) {
                guarded(|| attachment.undo(hand, Hardware::Gone))?;
            }
            self.bound.undone = place + 1;
        }
        while let Some(requester) = self.known.requesters.get(self.cleared) {
            guarded(|| platform.iommu_detach(device, *requester))?;
            self.cleared += 1;
        }
        guarded(|| platform.iommu_flush(device))
    }
}

/// Departures that have to be tried again.
pub(super) struct Departures<P: Platform>(Lock<Option<Box<Departure<P>>>, P::Lock>);

impl<P: Platform> Departures<P> {
    pub(super) fn new() -> Self {
        Self(Lock::new(None))
    }

    fn push(&self, mut departure: Box<Departure<P>>) {
        let mut first = self.0.lock();
        departure.next = first.take();
        *first = Some(departure);
    }

    fn take_all(&self) -> Option<Box<Departure<P>>> {
        self.0.lock().take()
    }
}

impl<P: Platform> Lifecycle<P> {
    /// Does what a device that is gone has left to be done.
    pub(super) fn clear_up(
        &self,
        mut departure: Box<Departure<P>>,
        departed: Departed<Device<P>, P::Lock>,
        view: Option<Box<dyn Attachment<P::Data>>>,
    ) {
        departure.view = view;
        departure.departed = Some(departed);
        self.try_departure(departure);
    }

    fn try_departure(&self, mut departure: Box<Departure<P>>) -> bool {
        let done = departure.attempt(self.platform());
        let address = departure.departed.as_ref().map(Departed::address);
        if let Some(address) = address {
            self.departure_tried(address, done);
        }
        match done {
            Ok(()) => {
                if let Some(departed) = departure.departed.take() {
                    self.forget(departed.address(), &departure.known);
                    // A thread that holds the lock of the device that is gone keeps the address until it drops it.
                    if departed.release_address().is_err() {
                        departure.departed = Some(departed);
                        self.departures().push(departure);
                        return false;
                    }
                }
                true
            }
            Err(_) => {
                self.departures().push(departure);
                false
            }
        }
    }

    /// Tries again what failed when devices were gone; the number that is still left.
    pub(super) fn retry_departures(&self) -> usize {
        let mut left = 0;
        let mut next = self.departures().take_all();
        while let Some(mut departure) = next {
            next = departure.next.take();
            left += usize::from(!self.try_departure(departure));
        }
        left
    }
}

/// The addresses that a device's IOMMU entries still keep from others.
pub(super) fn is_kept<P: Platform>(lifecycle: &Lifecycle<P>, requester: Sbdf) -> bool {
    lifecycle.real_function(requester).is_some_and(|device| lifecycle.registry().is_kept(device))
}
