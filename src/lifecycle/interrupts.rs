//! The MSI-X table, mapped for the host before another domain gets the device.

use super::Lifecycle;
use super::claims::Claims;
use super::error::TransitionError;
use super::event::Span;
use super::reset::Rebind;
use super::steps::{self, Plan};
use crate::Sbdf;
use crate::platform::{AttachmentKind, Platform};
use crate::transition::Transition;

impl<P: Platform> Lifecycle<P> {
    /// Maps the MSI-X table for the host. Does nothing if it is mapped. An attachment of the device from then on,
    /// through assignments, until it is released or the device is removed.
    pub fn msi_prepare(&self, address: Sbdf) -> Result<(), TransitionError> {
        self.change_msix_table(address, true, steps::PREPARE_MSIX)
    }

    /// Unmaps it again. Does nothing if it is not mapped. Also while a removal is pending.
    pub fn msi_release(&self, address: Sbdf) -> Result<(), TransitionError> {
        self.change_msix_table(address, false, steps::RELEASE_MSIX)
    }

    fn change_msix_table(
        &self,
        address: Sbdf,
        mapped: bool,
        steps: &'static Plan,
    ) -> Result<(), TransitionError> {
        let span = Span::begin(self, Transition::Interrupts);
        let mut claims = Claims::new(self);
        claims.reserve(1)?;
        let claimed = self.registry().claim(address, Transition::Interrupts, |device| {
            let device = device.data();
            if device.known.msix.is_none() {
                return Err(TransitionError::NoMsix(address));
            }
            if device.bound.has(AttachmentKind::MsiVector) {
                return Err(TransitionError::VectorsInUse(address));
            }
            Ok((device.condition.msix_table != mapped).then_some(()))
        });
        let Some((claim, ())) = span.refused(address, claimed)? else { return Ok(()) };
        let owner = claim.owner();
        claims.push(claim, owner, None);
        span.refused(address, self.permit_in_place(Transition::Interrupts, address, owner))?;
        self.in_place(&claims, steps, Rebind::MsixTable(mapped), &span, |_| {})
    }
}
