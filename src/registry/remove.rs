//! A device is taken away: at once or not at all, by a ticket, or because the hardware is gone.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::Core;
use super::binding::{Owner, Place, Record};
use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::refcount::{
    BeginRefused, Busy, CloseRefused, Closed, Holder, Progress, Removal, Slot, State, Transition,
    WouldDeadlock,
};
use crate::sync::{RawLock, Site, weakened, with_default_lock};

/// Why a device was not removed. It is exactly as it was before the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No device is known there; nothing was made for the question (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// Somebody still uses it (EBUSY).
    #[error("{0}")]
    Busy(Busy),
    /// It is hidden, and hidden devices stay (EPERM).
    #[error("the device is hidden: it cannot be removed")]
    Denied,
    /// The calling thread holds its lock (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
    /// There was no memory for the ticket (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

fn in_removal(uses: u32) -> RemoveError {
    RemoveError::Busy(Busy::because(Holder::Transition(Transition::Remove), uses))
}

pub(super) fn remove<D, L: RawLock>(core: &Core<D, L>, address: Sbdf) -> Result<(), RemoveError> {
    let slot = core.arena.find(address).ok_or(RemoveError::NotFound(address))?;
    let closed =
        slot.close(|record| record.binding.place() != Place::Hidden).map_err(|refused| match refused {
            CloseRefused::NotPermitted => RemoveError::Denied,
            CloseRefused::Absent | CloseRefused::Gone => RemoveError::NotFound(address),
            CloseRefused::Closing => in_removal(0),
            CloseRefused::Removing { uses } => in_removal(uses),
            CloseRefused::Busy(busy) => RemoveError::Busy(busy),
            CloseRefused::WouldDeadlock => RemoveError::WouldDeadlock(WouldDeadlock),
        })?;
    tear_down(core, closed);
    Ok(())
}

/// Unlinks a closed device and runs its destructor; then its address is free.
pub(super) fn tear_down<D, L: RawLock>(core: &Core<D, L>, mut closed: Closed<'_, Record<D>, L>) {
    // Closing is the claim: no transition runs, so the binding is settled and stays.
    let owner = closed.value(|record| record.binding.place().owner());
    if let Some(domain) = core.owner(owner) {
        let left = domain.members.lock().list.remove(closed.slot());
        debug_assert!(
            left || weakened(Site::CloseChecksCount),
            "{:?} was on the list of {owner}",
            closed.slot()
        );
    }
    drop(closed);
}

pub(super) fn begin<D, L: RawLock>(
    core: &Shared<Core<D, L>>,
    address: Sbdf,
) -> Result<RemovalTicket<D, L>, RemoveError> {
    let slot = core.arena.find(address).ok_or(RemoveError::NotFound(address))?;
    let device = slot.lock()?.ok_or(RemoveError::NotFound(address))?;
    if device.binding.place() == Place::Hidden {
        return Err(RemoveError::Denied);
    }
    let removal = slot.begin_removal();
    drop(device);
    match removal {
        Ok(removal) => Ok(RemovalTicket { core: core.clone(), address, removal: Some(removal) }),
        Err(BeginRefused::NoMemory) => Err(NoMemory.into()),
        Err(BeginRefused::State(State::Removing)) => Err(in_removal(slot.busy().map_or(0, |busy| busy.uses))),
        Err(BeginRefused::State(_)) => Err(RemoveError::NotFound(address)),
    }
}

with_default_lock! {
    /// A removal that was asked for and waits for the last use to go.
    ///
    /// New uses of the device are refused while the ticket exists; locked access, so that a guest can quiesce what
    /// it is losing, goes on, and so does moving it away from its guest (to quarantine, never to a host driver).
    /// Dropping or cancelling the ticket gives the device back exactly as it was. A leaked ticket (`mem::forget`)
    /// leaves it in removal until it is reported gone.
    ///
    /// A ticket is a future. Without an executor, [`try_complete`](Self::try_complete) polls it and, under `std`,
    /// [`wait`](Self::wait) blocks. Whoever drives it runs the teardown; a put never does (R4, R9).
    ///
    /// ```
    /// use pcidevs::{Registry, Sbdf};
    /// let registry: Registry<()> = Registry::new()?;
    /// let address: Sbdf = "3a:00.0".parse()?;
    /// registry.add(address, ())?;
    /// let user = registry.get(address).ok_or("just added")?;
    ///
    /// let mut ticket = registry.begin_removal(address)?;
    /// assert!(registry.get(address).is_none(), "no new uses");
    /// assert!(!ticket.try_complete()?, "one is left");
    /// drop(user);
    /// assert!(ticket.try_complete()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct RemovalTicket<D; L> {
        core: Shared<Core<D, L>>,
        address: Sbdf,
        /// `None` once it has completed or resolved.
        removal: Option<Removal<Record<D>, L>>,
    }
}

/// How a ticket ended without removing the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The device was reported gone meanwhile: it has left, and is freed at its last put (ENODEV).
    #[error("the device was reported gone while its removal was pending")]
    Gone,
    /// The ticket has given its answer before.
    #[error("this removal is over")]
    Over,
    /// The calling thread holds the device's lock; the removal is still pending (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
    /// The deadline passed; the removal is still pending (ETIMEDOUT).
    #[error("the device is still in use at the deadline: wait on, or cancel")]
    TimedOut,
}

impl<D, L: RawLock> RemovalTicket<D, L> {
    /// The address of the device to be removed.
    pub fn address(&self) -> Sbdf {
        self.address
    }

    /// Who still uses the device; `None` if nobody does, or the ticket is over.
    pub fn busy(&self) -> Option<Busy> {
        self.removal.as_ref().and_then(|removal| removal.slot().busy())
    }

    /// Completes the removal if no use is left: `true` after the teardown, `false` if it is still pending.
    pub fn try_complete(&mut self) -> Result<bool, TicketError> {
        match self.advance(None) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn advance(&mut self, waker: Option<&Waker>) -> Poll<Result<(), TicketError>> {
        let removal = self.removal.as_mut().ok_or(TicketError::Over)?;
        let result = match removal.poll(waker) {
            Err(WouldDeadlock) => return Poll::Ready(Err(WouldDeadlock.into())),
            Ok(Progress::Pending) => return Poll::Pending,
            Ok(Progress::Gone) => Err(TicketError::Gone),
            Ok(Progress::Closed(closed)) => {
                tear_down(&self.core, closed);
                Ok(())
            }
        };
        self.removal = None;
        Poll::Ready(result)
    }

    /// Gives the device back exactly as it was.
    pub fn cancel(mut self) -> Result<(), TicketError> {
        let removal = self.removal.take().ok_or(TicketError::Over)?;
        if removal.cancel() { Ok(()) } else { Err(TicketError::Gone) }
    }

    /// Blocks until the last use is put and completes the removal on this thread, or gives up at `deadline`
    /// and leaves it pending; `None` waits for ever.
    #[cfg(all(feature = "std", not(loom)))]
    pub fn wait(&mut self, deadline: Option<std::time::Instant>) -> Result<(), TicketError> {
        struct Unpark(std::thread::Thread);

        impl alloc::task::Wake for Unpark {
            fn wake(self: alloc::sync::Arc<Self>) {
                self.0.unpark();
            }
        }

        let waker = Waker::from(alloc::sync::Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(result) = self.advance(Some(&waker)) {
                return result;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return Err(TicketError::TimedOut),
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }
}

impl<D, L: RawLock> Future for RemovalTicket<D, L> {
    type Output = Result<(), TicketError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().advance(Some(context.waker()))
    }
}

impl<D, L: RawLock> Unpin for RemovalTicket<D, L> {}

impl<D, L: RawLock> core::fmt::Debug for RemovalTicket<D, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("RemovalTicket").field(&format_args!("{}", self.address)).finish()
    }
}

/// Why nothing was reported gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GoneError {
    /// No device is known there, or it was removed or reported gone already (ENODEV).
    #[error("no device is known at {0}")]
    NotFound(Sbdf),
    /// The calling thread holds its lock (EDEADLK).
    #[error(transparent)]
    WouldDeadlock(#[from] WouldDeadlock),
}

pub(super) fn report_gone<D, L: RawLock>(core: &Core<D, L>, address: Sbdf) -> Result<(), GoneError> {
    let slot = core.arena.find(address).ok_or(GoneError::NotFound(address))?;
    depart(core, slot)?.then_some(()).ok_or(GoneError::NotFound(address))
}

/// The steps of a surprise removal; `false` if there is no device to go.
pub(super) fn depart<D, L: RawLock>(
    core: &Core<D, L>,
    slot: &Slot<Record<D>, L>,
) -> Result<bool, WouldDeadlock> {
    let Some(departure) = slot.gone()? else { return Ok(false) };
    loop {
        let (owner, assignment) = departure.drain(|record| {
            let place = record.binding.place();
            // A move under way settles its members itself and will find this one gone.
            let assignment = match place {
                Place::Guest(id, _) if !record.binding.is_moving() => slot.unpark(Holder::Domain(id)),
                _ => None,
            };
            (place.owner(), assignment)
        })?;
        drop(assignment);
        let listed = core.owner(owner).is_none_or(|domain| domain.members.lock().list.remove(slot));
        // Not there: a move has committed in between and the device is on the next owner's list. No further
        // move begins on a device that is gone, so this ends.
        if listed || weakened(Site::GoneFollowsMove) {
            break;
        }
        debug_assert_ne!(owner, Owner::Hidden, "hidden devices do not move");
    }
    departure.finish();
    Ok(true)
}
