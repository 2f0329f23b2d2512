//! A device leaves without having been asked: its hardware is gone, and with it all that depends on it.

use super::Lifecycle;
use super::device::Device;
use super::error::TransitionError;
use super::event::What;
use super::known::Known;
use crate::Sbdf;
use crate::platform::Platform;
use crate::refcount::Holder;
use crate::registry::{Departed, GoneError, InHands};
use crate::sync::{Site, weakened};

impl<P: Platform> Lifecycle<P> {
    /// The hardware is gone already: no new use, no access, off every list at once; freed at its last put.
    ///
    /// A physical function takes its virtual ones with it, a bridge everything behind it. A transition that has the
    /// device gets `Gone` at its next step. The address is free again when the IOMMU entries are cleared; until then
    /// an add there is `Busy` with the holder "dma teardown".
    pub fn report_gone(&self, address: Sbdf) -> Result<(), TransitionError> {
        let mut exodus =
            Exodus { lifecycle: self, number: self.departures().number(), pf: None, behind: None };
        exodus.begin(address)?;
        exodus.run();
        Ok(())
    }

    /// The maps forget a device that leaves. They are leaf locks.
    pub(super) fn leave_maps(&self, address: Sbdf, known: &Known<P::Lock>) {
        self.leave_entries(known);
        self.topology().remove(address);
        if let Some(group) = &known.group {
            group.leave(address);
        }
    }
}

/// A physical function whose virtual functions leave, and which of them left last.
type LeavingPf<P> = (Departed<Device<P>, <P as Platform>::Lock>, Option<Sbdf>);

/// Everything that is gone with one device. All of it leaves before the first hook is called for any of it: a hook
/// that hangs hangs one device. Dropping this does what is left, since callbacks of holders may panic.
struct Exodus<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    /// Names what is to be cleared up after it.
    number: u64,
    /// Whose virtual functions leave, and which of them left last.
    pf: Option<LeavingPf<P>>,
    /// From where, and to where, what is behind a bridge leaves.
    behind: Option<(Sbdf, Sbdf)>,
}

impl<P: Platform> Exodus<'_, P> {
    fn begin(&mut self, address: Sbdf) -> Result<(), TransitionError> {
        let mut behind = None;
        self.leave(address, |known, departed, exodus| {
            behind = known.buses_behind(address);
            exodus.pf = Some((departed, None));
            exodus.behind = behind;
        })
    }

    fn run(&mut self) {
        while self.next_vf() || self.next_behind() {}
        // Until then no other device came to their addresses, so what depends on them was found by them.
        self.lifecycle.clear_up_all(self.number);
    }

    /// The next virtual function leaves; `false` if there is none.
    fn next_vf(&mut self) -> bool {
        let Some((pf, after)) = &mut self.pf else { return false };
        *after = pf.find_holder(|holder| vf_after(holder, *after));
        match *after {
            // Somebody else may have been faster, or it is not published yet and will find its function gone.
            Some(vf) => drop(self.leave(vf, |_, _, _| ())),
            None => self.pf = None,
        }
        true
    }

    /// The next device behind the bridge leaves; `false` if there is none.
    fn next_behind(&mut self) -> bool {
        let Some((next, last)) = self.behind else { return false };
        let found = self.lifecycle.registry().next_device(next).filter(|found| *found <= last);
        self.behind = found.and_then(Sbdf::successor).map(|next| (next, last));
        if let Some(found) = found {
            // Somebody else may have been faster.
            drop(self.leave(found, |_, departed, exodus| exodus.pf = Some((departed, None))));
        }
        found.is_some()
    }

    /// Sets one device gone; `then` is told of it before anything foreign is called.
    fn leave(
        &mut self,
        address: Sbdf,
        then: impl FnOnce(&Known<P::Lock>, Departed<Device<P>, P::Lock>, &mut Self),
    ) -> Result<(), TransitionError> {
        let lifecycle = self.lifecycle;
        let settle = |device: &mut Device<P>, in_hands| {
            // Only while the address is certainly this device's: a transition that had it may have freed it already.
            if let Some(departure) = &mut device.departure {
                lifecycle.leave_maps(address, &departure.known);
                departure.left_maps = true;
            }
            let links = (device.links.bridge.take(), device.links.pf.take());
            let left = match in_hands {
                InHands::Nobodys => device.depart(),
                InHands::ATransitions if weakened(Site::GoneLeavesClaimed) => device.depart(),
                InHands::ATransitions => None,
            };
            (left, links, device.known.clone())
        };
        let ((left, links, known), departed, farewell) = loop {
            match lifecycle.registry().depart(address, settle) {
                Ok(left) => break left,
                // Somebody is taking it down, stops at its next step, and reports it gone if it would have to stay.
                Err(GoneError::NotFound(_)) if lifecycle.registry().lose(address)? => return Ok(()),
                // It was closed, and is open again.
                Err(GoneError::NotFound(_)) if lifecycle.registry().is_present(address) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(departure) = left {
            lifecycle.departures().wait(departure, departed.share(), self.number);
        }
        then(&known, departed, self);
        drop(links);
        lifecycle.report(address, What::Gone);
        drop(farewell);
        Ok(())
    }
}

impl<P: Platform> Drop for Exodus<'_, P> {
    fn drop(&mut self) {
        self.run();
    }
}

/// A virtual function that holds its physical one, if it comes after another one.
pub(super) fn vf_after(holder: Holder, after: Option<Sbdf>) -> Option<Sbdf> {
    match holder {
        Holder::Vf(vf) if after.is_none_or(|after| vf > after) => Some(vf),
        _ => None,
    }
}
