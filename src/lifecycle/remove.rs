//! A device leaves because it was asked to: exactly, alone or with everything that depends on it.
//!
//! Close, then take down: what the owner sees, interrupts, the IOMMU under every requester ID; unlink; destroy. If a
//! hook fails the device is open again, and broken; nothing of it is freed.

use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::Lifecycle;
use super::device::Device;
use super::error::TransitionError;
use super::event::{Span, What};
use super::gone::vf_after;
use super::hand::{Leaver, Works};
use super::leavers::Leavers;
use super::requester::RequesterClaims;
use super::steps;
use super::transaction::Transaction;
use crate::Sbdf;
use crate::address::DevFn;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::{Platform, Request};
use crate::refcount::{Busy, Holder};
use crate::registry::{self, AccessError, Closing, RemoveError, TicketError};
use crate::transition::Transition;

type DeviceClosing<'a, P> = Closing<'a, Device<P>, <P as Platform>::Lock>;

impl<P: Platform> Lifecycle<P> {
    /// Removes a device that nobody uses.
    ///
    /// `Ok` means that nobody can reach that function any more: no handle, no access, no DMA, no interrupt, and its
    /// destructor has run. `Busy` says who still can; then nothing has changed.
    pub fn remove_device(&self, address: Sbdf) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Remove);
        let closing = self.permit_removal(address).and_then(|()| {
            self.registry().close(address, 0).map_err(|error| TransitionError::of_removal(address, error))
        });
        match closing {
            Ok(closing) => self.take_down(closing, &span),
            Err(error) => {
                span.report(address, None, None, Some(&error));
                Err(error)
            }
        }
    }

    /// Removes all functions of a card slot, their virtual functions, and everything behind its bridges: all or none.
    /// Only its `Ok` means that the card may be pulled.
    pub fn remove_slot(&self, address: Sbdf) -> Result<(), TransitionError> {
        let mut set = Vec::new();
        for function in functions(address) {
            self.collect(function, &mut set)?;
        }
        let span = Span::begin(self, Transition::Remove);
        let leavers = self.close_set(&mut set)?;
        // None can come behind a closed bridge or for a closed physical function, but one can beside them.
        if let Some((function, busy)) = functions(address)
            .filter(|function| !set.contains(function))
            .find_map(|function| self.registry().occupant(function).map(|busy| (function, busy)))
        {
            return Err(TransitionError::Busy(function, busy));
        }
        if set.is_empty() {
            return Err(TransitionError::NotFound(address));
        }
        self.take_down_all(leavers, &span)
    }

    /// Removes a bridge and everything behind it: all or none.
    pub fn remove_subtree(&self, bridge: Sbdf) -> Result<(), TransitionError> {
        let is_bridge = self.lock(bridge).map(|device| device.known.behind.is_some());
        if !is_bridge.map_err(|error| TransitionError::of_access(bridge, error))? {
            return Err(TransitionError::NotBridge(bridge));
        }
        let mut set = Vec::new();
        self.collect(bridge, &mut set)?;
        let span = Span::begin(self, Transition::Remove);
        let leavers = self.close_set(&mut set)?;
        self.take_down_all(leavers, &span)
    }

    /// Refuses new uses of the device and waits, through the ticket, for the last one to go.
    pub fn begin_removal(&self, address: Sbdf) -> Result<RemovalTicket<P>, TransitionError> {
        let span = Span::begin(self, Transition::Remove);
        let begun = self.permit_removal(address).and_then(|()| {
            let begun = self.registry().begin_removal(address);
            begun.map_err(|error| TransitionError::of_removal(address, error))
        });
        let ticket = span.refused(address, begun)?;
        self.report(address, What::RemovalBegun);
        Ok(RemovalTicket { lifecycle: self.clone(), address, ticket: Some(ticket) })
    }

    /// Removes what is unused and reports the rest gone, hooks and all. Without it, dropping the last clone ends the
    /// devices but calls no hook.
    pub fn shut_down(&self) {
        loop {
            let mut all = Vec::new();
            for device in self.devices() {
                // Without memory for all of them, some now and the rest in the next round.
                if all.try_reserve(1).is_err() {
                    break;
                }
                all.push(device.status.address);
            }
            // From the far end: virtual functions before physical ones, what is behind bridges before the bridges.
            let leaves =
                |address: &Sbdf| self.remove_device(*address).is_ok() || self.report_gone(*address).is_ok();
            if all.iter().rev().filter(|address| leaves(address)).count() == 0 {
                // None are left; or this very thread is inside the rest, or another one is taking them down.
                break;
            }
        }
        self.run_deferred();
    }

    fn permit_removal(&self, address: Sbdf) -> Result<(), TransitionError> {
        let from = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?.owner();
        let request =
            Request { transition: Transition::Remove, device: address, from: Some(from), to: Owner::Unowned };
        self.permit(&request)
    }

    /// Takes a closed device down; if that fails it is open again, and broken.
    fn take_down(&self, closing: DeviceClosing<'_, P>, span: &Span<'_, P>) -> Result<(), TransitionError> {
        let mut leavers = Leavers::with_room(self, 1)?;
        leavers.push(Leaver::new(closing));
        self.take_down_all(leavers, span)
    }

    /// Takes closed devices down together: all, or all are open again.
    fn take_down_all(&self, leavers: Leavers<'_, P>, span: &Span<'_, P>) -> Result<(), TransitionError> {
        // Claimed until the maps have forgotten them: who comes to clear an entry that they shared must not find them.
        let _ids = self.run_leave(leavers.as_slice(), span)?;
        leavers.finish();
        Ok(())
    }

    /// The steps of leaving, undone if one fails; then the device at which it failed is broken. Returns the requester IDs
    /// of those that leave, claimed.
    fn run_leave(
        &self,
        leavers: &[Leaver<'_, P>],
        span: &Span<'_, P>,
    ) -> Result<RequesterClaims<'_, P>, TransitionError> {
        let mut work = Works::new();
        work.reserve(leavers.len())?;
        for leaver in leavers {
            work.extend(leaver.work());
        }
        let mut ids = RequesterClaims::new(self);
        for member in work.iter() {
            ids.add(member.address, &member.known)?;
        }
        let _shared = self.keep_shared(&mut work)?;
        let mut transaction = Transaction::new(self.platform(), steps::LEAVE, &mut work)?;
        let result = transaction.run_or_undo(|| Ok(()));
        for member in &*transaction.work {
            span.report(member.address, Some(member.from), None, result.as_ref().err());
            if let Some(because) = member.broken {
                self.report(member.address, What::Broken(because));
            }
        }
        result.map(|()| ids)
    }

    /// A device, its virtual functions, and what is behind it, if it is known.
    fn collect(&self, address: Sbdf, set: &mut Vec<Sbdf>) -> Result<(), TransitionError> {
        let device = match self.lock(address) {
            Ok(device) => device,
            Err(AccessError::NotFound) => return Ok(()),
            Err(error) => return Err(TransitionError::of_access(address, error)),
        };
        let behind = device.known.buses_behind(address);
        drop(device);
        self.collect_with_vfs(address, set)?;
        let Some((first, last)) = behind else { return Ok(()) };
        let mut found = self.registry().addresses_from(first).take_while(|found| *found <= last);
        found.try_for_each(|found| self.collect_with_vfs(found, set))?;
        Ok(())
    }

    fn collect_with_vfs(&self, address: Sbdf, set: &mut Vec<Sbdf>) -> Result<(), NoMemory> {
        let mut next = Some(address);
        let mut after = None;
        while let Some(found) = next {
            if !set.contains(&found) {
                set.try_reserve(1)?;
                set.push(found);
            }
            next = self.registry().find_holder(address, |holder| vf_after(holder, after));
            after = next;
        }
        Ok(())
    }

    /// Closes a set, what depends on others first, and brings it into that order.
    fn close_set(&self, set: &mut [Sbdf]) -> Result<Leavers<'_, P>, TransitionError> {
        for address in &*set {
            match self.permit_removal(*address) {
                Err(TransitionError::NotFound(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        // A virtual function comes after its physical one, and behind a bridge are higher buses.
        set.sort_unstable_by(|one, other| other.cmp(one));
        let mut leavers = Leavers::with_room(self, set.len())?;
        for address in &*set {
            // What closed members hold of this one is in our hands.
            let held = leavers.holds(*address);
            match self.registry().close(*address, held) {
                Ok(closing) => leavers.push(Leaver::among(closing, set)),
                // Gone since it was collected; its last use ends with a put, and runs its destructor.
                Err(RemoveError::NotFound(_)) => leavers.leave_without(*address),
                Err(error) => {
                    let error = without_members(error, held, set);
                    return Err(TransitionError::of_removal(*address, error));
                }
            }
        }
        Ok(leavers)
    }
}

/// The functions a card slot can have.
fn functions(address: Sbdf) -> impl Iterator<Item = Sbdf> {
    (0..8)
        .filter_map(move |function| DevFn::new(address.device(), function))
        .map(move |devfn| address.with_devfn(devfn))
}

/// Members of the set are not in the way of one another.
fn without_members(error: RemoveError, held: u32, set: &[Sbdf]) -> RemoveError {
    match error {
        RemoveError::Busy(mut busy) => {
            busy.uses = busy.uses.saturating_sub(held);
            busy.holders.retain(|holder| match holder {
                Holder::Vf(member) | Holder::Child(member) => !set.contains(member),
                _ => true,
            });
            RemoveError::Busy(busy)
        }
        error => error,
    }
}

/// A removal that was asked for and waits for the last use to go; see [`registry::RemovalTicket`]. Whoever drives it
/// runs the teardown, hooks included. If one fails the device is back, and broken.
#[derive(Debug)]
pub struct RemovalTicket<P: Platform> {
    lifecycle: Lifecycle<P>,
    address: Sbdf,
    /// `None` once it has given its answer.
    ticket: Option<registry::RemovalTicket<Device<P>, P::Lock>>,
}

impl<P: Platform> RemovalTicket<P> {
    /// The address of the device to be removed.
    pub fn address(&self) -> Sbdf {
        self.address
    }

    /// Who still uses the device; `None` if nobody does, or the ticket is over.
    pub fn busy(&self) -> Option<Busy> {
        self.ticket.as_ref()?.busy()
    }

    /// Completes the removal if no use is left: `true` after the teardown, `false` if it is still pending.
    pub fn try_complete(&mut self) -> Result<bool, TransitionError> {
        match self.advance(None) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Gives the device back exactly as it was.
    pub fn cancel(mut self) -> Result<(), TransitionError> {
        self.give_up().map_err(Into::into)
    }

    fn give_up(&mut self) -> Result<(), TicketError> {
        self.ticket.take().ok_or(TicketError::Over)?.cancel()?;
        self.lifecycle.report(self.address, What::RemovalCancelled);
        Ok(())
    }

    /// Blocks until the last use is put and completes the removal on this thread, or gives up at `deadline` and leaves
    /// it pending; `None` waits for ever.
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    pub fn wait(&mut self, deadline: Option<std::time::Instant>) -> Result<(), TransitionError> {
        registry::block_on(deadline, |waker| self.advance(Some(waker)))
            .unwrap_or(Err(TransitionError::Ticket(TicketError::TimedOut)))
    }

    fn advance(&mut self, waker: Option<&Waker>) -> Poll<Result<(), TransitionError>> {
        let lifecycle = &self.lifecycle;
        let span = Span::begin(lifecycle, Transition::Remove);
        let Some(ticket) = &mut self.ticket else { return Poll::Ready(Err(TicketError::Over.into())) };
        let answer = match ticket.advance_to(waker, |closing| lifecycle.take_down(closing, &span)) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(answer) => answer,
        };
        if !matches!(answer, Err(TicketError::WouldDeadlock(_))) {
            self.ticket = None;
        }
        Poll::Ready(answer.unwrap_or_else(|error| Err(error.into())))
    }
}

impl<P: Platform> Drop for RemovalTicket<P> {
    fn drop(&mut self) {
        // That it has given its answer, or its device is gone, is known already.
        let _cancelled = self.give_up();
    }
}

impl<P: Platform> Future for RemovalTicket<P> {
    type Output = Result<(), TransitionError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().advance(Some(context.waker()))
    }
}

impl<P: Platform> Unpin for RemovalTicket<P> {}
