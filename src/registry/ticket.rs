//! Removal that waits for the last use.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::Core;
use super::binding::{Place, Record};
use super::claim::is_claimed;
use super::remove::{Closing, RemoveError, in_removal};
use crate::Sbdf;
use crate::errno::Errno;
use crate::memory::{NoMemory, Shared};
use crate::refcount::{BeginRefused, Busy, Progress, Removal, State, WouldDeadlock};
use crate::sync::{RawLock, Site, weakened, with_default_lock};

pub(super) fn begin<D, L: RawLock>(
    core: &Shared<Core<D, L>>,
    address: Sbdf,
) -> Result<RemovalTicket<D, L>, RemoveError> {
    let slot = core.arena.find(address).ok_or(RemoveError::NotFound(address))?;
    let device = slot.lock()?.ok_or(RemoveError::NotFound(address))?;
    if device.binding.place() == Place::Hidden {
        return Err(RemoveError::Denied);
    }
    // A transition decides by what it found when it claimed the device, so a removal begins before it or after.
    if is_claimed(&device) && !weakened(Site::BeginChecksClaim) {
        return Err(RemoveError::Busy(slot.busy().unwrap_or_else(|| unreachable!("a claim is a reference"))));
    }
    let removal = slot.begin_removal();
    drop(device);
    match removal {
        Ok(removal) => Ok(RemovalTicket { core: core.clone(), address, removal: Some(removal) }),
        Err(BeginRefused::NoMemory) => Err(NoMemory.into()),
        Err(BeginRefused::State(State::Removing)) => Err(in_removal(slot)),
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
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is of one lifetime, this is of any"
        )]
        self.advance_to(waker, |closing| closing.finish())
    }

    /// One look at the removal; once the device is closed, what `tear_down` makes of it.
    pub(crate) fn advance_to<R>(
        &mut self,
        waker: Option<&Waker>,
        tear_down: impl FnOnce(Closing<'_, D, L>) -> R,
    ) -> Poll<Result<R, TicketError>> {
        // Out of the ticket while it is looked at: if the teardown panics, it is over all the same.
        let mut removal = self.removal.take().ok_or(TicketError::Over)?;
        let pending = match removal.poll(waker) {
            Err(WouldDeadlock) => Poll::Ready(Err(WouldDeadlock.into())),
            Ok(Progress::Pending) => Poll::Pending,
            Ok(Progress::Gone) => return Poll::Ready(Err(TicketError::Gone)),
            Ok(Progress::Closed(closed)) => {
                return Poll::Ready(Ok(tear_down(Closing::of(&self.core, closed))));
            }
        };
        self.removal = Some(removal);
        pending
    }

    /// Gives the device back exactly as it was.
    pub fn cancel(mut self) -> Result<(), TicketError> {
        let removal = self.removal.take().ok_or(TicketError::Over)?;
        if removal.cancel() { Ok(()) } else { Err(TicketError::Gone) }
    }

    /// Blocks until the last use is put and completes the removal on this thread, or gives up at `deadline`
    /// and leaves it pending; `None` waits for ever.
    ///
    /// The one call here whose allocation (of a waker) cannot fail but abort. Where memory may run out, use
    /// [`try_complete`](Self::try_complete), or poll with a waker of your own.
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    pub fn wait(&mut self, deadline: Option<std::time::Instant>) -> Result<(), TicketError> {
        block_on(deadline, |waker| self.advance(Some(waker))).unwrap_or(Err(TicketError::TimedOut))
    }
}

/// Blocks until `poll` is ready; `None` at the deadline.
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
pub(crate) fn block_on<R>(
    deadline: Option<std::time::Instant>,
    mut poll: impl FnMut(&Waker) -> Poll<R>,
) -> Option<R> {
    struct Unpark(std::thread::Thread);

    impl alloc::task::Wake for Unpark {
        fn wake(self: alloc::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(alloc::sync::Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(result) = poll(&waker) {
            return Some(result);
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now())) {
            None => std::thread::park(),
            Some(left) if left.is_zero() => return None,
            Some(left) => std::thread::park_timeout(left),
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

impl TicketError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Gone => Errno::ENODEV,
            Self::Over => Errno::EINVAL,
            Self::WouldDeadlock(_) => Errno::EDEADLK,
            Self::TimedOut => Errno::ETIMEDOUT,
        }
    }
}
