//! A device leaves without having been asked: its hardware is gone, and with it all that depends on it.

use alloc::boxed::Box;

use super::Lifecycle;
use super::departure::Departure;
use super::device::Device;
use super::error::TransitionError;
use super::event::What;
use super::known::Known;
use crate::Sbdf;
use crate::memory::Shared;
use crate::platform::Platform;
use crate::refcount::Holder;
use crate::registry::{Departed, InHands};

/// A device that has left, and what there is to clear up unless a transition has it.
struct Leaving<P: Platform> {
    departed: Departed<Device<P>, P::Lock>,
    left: Option<Box<Departure<P>>>,
    known: Shared<Known<P::Lock>>,
}

impl<P: Platform> Lifecycle<P> {
    /// The hardware is gone already: no new use, no access, off every list at once; freed at its last put.
    ///
    /// A physical function takes its virtual ones with it, a bridge everything behind it. A transition that has the
    /// device gets `Gone` at its next step. The address is free again when the IOMMU entries are cleared; until then
    /// an add there is `Busy` with the holder "dma teardown".
    pub fn report_gone(&self, address: Sbdf) -> Result<(), TransitionError> {
        let root = self.leave_with_vfs(address)?;
        if let Some((first, last)) = root.known.buses_behind(address) {
            let mut next = Some(first);
            while let Some(found) = next.and_then(|from| self.registry().next_device(from)) {
                if found > last {
                    break;
                }
                next = found.successor();
                // Somebody else may have been faster.
                if let Ok(leaving) = self.leave_with_vfs(found) {
                    self.clear_up_after(leaving);
                }
            }
        }
        // Last: until then no other device comes to its address, so what depends on it is found by it.
        self.clear_up_after(root);
        Ok(())
    }

    /// Sets a device gone, and its virtual functions after it.
    fn leave_with_vfs(&self, address: Sbdf) -> Result<Leaving<P>, TransitionError> {
        let pf = self.leave(address)?;
        let mut after = None;
        while let Some(vf) = pf.departed.find_holder(|holder| vf_after(holder, after)) {
            // Somebody else may have been faster, or it is not published yet and will find its function gone.
            if let Ok(leaving) = self.leave(vf) {
                self.clear_up_after(leaving);
            }
            after = Some(vf);
        }
        Ok(pf)
    }

    /// Sets one device gone.
    fn leave(&self, address: Sbdf) -> Result<Leaving<P>, TransitionError> {
        let settle = |device: &mut Device<P>, in_hands| {
            let links = (device.links.bridge.take(), device.links.pf.take());
            let left = match in_hands {
                InHands::Nobodys => device.depart(),
                InHands::ATransitions => None,
            };
            (left, links, device.known.clone())
        };
        let ((left, links, known), departed) = self.registry().depart(address, settle)?;
        drop(links);
        self.leave_maps(address, &known);
        self.report(address, What::Gone);
        Ok(Leaving { departed, left, known })
    }

    fn clear_up_after(&self, leaving: Leaving<P>) {
        if let Some(departure) = leaving.left {
            self.clear_up(departure, leaving.departed, None);
        }
    }

    /// The maps forget a device that leaves.
    pub(super) fn leave_maps(&self, address: Sbdf, known: &Known<P::Lock>) {
        self.topology().remove(address);
        if let Some(group) = &known.group {
            group.leave(address);
        }
    }
}

/// A virtual function that holds its physical one, if it comes after another one.
pub(super) fn vf_after(holder: Holder, after: Option<Sbdf>) -> Option<Sbdf> {
    match holder {
        Holder::Vf(vf) if after.is_none_or(|after| vf > after) => Some(vf),
        _ => None,
    }
}
