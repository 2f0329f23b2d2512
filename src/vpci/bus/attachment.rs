//! A function as what a binding sets up, and its end undoes.

use alloc::boxed::Box;

use super::Bus;
use super::executor::{self, Reach, under_lock};
use super::waiting::{self, Waits};
use super::wiring::{Target, Wiring};
use super::{Modelled, Shared};
use crate::memory::{self, NoMemory, try_box};
use crate::platform::{Attachment, AttachmentKind, Claimed, Hardware, HookError};
use crate::sync::{AtomicUsize, Ordering, RawLock, Site, weakened};
use crate::vpci::function::Function;

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
        let live = memory::Shared::try_new(AtomicUsize::new(0))?;
        function.tell_live_to(live.clone());
        let bound: Box<dyn Attachment<X>> = try_box(Bound { bus: self.clone(), kept: None, live })?;
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
    /// How many vectors of it are live.
    live: memory::Shared<AtomicUsize>,
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
        self.live.load(Ordering::Relaxed)
    }

    fn undo(&mut self, device: &dyn Claimed<X>, _: Hardware) -> Result<(), HookError> {
        let (reach, Shared { mapper, wiring, .. }) = (Taken(device), &*self.bus.shared);
        under_lock(&reach, Function::veil);
        let is_running = || under_lock(&reach, |function| function.running()).flatten();
        if !weakened(Site::UndoWaitsForEffect) {
            waiting::until(mapper, wiring, || !executor::is_in_the_way(is_running()));
        }
        let target = self.bus.target(device.address());
        let silenced = executor::silence(&reach, mapper, wiring, target);
        device.with(&mut |data| self.kept = data.function().take());
        mapper.wake();
        silenced
    }

    fn redo(&mut self, device: &dyn Claimed<X>) -> Result<(), HookError> {
        let Shared { mapper, wiring, .. } = &*self.bus.shared;
        device.with(&mut |data| *data.function() = self.kept.take());
        let reach = Taken(device);
        under_lock(&reach, Function::unveil);
        let target = self.bus.target(device.address());
        executor::drive(&reach, mapper, wiring, target);
        Ok(())
    }
}

impl<D, W, L: RawLock> Bus<D, W, L> {
    /// A device by both addresses, as far as the map knows them: one that has no BAR enabled was never seen.
    fn target(&self, device: crate::address::Sbdf) -> Target {
        let seen_at = self.shared.mapper.seen_at(device).unwrap_or(device);
        Target { device, seen_at }
    }
}
