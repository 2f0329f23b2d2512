//! Faults that are counted, and flushes that time out.

use pcidevs::Sbdf;

use super::Model;
use super::device::Device;
use super::verdict::{DONE, Verdict, no};
use crate::stage::{Outcome, Reason};

impl Model {
    pub(super) fn fault(&mut self, requester: Sbdf) -> Verdict {
        let is_phantom = |(_, device): &(&Sbdf, &Device)| {
            let same_slot = |at: Sbdf| (at.bus(), at.device()) == (requester.bus(), requester.device());
            device.requesters.contains(&requester) && same_slot(device.requesters[0])
        };
        let function = self.devices.iter().find(is_phantom).map_or(requester, |(at, _)| *at);
        if !self.devices.contains_key(&function) {
            return Verdict::Any;
        }
        let (count, last) = self.faults.get(&function).copied().unwrap_or_default();
        let recent = self.now - last <= 10_000_000;
        let count = (if recent { count } else { count / 2 } + 1).min(255);
        self.faults.insert(function, (count, self.now));
        Verdict::Is(Outcome::Count(count as usize))
    }

    /// Faults were counted of what is no device's.
    pub(crate) fn counted(&mut self, requester: Sbdf, count: u32) {
        self.faults.insert(requester, (count, self.now));
    }

    pub(super) fn forget_faults(&mut self, at: Sbdf) {
        if let Some((count, last)) = self.faults.get_mut(&at) {
            (*count, *last) = (0, 0);
        }
    }

    /// The devices whose bus mastering is to be switched off.
    pub(crate) fn noisy(&self) -> impl Iterator<Item = Sbdf> + '_ {
        let noisy = self.faults.iter().filter(|(_, (count, _))| *count >= 10);
        noisy.map(|(at, _)| *at).filter(|at| self.devices.contains_key(at))
    }

    pub(super) fn flush_timeout(&mut self, at: Sbdf) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if device.owner.guest().is_some() {
            // Out of its guest's sight; the address there stays taken, as if the device were gone.
            (device.broken, device.dma_of, device.seen_at) = (true, true, None);
        }
        DONE
    }
}
