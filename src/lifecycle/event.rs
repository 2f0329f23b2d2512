//! What happened to which device, for whoever watches.
//!
//! Transitions are reported while the device is still claimed, so the reports of one device come in order, and a
//! subscriber that asks for another transition of it gets `Busy`. Devices that go and faults do not wait for claims;
//! every event of a device has a sequence number, by which they can be told apart and sorted.
//!
//! Without a subscriber nothing is gathered and the clock is not read. With the feature `tracing` every event is
//! also a `tracing` event of the target `pcidevs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Lifecycle;
use super::error::TransitionError;
use super::hand::Work;
use super::transaction::guarded;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::{HookError, Platform};
use crate::sync::unexplored::AtomicUsize;
use crate::sync::{Lock, Ordering, RawLock};
use crate::transition::Transition;

/// One thing that happened to one device.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What.
    pub what: What<'a>,
    /// To which device.
    pub device: Sbdf,
    /// Counts the events of this address, from 1.
    pub sequence: u64,
    /// By the platform's clock, in nanoseconds.
    pub at: u64,
    /// On whose behalf, as named with [`Lifecycle::by`].
    pub by: &'static str,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum What<'a> {
    /// A transition ended.
    Transition {
        /// Which one.
        transition: Transition,
        /// Whose the device was; `None` if it was not known.
        from: Option<Owner>,
        /// Whose it is, or should have become; `None` if it is not known any more.
        to: Option<Owner>,
        /// Why it did not happen, if it did not.
        error: Option<&'a TransitionError>,
        /// How long it took, in nanoseconds.
        duration: u64,
    },
    /// Its removal was asked for: it gets no new uses, and waits for the last one to go.
    RemovalBegun,
    /// The removal that waited was given up: the device is back as it was.
    RemovalCancelled,
    /// The device was reported gone.
    Gone,
    /// Nothing of a device that was gone can reach memory any more: its address is free.
    Cleared,
    /// Clearing up after a device that was gone failed; it will be tried again.
    NotCleared(HookError),
    /// It faulted; so many faults in a short time.
    Fault(u32),
    /// It faulted too often: its bus mastering was switched off.
    Silenced,
    /// It is broken.
    Broken(HookError),
    /// The guest was asked to let it go.
    UnplugAsked,
    /// The guest refused, or did not answer in time.
    UnplugRefused,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} by {}: ", self.device, self.sequence, self.by)?;
        match self.what {
            What::Transition { transition, from, to, error, duration } => {
                write!(f, "{transition}")?;
                if let Some(from) = from {
                    write!(f, " from {from}")?;
                }
                if let Some(to) = to {
                    write!(f, " to {to}")?;
                }
                write!(f, " in {duration} ns")?;
                error.map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            What::RemovalBegun => f.write_str("its removal waits for its last use"),
            What::RemovalCancelled => f.write_str("its removal was cancelled"),
            What::Gone => f.write_str("gone"),
            What::Cleared => f.write_str("cleared up"),
            What::NotCleared(error) => write!(f, "not cleared up yet: {error}"),
            What::Fault(count) => write!(f, "fault {count}"),
            What::Silenced => f.write_str("too many faults, bus mastering is off"),
            What::Broken(error) => write!(f, "broken: {error}"),
            What::UnplugAsked => f.write_str("the guest was asked to let it go"),
            What::UnplugRefused => f.write_str("the guest does not let it go"),
        }
    }
}

/// Called for every event, on the thread on which it happened, with no lock held. That it panics changes nothing.
pub type Subscriber = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Names a subscription, to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription(u64);

/// Those who watch.
pub(super) struct Subscribers<L: RawLock> {
    list: Lock<List, L>,
    /// How many there are; read before anything is gathered.
    count: AtomicUsize,
}

struct List {
    subscribers: Vec<(u64, Subscriber)>,
    next: u64,
}

impl<L: RawLock> Subscribers<L> {
    pub(super) fn new() -> Self {
        let list = List { subscribers: Vec::new(), next: 0 };
        Self { list: Lock::new(list), count: AtomicUsize::new(0) }
    }

    fn are_there(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    fn add(&self, subscriber: Subscriber) -> Result<Subscription, NoMemory> {
        let mut list = self.list.lock();
        list.subscribers.try_reserve(1)?;
        let number = list.next;
        list.next += 1;
        list.subscribers.push((number, subscriber));
        self.count.store(list.subscribers.len(), Ordering::Relaxed);
        Ok(Subscription(number))
    }

    fn remove(&self, subscription: Subscription) -> Option<Subscriber> {
        let mut list = self.list.lock();
        let place = list.subscribers.iter().position(|(number, _)| *number == subscription.0)?;
        let (_, subscriber) = list.subscribers.remove(place);
        self.count.store(list.subscribers.len(), Ordering::Relaxed);
        Some(subscriber)
    }

    /// The first subscriber from this number on.
    fn from(&self, number: u64) -> Option<(u64, Subscriber)> {
        let list = self.list.lock();
        list.subscribers.iter().find(|(other, _)| *other >= number).cloned()
    }

    fn tell(&self, event: &Event<'_>) {
        let mut next = 0;
        // One at a time, so that nothing is allocated and no lock is held while they run.
        while let Some((number, subscriber)) = self.from(next) {
            // One that panics has told its panic hook, and is not in the way of the transition it was told of.
            let _told = guarded(|| {
                subscriber(event);
                Ok(())
            });
            next = number + 1;
        }
    }
}

impl<P: Platform> Lifecycle<P> {
    /// Has `subscriber` called for every event from now on.
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, NoMemory> {
        self.subscribers().add(subscriber)
    }

    /// Ends a subscription; `false` if it had ended. A call that is under way on another thread ends by itself.
    pub fn unsubscribe(&self, subscription: Subscription) -> bool {
        self.subscribers().remove(subscription).is_some()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.platform().reports_events() && (self.subscribers().are_there() || traced())
    }

    /// Reports what happened to a device.
    pub(super) fn report(&self, device: Sbdf, what: What<'_>) {
        if self.is_watched() {
            let at = self.platform().now();
            let event = Event { what, device, sequence: self.next_sequence(device), at, by: self.name() };
            trace(&event);
            self.subscribers().tell(&event);
        }
    }

    /// After an attempt to clear up after a device that is gone.
    pub(super) fn departure_tried(&self, device: Sbdf, done: Result<(), HookError>) {
        self.report(device, done.map_or_else(What::NotCleared, |()| What::Cleared));
    }
}

/// One transition, from its first check to its report.
pub(super) struct Span<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    transition: Transition,
    began: u64,
}

impl<'a, P: Platform> Span<'a, P> {
    pub(super) fn begin(lifecycle: &'a Lifecycle<P>, transition: Transition) -> Self {
        let began = if lifecycle.is_watched() { lifecycle.platform().now() } else { 0 };
        Self { lifecycle, transition, began }
    }

    /// The transition of one device ended.
    pub(super) fn report(
        &self,
        device: Sbdf,
        from: Option<Owner>,
        to: Option<Owner>,
        error: Option<&TransitionError>,
    ) {
        if self.lifecycle.is_watched() {
            let duration = self.lifecycle.platform().now().saturating_sub(self.began);
            let what = What::Transition { transition: self.transition, from, to, error, duration };
            self.lifecycle.report(device, what);
        }
    }

    /// Reports a transition of one device that would have left it with its owner, and was refused.
    pub(super) fn refused<R>(
        &self,
        device: Sbdf,
        result: Result<R, TransitionError>,
    ) -> Result<R, TransitionError> {
        if let Err(error) = &result {
            let owner = self.lifecycle.lock(device).ok().map(|device| device.owner());
            self.report(device, owner, owner, Some(error));
        }
        result
    }

    /// The transition of a member of a set ended.
    pub(super) fn ended(&self, member: &Work<'_, P>, error: Option<&TransitionError>) {
        self.report(member.address, Some(member.from), Some(member.to), error);
        if let Some(because) = member.broken {
            self.lifecycle.report(member.address, What::Broken(because));
        }
    }
}

#[cfg(feature = "tracing")]
fn traced() -> bool {
    tracing::enabled!(target: "pcidevs", tracing::Level::INFO)
}

#[cfg(not(feature = "tracing"))]
const fn traced() -> bool {
    false
}

#[cfg(feature = "tracing")]
fn trace(event: &Event<'_>) {
    let Event { device, sequence, by, .. } = *event;
    match event.what {
        What::Transition { error: Some(_), .. } | What::Broken(_) | What::NotCleared(_) | What::Silenced => {
            tracing::warn!(target: "pcidevs", %device, sequence, by, "{event}");
        }
        _ => tracing::info!(target: "pcidevs", %device, sequence, by, "{event}"),
    }
}

#[cfg(not(feature = "tracing"))]
const fn trace(_: &Event<'_>) {}
