//! A function as what a binding sets up, and its end undoes.

use alloc::boxed::Box;

use super::Bus;
use super::executor::{self, Reach, under_lock};
use super::waiting::{self, Waits};
use super::wiring::{Target, Wiring};
use super::{Modelled, Shared};
use crate::memory::{self, NoMemory, try_box};
use crate::platform::{Attachment, AttachmentKind, Claimed, Hardware, HookError};
use crate::sync::{RawLock, Site, weakened};
use crate::vpci::function::{Bond, Function};

impl<D: Modelled, W: Wiring, L: RawLock> Bus<D, W, L> {
    /// Gives a device its function, and returns what takes it back: for [`Platform::bind`](crate::platform::Platform::bind).
    ///
    /// Undoing it, the device reads ones at once, what is being carried out ends, and what was mapped, routed and
    /// asserted is not any more; redoing it, everything is as it was.
    ///
    /// [`NoMemory`]: the function is dropped and the device has none.
    pub fn bind<X: Modelled>(
        &self,
        device: &dyn Claimed<X>,
        mut function: Function,
    ) -> Result<Box<dyn Attachment<X>>, NoMemory>
    where
        D: Send + 'static,
        L: 'static,
        W: 'static,
    {
        let bond = memory::Shared::try_new(Bond::new())?;
        function.join(bond.clone());
        let bound: Box<dyn Attachment<X>> = try_box(Bound { bus: self.clone(), kept: None, bond })?;
        let mut function = Some(function);
        device.with(&mut |data| {
            if let Some(function) = function.take() {
                *data.function() = Some(function);
            }
        });
        Ok(bound)
    }
}

/// The function of a device that is bound.
struct Bound<D, W, L: RawLock> {
    bus: Bus<D, W, L>,
    /// What was taken from the device, until the binding ends for good.
    kept: Option<Function>,
    bond: memory::Shared<Bond>,
}

/// The function of a claimed device.
struct Taken<'a, X>(&'a dyn Claimed<X>);

impl<X: Modelled> Reach for Taken<'_, X> {
    fn with(&self, step: &mut dyn FnMut(&mut Function)) {
        self.0.with(&mut |data| {
            if let Some(function) = data.function() {
                step(function);
            }
        });
    }
}

impl<X: Modelled, D: Modelled + Send, W: Wiring, L: RawLock> Attachment<X> for Bound<D, W, L> {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn vectors(&self) -> usize {
        self.bond.live()
    }

    fn undo(&mut self, device: &dyn Claimed<X>, hardware: Hardware) -> Result<(), HookError> {
        let (reach, Shared { mapper, wiring, .. }) = (Taken(device), &*self.bus.shared);
        under_lock(&reach, |function| {
            function.veil();
            if hardware == Hardware::Gone {
                function.lose_hardware();
            }
        });
        if !weakened(Site::UndoWaitsForEffect) {
            let is_free = || !under_lock(&reach, |function| function.is_in_the_way()).unwrap_or(false);
            waiting::until(mapper, wiring, is_free);
        }
        let silenced = executor::silence(&reach, mapper, wiring, target(device));
        if silenced.is_ok() {
            device.with(&mut |data| self.kept = data.function().take());
        }
        // If not, it stays as it is, veiled: it knows what is left, for whoever tries again.
        mapper.wake();
        silenced
    }

    fn redo(&mut self, device: &dyn Claimed<X>) -> Result<(), HookError> {
        let Shared { mapper, wiring, .. } = &*self.bus.shared;
        device.with(&mut |data| {
            if let Some(kept) = self.kept.take() {
                *data.function() = Some(kept);
            }
        });
        let reach = Taken(device);
        under_lock(&reach, Function::come_back);
        executor::drive(&reach, mapper, wiring, target(device));
        Ok(())
    }
}

/// A device by both addresses, as far as its function knows them: one that never asked for anything was never seen.
fn target<X: Modelled>(device: &dyn Claimed<X>) -> Target {
    let seen_at = under_lock(&Taken(device), |function| function.seen_at()).flatten();
    let device = device.address();
    Target { device, seen_at: seen_at.unwrap_or(device) }
}
