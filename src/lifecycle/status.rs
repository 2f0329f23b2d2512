//! What a list or a dump shows of a device (R10).

use alloc::vec::Vec;

use super::Lifecycle;
use crate::Sbdf;
use crate::platform::{AttachmentKind, HookError, Platform};
use crate::registry::Status;

/// One device at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// Its owner, references and holders.
    pub status: Status,
    /// What the current binding set up; fewer than there are if there was no memory for them.
    pub attachments: Vec<AttachmentKind>,
    /// Why it is broken, if it is.
    pub broken: Option<HookError>,
    /// It waits in quarantine for its group.
    pub deferred: bool,
    /// It was not reset since a guest had it; see [`Device::needs_reset`](super::Device::needs_reset).
    pub needs_reset: bool,
}

impl<P: Platform> Lifecycle<P> {
    /// What is known of the device at this address.
    pub fn status(&self, address: Sbdf) -> Option<DeviceStatus> {
        self.registry().status(address).map(|status| self.complete(status))
    }

    /// Every present device, in address order: a walk, which sees what comes and goes meanwhile.
    pub fn devices(&self) -> impl Iterator<Item = DeviceStatus> + '_ {
        self.registry().devices().map(|status| self.complete(status))
    }

    fn complete(&self, status: Status) -> DeviceStatus {
        let attachments = Vec::new();
        let mut complete =
            DeviceStatus { status, attachments, broken: None, deferred: false, needs_reset: false };
        if let Ok(device) = self.lock(complete.status.address) {
            (complete.broken, complete.deferred) = (device.broken(), device.is_deferred());
            complete.needs_reset = device.needs_reset();
            if complete.attachments.try_reserve_exact(device.attachments().count()).is_ok() {
                complete.attachments.extend(device.attachments());
            }
        }
        complete
    }
}
