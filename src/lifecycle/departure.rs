//! What is left to do when a device is gone: attachments without hardware, IOMMU entries that still name it. The same
//! is left of a device that could not be added, when that could not be undone either.
//!
//! Its address is free only when that is done (the holder named "dma teardown"). Whoever has the device in hand does
//! it: the transition that claimed it, else the one who reports it gone. What fails waits in a queue, and
//! [`Lifecycle::run_deferred`] tries again. The memory for all of it was allocated when the device was added.

use alloc::boxed::Box;

use super::Lifecycle;
use super::device::{Bound, Device, Effect};
use super::known::Known;
use super::requester::RequesterClaims;
use super::transaction::guarded;
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::{NoMemory, Shared, try_box};
use crate::platform::{Attachment, Claimed, Hardware, HookError, Platform};
use crate::registry::Departed;
use crate::sync::unexplored::AtomicU64;
use crate::sync::{Lock, Ordering};

/// Somebody who shares a requester ID comes or leaves: later it is known whether its entry is needed.
const SHARED_ID_BUSY: HookError =
    HookError::new(Errno::EBUSY, "a device that shares a requester ID is under way");

/// A device that could not be added: unknown, and there is no data of it any more.
struct Stray(Sbdf);

impl<D> Claimed<D> for Stray {
    fn address(&self) -> Sbdf {
        self.0
    }

    fn with(&self, _: &mut dyn FnMut(&mut D)) {}
}

/// What one device leaves behind.
pub(super) struct Departure<P: Platform> {
    pub(super) known: Shared<Known<P::Lock>>,
    departed: Option<Departed<Device<P>, P::Lock>>,
    /// In its place.
    stray: Option<Stray>,
    pub(super) bound: Bound<P::Data>,
    view: Option<Box<dyn Attachment<P::Data>>>,
    /// The machine's maps have forgotten the device.
    pub(super) left_maps: bool,
    /// The host has its MSI-X table.
    pub(super) msix_table: bool,
    /// How many requester IDs are cleared.
    cleared: usize,
    /// Who is going to make the first attempt; 0 once it was made.
    reserved: u64,
    /// The last round in which it was tried.
    round: u64,
    next: Option<Box<Departure<P>>>,
}

impl<P: Platform> Departure<P> {
    pub(super) fn try_new(known: Shared<Known<P::Lock>>) -> Result<Box<Self>, NoMemory> {
        let (departed, bound, view, next) = (None, Bound::default(), None, None);
        try_box(Self {
            known,
            departed,
            stray: None,
            bound,
            view,
            left_maps: false,
            msix_table: false,
            cleared: 0,
            reserved: 0,
            round: 0,
            next,
        })
    }

    /// One attempt at everything that is not done yet.
    fn attempt(&mut self, lifecycle: &Lifecycle<P>) -> Result<(), HookError> {
        let platform = lifecycle.platform();
        let (hand, hardware): (&dyn Claimed<P::Data>, _) = match (&self.departed, &self.stray) {
            (Some(departed), _) => (departed, Hardware::Gone),
            (None, Some(stray)) => (stray, Hardware::Present),
            (None, None) => return Ok(()),
        };
        let device = hand.address();
        if let Some(view) = &mut self.view {
            guarded(|| view.undo(hand, hardware))?;
            self.view = None;
        }
        for place in 0..self.bound.len() {
            if let Some(entry) = self.bound.nth_from_last(place)
                && entry.effect == Effect::On
            {
                guarded(|| entry.attachment.undo(hand, hardware))?;
                entry.effect = Effect::Undone;
            }
        }
        if self.msix_table {
            guarded(|| platform.msix_release(device))?;
            self.msix_table = false;
        }
        while let Some(requester) = self.known.requesters.get(self.cleared) {
            let claim = RequesterClaims::of_one(lifecycle, *requester).ok_or(SHARED_ID_BUSY)?;
            if !lifecycle.is_needed(*requester) {
                guarded(|| platform.iommu_detach(device, *requester))?;
            }
            drop(claim);
            self.cleared += 1;
        }
        guarded(|| platform.iommu_flush(device))
    }
}

/// Departures that wait for their first attempt, or for another one. Whoever makes an attempt takes one out and no
/// more, so a hook that hangs keeps none of the others waiting.
pub(super) struct Departures<P: Platform> {
    first: Lock<Option<Box<Departure<P>>>, P::Lock>,
    /// Numbers given out so far.
    numbers: AtomicU64,
}

impl<P: Platform> Departures<P> {
    pub(super) fn new() -> Self {
        Self { first: Lock::new(None), numbers: AtomicU64::new(0) }
    }

    /// A number for one round of attempts, higher than those before.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Puts a departure among those that wait, under the number of whoever is going to make its first attempt.
    pub(super) fn wait(
        &self,
        mut departure: Box<Departure<P>>,
        departed: Departed<Device<P>, P::Lock>,
        number: u64,
    ) {
        departure.departed = Some(departed);
        departure.reserved = number;
        self.push(departure);
    }

    fn push(&self, mut departure: Box<Departure<P>>) {
        let mut first = self.first.lock();
        departure.next = first.take();
        *first = Some(departure);
    }

    /// Takes out the first that fits.
    fn take(&self, fits: impl Fn(&Departure<P>) -> bool) -> Option<Box<Departure<P>>> {
        let mut first = self.first.lock();
        let mut place = &mut *first;
        while place.as_ref().is_some_and(|departure| !fits(departure)) {
            place = &mut place.as_mut()?.next;
        }
        let mut taken = place.take()?;
        *place = taken.next.take();
        Some(taken)
    }
}

impl<P: Platform> Drop for Departures<P> {
    fn drop(&mut self) {
        // One by one: a chain that drops itself needs a stack as deep as it is long.
        while let Some(departure) = self.take(|_| true) {
            drop(departure);
        }
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

    /// Leaves to [`run_deferred`](Self::run_deferred) what is left of a device that could not be added. The maps have
    /// forgotten it; who comes to its address before that is done takes its entries over.
    pub(super) fn leave_stray(
        &self,
        mut departure: Box<Departure<P>>,
        address: Sbdf,
        view: Option<Box<dyn Attachment<P::Data>>>,
    ) {
        departure.stray = Some(Stray(address));
        departure.view = view;
        departure.left_maps = true;
        self.departures().push(departure);
    }

    /// Does it for all that wait under this number.
    pub(super) fn clear_up_all(&self, number: u64) {
        while let Some(departure) = self.departures().take(|departure| departure.reserved == number) {
            self.try_departure(departure);
        }
    }

    /// One attempt. Afterwards the departure is done, or waits for the next round.
    fn try_departure(&self, mut departure: Box<Departure<P>>) -> bool {
        (departure.reserved, departure.round) = (0, self.departures().numbers.load(Ordering::Relaxed));
        if let Some(Stray(address)) = departure.stray {
            let done = departure.attempt(self);
            if done.is_err() {
                self.departures().push(departure);
            }
            self.departure_tried(address, done);
            return done.is_ok();
        }
        let Some(address) = departure.departed.as_ref().map(Departed::address) else { return true };
        if !departure.left_maps {
            // Once: what the maps hold of the address when it is free is the next device's.
            self.leave_maps(address, &departure.known);
            departure.left_maps = true;
        }
        let done = departure.attempt(self);
        let Some(departed) = departure.departed.take() else { return true };
        let freed = done.is_ok() && {
            self.forget(address, &departure.known);
            // A thread that holds the lock of the device that is gone keeps the address until it drops it.
            departed.release_address().is_ok()
        };
        if freed {
            drop((departure, departed));
        } else {
            departure.departed = Some(departed);
            self.departures().push(departure);
        }
        if freed || done.is_err() {
            self.departure_tried(address, done);
        }
        freed
    }

    /// Tries again what failed when devices were gone; the number of those that failed again.
    pub(super) fn retry_departures(&self) -> usize {
        let round = self.departures().number();
        let mut left = 0;
        while let Some(departure) = self.departures().take(|departure| departure.round < round) {
            left += usize::from(!self.try_departure(departure));
        }
        left
    }
}

/// The addresses that a device's IOMMU entries still keep from others.
pub(super) fn is_kept<P: Platform>(lifecycle: &Lifecycle<P>, requester: Sbdf) -> bool {
    lifecycle.real_function(requester).is_some_and(|device| lifecycle.registry().is_kept(device))
}
