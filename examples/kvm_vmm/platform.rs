//! This VMM as a platform: all of its devices are software.

use std::sync::OnceLock;
use std::time::Instant;

use pcidevs::lifecycle::Device;
use pcidevs::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope, Switch,
    Width,
};
use pcidevs::vpci::{Bus, Function, Modelled};
use pcidevs::{DefaultLock, DomainId, Errno, Owner, Sbdf, Transition};

use super::devices::Model;
use super::wiring::Wires;

/// The guest's bus in this VMM.
pub(crate) type GuestBus = Bus<Device<Vmm>, Wires>;
/// A vCPU's way to it.
pub(crate) type GuestVcpu = pcidevs::vpci::Vcpu<Device<Vmm>, Wires>;

/// What is kept per device: what it is, and the function its guest sees.
pub(crate) struct Plugged {
    model: Model,
    function: Option<Function>,
}

impl Plugged {
    pub(crate) fn new(model: Model) -> Self {
        Self { model, function: None }
    }
}

impl Modelled for Plugged {
    fn function(&mut self) -> &mut Option<Function> {
        &mut self.function
    }
}

/// The machine around one guest.
pub(crate) struct Vmm {
    /// Made after the life cycle, which has to know the guest first.
    bus: OnceLock<GuestBus>,
    started: Instant,
}

const NO_BUS: HookError = HookError::new(Errno::ENODEV, "the guest has no bus");

impl Vmm {
    pub(crate) fn new() -> Self {
        Self { bus: OnceLock::new(), started: Instant::now() }
    }

    /// The guest's bus. Once.
    pub(crate) fn set_bus(&self, bus: GuestBus) -> Result<(), GuestBus> {
        self.bus.set(bus)
    }
}

impl Platform for Vmm {
    type Data = Plugged;
    type Lock = DefaultLock;

    /// The host has no configuration space of a software device. This is the header of some endpoint, with nothing in
    /// it that a transition would have to quiesce.
    fn config_read(&self, _: Sbdf, offset: u16, width: Width) -> u32 {
        match (offset, width) {
            (0, Width::Byte | Width::Word) => 0x34,
            (0, Width::Dword) => 0x0001_1b34,
            _ => 0,
        }
    }

    fn config_write(&self, _: Sbdf, _: u16, _: Width, _: u32) {}

    fn facts(&self, _: Sbdf) -> Result<Facts, HookError> {
        Ok(Facts::default())
    }

    fn permit(&self, _: &Request) -> Result<(), Refusal> {
        Ok(())
    }

    fn has_driver(&self, _: Sbdf) -> bool {
        false
    }

    fn group_in_use(&self, _: GroupId) -> bool {
        false
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    // A software device reaches memory through this process only, so there is nothing to attach, block or flush.

    fn iommu_attach(&self, _: Sbdf, _: Sbdf, _: Owner) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_block(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_detach(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn iommu_flush(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn dma_blocked(&self, _: Sbdf) -> Result<bool, HookError> {
        Ok(true)
    }

    fn set_ats(&self, _: Sbdf, _: Switch) -> Result<(), HookError> {
        Ok(())
    }

    fn await_idle(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    /// Every guest gets a new function: none has to be reset.
    fn reset_scope(&self, _: Sbdf, _: Transition) -> Result<Option<ResetScope>, HookError> {
        Ok(None)
    }

    fn reset(&self, _: Sbdf, _: ResetScope, _: Option<ResetKind>) -> Result<(), HookError> {
        Ok(())
    }

    fn msix_prepare(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn msix_release(&self, _: Sbdf) -> Result<(), HookError> {
        Ok(())
    }

    fn bind(&self, device: &dyn Claimed<Plugged>, owner: Owner) -> Result<Binding<Plugged>, HookError> {
        let Owner::Guest(_) = owner else { return Ok(None) };
        let mut built = None;
        device.with(&mut |plugged| built = Some(plugged.model.clone()));
        let model = built.ok_or(NO_BUS)?;
        let function =
            model.build().map_err(|error| HookError::new(error.errno(), "there can be no such device"))?;
        let bus = self.bus.get().ok_or(NO_BUS)?;
        let bound = bus.bind(device, function);
        bound.map(Some).map_err(|_| HookError::new(Errno::ENOMEM, "no memory for the function"))
    }

    fn ask_unplug(&self, _: Sbdf, _: DomainId) -> Result<(), HookError> {
        Err(HookError::new(Errno::EOPNOTSUPP, "this guest has no hot-plug events"))
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        // Not in this VMM's power to go on: a device might still reach the guest.
        eprintln!("domain {guest} is stopped: {device}: {because}");
        std::process::abort();
    }
}
