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
use super::hand::Leaver;
use super::steps;
use super::transaction::Transaction;
use crate::Sbdf;
use crate::address::DevFn;
use crate::memory::NoMemory;
use crate::owner::Owner;
use crate::platform::{Platform, Request};
use crate::refcount::{Busy, Holder};
use crate::registry::{self, Closing, InHands, RemoveError, with_room};
use crate::transition::Transition;

type DeviceClosing<'a, P> = Closing<'a, Device<P>, <P as Platform>::Lock>;

impl<P: Platform> Lifecycle<P> {
    /// Removes a device that nobody uses.
    ///
    /// `Ok` means that nobody can reach that function any more: no handle, no access, no DMA, no interrupt, and its
    /// destructor has run. `Busy` says who still can; then nothing has changed.
    pub fn remove_device(&self, address: Sbdf) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Remove);
        self.permit_removal(address)?;
        let closing =
            self.registry().close(address, 0).map_err(|error| TransitionError::of_removal(address, error))?;
        self.take_down(closing, &span)
    }

    /// Removes all functions of a card slot, their virtual functions, and everything behind its bridges: all or none.
    /// Only its `Ok` means that the card may be pulled.
    pub fn remove_slot(&self, address: Sbdf) -> Result<(), TransitionError> {
        let mut set = Vec::new();
        for function in 0..8 {
            let Some(devfn) = DevFn::new(address.device(), function) else { continue };
            self.collect(address.with_devfn(devfn), &mut set)?;
        }
        if set.is_empty() {
            return Err(TransitionError::NotFound(address));
        }
        self.remove_set(set)
    }

    /// Removes a bridge and everything behind it: all or none.
    pub fn remove_subtree(&self, bridge: Sbdf) -> Result<(), TransitionError> {
        let is_bridge = self.lock(bridge).map(|device| device.known.behind.is_some());
        if !is_bridge.map_err(|error| TransitionError::of_access(bridge, error))? {
            return Err(TransitionError::NotBridge(bridge));
        }
        let mut set = Vec::new();
        self.collect(bridge, &mut set)?;
        self.remove_set(set)
    }

    /// Refuses new uses of the device and waits, through the ticket, for the last one to go.
    pub fn begin_removal(&self, address: Sbdf) -> Result<RemovalTicket<P>, TransitionError> {
        self.permit_removal(address)?;
        let ticket = self
            .registry()
            .begin_removal(address)
            .map_err(|error| TransitionError::of_removal(address, error))?;
        Ok(RemovalTicket { lifecycle: self.clone(), ticket })
    }

    /// The hardware is gone already: no new use, no access, off every list at once; freed at its last put.
    ///
    /// A physical function takes its virtual ones with it, a bridge everything behind it. A transition that has the
    /// device gets `Gone` at its next step. The address is free again when the IOMMU entries are cleared; until then
    /// an add there is `Busy` with the holder "dma teardown".
    pub fn report_gone(&self, address: Sbdf) -> Result<(), TransitionError> {
        let behind = self.depart(address)?;
        self.depart_vfs(address);
        let Some((first, last)) = behind else { return Ok(()) };
        let mut next = Some(first);
        while let Some(found) = next.and_then(|from| self.registry().next_device(from)) {
            if found > last {
                break;
            }
            next = found.successor();
            // Somebody else may have been faster.
            let _gone = self.depart(found);
            self.depart_vfs(found);
        }
        Ok(())
    }

    /// Removes what is unused and reports the rest gone, hooks and all. Without it, dropping the last clone ends the
    /// devices but calls no hook.
    pub fn shut_down(&self) {
        // From the far end: virtual functions before physical ones, what is behind bridges before the bridges.
        while let Some(last) = self.devices().last().map(|device| device.status.address) {
            if self.remove_device(last).is_err() && self.report_gone(last).is_err() {
                // This very thread is inside the device, or another one is taking it down.
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
        let mut leavers = with_room(1)?;
        leavers.push(Leaver::new(closing));
        self.take_down_all(leavers, span)
    }

    /// Takes closed devices down together: all, or all are open again.
    fn take_down_all(&self, leavers: Vec<Leaver<'_, P>>, span: &Span<'_, P>) -> Result<(), TransitionError> {
        self.run_leave(&leavers, span)?;
        for leaver in leavers {
            if let Some((address, known)) = leaver.finish() {
                self.leave_maps(address, &known);
                self.forget(address, &known);
            }
        }
        Ok(())
    }

    /// The steps of leaving, undone if one fails; then the device at which it failed is broken.
    fn run_leave(&self, leavers: &[Leaver<'_, P>], span: &Span<'_, P>) -> Result<(), TransitionError> {
        let mut work = with_room(leavers.len())?;
        for leaver in leavers {
            work.extend(leaver.work());
        }
        let mut transaction = Transaction::new(self.platform(), steps::LEAVE, work)?;
        let result = transaction.run();
        let result = result.map_err(|error| {
            transaction.roll_back();
            transaction.explain(error)
        });
        for (member, leaver) in transaction.work.iter_mut().zip(leavers) {
            let failed_here = match &result {
                Err(TransitionError::Failed(failure)) if failure.device == member.address => {
                    Some(failure.error)
                }
                _ => None,
            };
            let broken = member.broken.or(failed_here);
            span.report(member.address, Some(member.from), None, result.as_ref().err());
            if let Some(because) = broken {
                self.report(member.address, What::Broken(because));
            }
            if result.is_err() {
                leaver.stay(core::mem::take(&mut member.bound), broken);
            }
        }
        result
    }

    /// The maps forget a device that leaves.
    fn leave_maps(&self, address: Sbdf, known: &super::known::Known<P::Lock>) {
        self.topology().remove(address);
        if let Some(group) = &known.group {
            group.leave(address);
        }
    }

    /// A device, its virtual functions, and what is behind it, if it is known.
    fn collect(&self, address: Sbdf, set: &mut Vec<Sbdf>) -> Result<(), NoMemory> {
        let Ok(device) = self.lock(address) else { return Ok(()) };
        let behind = device.known.buses_behind(address);
        drop(device);
        self.collect_with_vfs(address, set)?;
        let Some((first, last)) = behind else { return Ok(()) };
        let mut next = Some(first);
        while let Some(found) = next.and_then(|from| self.registry().next_device(from)) {
            if found > last {
                break;
            }
            next = found.successor();
            self.collect_with_vfs(found, set)?;
        }
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
            next = self.vf_after(address, after);
            after = next;
        }
        Ok(())
    }

    /// The next virtual function that holds this one.
    fn vf_after(&self, pf: Sbdf, after: Option<Sbdf>) -> Option<Sbdf> {
        self.registry().find_holder(pf, |holder| match holder {
            Holder::Vf(vf) if after.is_none_or(|after| vf > after) => Some(vf),
            _ => None,
        })
    }

    /// Closes a set, what depends on others first, and takes it down.
    fn remove_set(&self, mut set: Vec<Sbdf>) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Remove);
        for address in &set {
            match self.permit_removal(*address) {
                Err(TransitionError::NotFound(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        // A virtual function comes after its physical one, and behind a bridge are higher buses.
        set.sort_unstable_by(|one, other| other.cmp(one));
        let mut leavers: Vec<Leaver<'_, P>> = with_room(set.len())?;
        for address in &set {
            // What closed members hold of this one is in our hands.
            let held = leavers.iter().map(|leaver| leaver.holds(*address)).sum();
            match self.registry().close(*address, held) {
                Ok(closing) => leavers.push(Leaver::among(closing, &set)),
                // Gone since it was collected.
                Err(RemoveError::NotFound(_)) => {}
                Err(error) => {
                    let error = without_members(error, held, &set);
                    return Err(TransitionError::of_removal(*address, error));
                }
            }
        }
        self.take_down_all(leavers, &span)
    }

    /// Sets a device gone, and does what it leaves to be done unless a transition has it. The buses behind it, if it
    /// is a bridge.
    fn depart(&self, address: Sbdf) -> Result<Option<(Sbdf, Sbdf)>, TransitionError> {
        let settle = |device: &mut Device<P>, in_hands| {
            let links = (device.links.bridge.take(), device.links.pf.take());
            let left = match in_hands {
                InHands::Nobodys => {
                    let bound = core::mem::take(&mut device.bound);
                    device.departure.take().map(|departure| (departure, bound))
                }
                InHands::ATransitions => None,
            };
            (left, links, device.known.clone())
        };
        let ((left, links, known), departed) = self.registry().depart(address, settle)?;
        drop(links);
        self.leave_maps(address, &known);
        self.report(address, What::Gone);
        if let Some((departure, bound)) = left {
            self.clear_up(departure, departed, bound, None);
        }
        Ok(known.buses_behind(address))
    }

    fn depart_vfs(&self, pf: Sbdf) {
        let mut after = None;
        while let Some(vf) = self.vf_after(pf, after) {
            // Somebody else may have been faster, or it is not published yet and will find its function gone.
            let _gone = self.depart(vf);
            after = Some(vf);
        }
    }
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
    ticket: registry::RemovalTicket<Device<P>, P::Lock>,
}

impl<P: Platform> RemovalTicket<P> {
    /// The address of the device to be removed.
    pub fn address(&self) -> Sbdf {
        self.ticket.address()
    }

    /// Who still uses the device; `None` if nobody does, or the ticket is over.
    pub fn busy(&self) -> Option<Busy> {
        self.ticket.busy()
    }

    /// Completes the removal if no use is left: `true` after the teardown, `false` if it is still pending.
    pub fn try_complete(&mut self) -> Result<bool, TransitionError> {
        match self.advance(None) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Gives the device back exactly as it was.
    pub fn cancel(self) -> Result<(), TransitionError> {
        self.ticket.cancel().map_err(Into::into)
    }

    /// Blocks until the last use is put and completes the removal on this thread, or gives up at `deadline` and leaves
    /// it pending; `None` waits for ever.
    #[cfg(all(feature = "std", not(loom)))]
    pub fn wait(&mut self, deadline: Option<std::time::Instant>) -> Result<(), TransitionError> {
        registry::block_on(deadline, |waker| self.advance(Some(waker)))
            .unwrap_or(Err(TransitionError::Ticket(registry::TicketError::TimedOut)))
    }

    fn advance(&mut self, waker: Option<&Waker>) -> Poll<Result<(), TransitionError>> {
        let lifecycle = &self.lifecycle;
        let span = Span::begin(lifecycle, Transition::Remove);
        self.ticket.advance_to(waker, |closing| lifecycle.take_down(closing, &span)).map(|advanced| advanced?)
    }
}

impl<P: Platform> Future for RemovalTicket<P> {
    type Output = Result<(), TransitionError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().advance(Some(context.waker()))
    }
}

impl<P: Platform> Unpin for RemovalTicket<P> {}
