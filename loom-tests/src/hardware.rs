//! The simulated machine, with hooks that take time.
//!
//! The machine itself is passive: nothing the model checker sees happens in it. So every hook that touches a device
//! first touches something of that device that the checker does see. Then another thread may run before each hook,
//! and the order of two threads' hooks of one device is explored like every other order.

use core::ops::Deref;

use pcidevs::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope,
    Simulated, Switch, Width,
};
use pcidevs::{DomainId, Owner, Sbdf, Transition};

use crate::Device;
#[cfg(loom)]
use crate::Unlocked;
use crate::checker::sync::atomic::{AtomicUsize, Ordering};

/// A machine of a few functions.
pub struct Hardware {
    machine: Simulated<Device>,
    /// Two, since the models for loom have two. Wherever it is touched, shuttle may switch threads.
    functions: [AtomicUsize; 2],
    /// The platform's own books of a function's flushes, without a lock: see [`iommu_flush`](Platform::iommu_flush).
    #[cfg(loom)]
    flushes: [Unlocked; 2],
}

impl Hardware {
    /// Nothing is plugged in.
    pub fn new() -> Self {
        Self {
            machine: Simulated::new(),
            functions: [AtomicUsize::new(0), AtomicUsize::new(0)],
            #[cfg(loom)]
            flushes: [Unlocked::new(0), Unlocked::new(0)],
        }
    }

    fn touch(&self, device: Sbdf) -> &Simulated<Device> {
        let function = &self.functions[usize::from(device.device() & 1)];
        function.fetch_add(1, Ordering::Relaxed);
        &self.machine
    }
}

impl Default for Hardware {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Hardware {
    type Target = Simulated<Device>;

    fn deref(&self) -> &Self::Target {
        &self.machine
    }
}

impl Platform for Hardware {
    type Data = Device;
    type Lock = pcidevs::DefaultLock;

    // Configuration space is read and written by the hundred, and under the device's lock: that is seen.
    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        self.machine.config_read(device, offset, width)
    }

    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        self.machine.config_write(device, offset, width, value);
    }

    // Questions, which touch nothing.
    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        self.machine.facts(device)
    }

    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        self.machine.permit(request)
    }

    fn has_driver(&self, device: Sbdf) -> bool {
        self.machine.has_driver(device)
    }

    fn group_in_use(&self, group: GroupId) -> bool {
        self.machine.group_in_use(group)
    }

    fn now(&self) -> u64 {
        self.machine.now()
    }

    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        self.machine.reset_scope(device, why)
    }

    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError> {
        self.machine.ask_unplug(device, guest)
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        self.machine.stop_guest(guest, device, because);
    }

    // Deeds.
    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        self.touch(device).iommu_attach(device, requester, owner)
    }

    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.touch(device).iommu_block(device, requester)
    }

    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.touch(device).iommu_detach(device, requester)
    }

    // Two flushes of one function are never at once, and the later one sees what the earlier one did: of one device since
    // who has it in hand has claimed it, of a device and the next one at its address since that comes when the first
    // is cleared up after. The machine has a lock of its own, which loom does not see; so this keeps books without one.
    // (No model has what is left of an add that could not be undone: who comes to its address waits for nobody.)
    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError> {
        let machine = self.touch(device);
        #[cfg(loom)]
        {
            let flushes = &self.flushes[usize::from(device.device() & 1)];
            flushes.set(flushes.get() + 1);
        }
        machine.iommu_flush(device)
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        self.touch(device).dma_blocked(device)
    }

    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError> {
        self.touch(device).set_ats(device, ats)
    }

    fn await_idle(&self, device: Sbdf) -> Result<(), HookError> {
        self.touch(device).await_idle(device)
    }

    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError> {
        self.touch(device).reset(device, scope, kind)
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.touch(device).msix_prepare(device)
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.touch(device).msix_release(device)
    }

    fn bind(&self, device: &dyn Claimed<Device>, owner: Owner) -> Result<Binding<Device>, HookError> {
        self.touch(device.address()).bind(device, owner)
    }
}
