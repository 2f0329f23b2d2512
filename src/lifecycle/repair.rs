//! Broken devices, and devices that fault.
//!
//! Broken is a device whose undo, or teardown, failed: nobody knows what its DMA can reach. It is listed under the
//! domain whose memory that may be, no guest gets it, and that domain is not released before the platform confirms
//! that the DMA is blocked.

use super::Lifecycle;
use super::claims::Way;
use super::error::TransitionError;
use super::event::What;
use super::registers;
use super::requester::MOST_FAULTS;
use super::steps;
use super::transaction::guarded;
use super::transfer::Change;
use crate::Sbdf;
use crate::errno::Errno;
use crate::owner::Owner;
use crate::platform::{HookError, Platform, Switch};
use crate::registry::Member;
use crate::sync::{Site, weakened};
use crate::transition::Transition;

/// The reason of a device that is broken because its translations could not be invalidated.
const FLUSH_TIMED_OUT: HookError = HookError::new(Errno::ETIMEDOUT, "an IOTLB flush timed out");

impl<P: Platform> Lifecycle<P> {
    /// A broken device goes to quarantine, whole again, if the platform confirms that its DMA is blocked.
    pub fn repair(&self, address: Sbdf) -> Result<(), TransitionError> {
        let repaired = self.transfer(
            &[Member::new(address)],
            &Change {
                kind: Transition::Repair,
                steps: steps::REPAIR,
                to: Owner::Quarantine,
                admit: &|device, at| match device.data().condition.broken {
                    Some(_) => Ok(Some(Owner::Quarantine)),
                    None => Err(TransitionError::NotBroken(at)),
                },
                redirect: &|_, to| Ok(Way::To(to)),
                settle: &|condition, _| condition.broken = None,
            },
        );
        match repaired {
            Err(TransitionError::Failed(failure)) if failure.error == HookError::NOT_BLOCKED => {
                Err(TransitionError::DmaNotBlocked(address))
            }
            Ok(()) => {
                // Its group may have waited for it.
                self.give_back(address);
                Ok(())
            }
            failed => failed,
        }
    }

    /// An invalidation of the device's translations timed out: they are switched off, and if a guest owns the device
    /// it is broken and the guest is stopped.
    pub fn report_flush_timeout(&self, address: Sbdf) -> Result<(), TransitionError> {
        let mut device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        let (owner, has_ats) = (device.owner(), device.known.ats.is_some());
        if owner.guest().is_some() {
            device.condition.broken.get_or_insert(FLUSH_TIMED_OUT);
            device.strand();
        }
        // No transition that has it switches them on again.
        device.condition.ats_failed |= has_ats;
        // While its translations are switched off, also while its removal is pending.
        let kept = if weakened(Site::FlushTimeoutKeeps) { None } else { Some(device.keep_unnamed()) };
        drop(device);
        let off = if has_ats { guarded(|| self.platform().set_ats(address, Switch::Off)) } else { Ok(()) };
        if let Some(guest) = owner.guest() {
            self.report(address, What::Broken(FLUSH_TIMED_OUT));
            self.stop_guest(guest, address, FLUSH_TIMED_OUT);
        }
        drop(kept);
        off.map_err(|error| TransitionError::failed(address, "switch ATS off", error))
    }

    /// Switches off the bus mastering of devices that faulted too often.
    pub(super) fn silence_the_noisy(&self) {
        for address in self.noisy() {
            let Ok(mut device) = self.lock(address) else { continue };
            // Under the lock, since they are forgotten before another owner, or another device, can be met there.
            let faults = self.faults(address);
            if faults < MOST_FAULTS && !weakened(Site::FaultsUnderLock) {
                continue;
            }
            // Before, and for good: a transition that has it does not switch it on again.
            device.condition.silenced = true;
            let silenced = guarded(|| {
                registers::stop_mastering(self.platform(), address);
                Ok(())
            });
            drop(device);
            self.report(address, What::Fault(faults));
            if silenced.is_ok() {
                self.report(address, What::Silenced);
            }
        }
    }
}
