//! The hooks: each asks the watch, then does its work on atomics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::function::Function;
use super::iommu::{Dma, Entry};
use super::journal::{Call, Detail, Hook};
use super::policy::ResetSupport;
use super::watch::{BIND, RULES};
use super::{OnBind, Simulated, Stopped, locked};
use crate::address::{Bus, DevFn, Sbdf};
use crate::errno::Errno;
use crate::owner::{DomainId, Owner};
use crate::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope, Switch,
    Width,
};
use crate::sync::RawLock;
use crate::transition::Transition;

const NO_ATS: HookError = HookError::new(Errno::EOPNOTSUPP, "the function has no ATS");
const NO_RESET: HookError = HookError::new(Errno::EOPNOTSUPP, "the device cannot be reset");
const BUSY: HookError = HookError::new(Errno::ETIMEDOUT, "bus mastering is on: requests never end");
/// The address of a bridge's bus numbers.
const BUS_NUMBERS: u16 = 0x18;
const HEADER_TYPE: u16 = 0x0e;

impl<D: Send, L: RawLock> Platform for Simulated<D, L> {
    type Data = D;
    type Lock = L;

    #[inline]
    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        let call = || {
            let detail = Detail::Access { offset, width, value: None };
            Call::of(Hook::ConfigRead, device).detail(detail)
        };
        let registers = self.places.find(device).and_then(Function::registers);
        match (self.watch.pass_config(call), registers) {
            (Ok(()), Some(registers)) => registers.read(offset, width),
            _ => ones(width),
        }
    }

    #[inline]
    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        let call = || {
            let detail = Detail::Access { offset, width, value: Some(value) };
            Call::of(Hook::ConfigWrite, device).detail(detail)
        };
        let passed = self.watch.pass_config(call);
        let registers = self.places.find(device).and_then(Function::registers);
        if let (Ok(()), Some(registers)) = (passed, registers) {
            registers.write(offset, width, value);
        }
    }

    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        self.watch.pass(|| Call::of(Hook::Facts, device))?;
        Ok(self.places.find(device).map_or_else(Facts::default, Function::facts))
    }

    #[inline]
    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        let call = || Call::of(Hook::Permit, request.device).detail(Detail::Request(*request));
        self.watch.pass(call).map_err(|_| Refusal::Denied)?;
        if self.watch.is_on(RULES) { self.judge(request) } else { Ok(()) }
    }

    #[inline]
    fn has_driver(&self, device: Sbdf) -> bool {
        let failed = self.watch.pass(|| Call::of(Hook::HasDriver, device)).is_err();
        failed || self.places.find(device).is_some_and(|place| place.driver.load(Ordering::Relaxed))
    }

    #[inline]
    fn group_in_use(&self, group: GroupId) -> bool {
        let call = || Call::without_device(Hook::GroupInUse).detail(Detail::Group(group));
        let failed = self.watch.pass(call).is_err();
        let any = self.open_group_count.load(Ordering::Relaxed) != 0;
        failed || any && locked(&self.open_groups).contains(&group)
    }

    #[inline]
    fn now(&self) -> u64 {
        let advanced = self.advanced.load(Ordering::Relaxed);
        let running = self.running.get().map_or(0, |since| since.elapsed().as_nanos());
        advanced.saturating_add(u64::try_from(running).unwrap_or(u64::MAX))
    }

    #[inline]
    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        let call = || Call::of(Hook::IommuAttach, device).requester(requester).detail(Detail::Owner(owner));
        self.watch.pass(call)?;
        self.change(device, requester, Entry::Attached(owner));
        Ok(())
    }

    #[inline]
    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::IommuBlock, device).requester(requester))?;
        self.change(device, requester, Entry::Blocked);
        Ok(())
    }

    #[inline]
    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::IommuDetach, device).requester(requester))?;
        self.change(device, requester, Entry::Absent);
        Ok(())
    }

    #[inline]
    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::IommuFlush, device))?;
        self.each_requester(device, |place| place.translation.flush());
        Ok(())
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        self.watch.pass(|| Call::of(Hook::DmaBlocked, device))?;
        let mut blocked = true;
        self.each_requester(device, |place| {
            blocked &= !matches!(place.translation.resolve(), Dma::Reaches(_))
        });
        Ok(blocked)
    }

    #[inline]
    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::SetAts, device).detail(Detail::Switch(ats)))?;
        let Some(registers) = self.places.find(device).and_then(Function::registers) else { return Ok(()) };
        if ats == Switch::On && !registers.has_ats() {
            return Err(NO_ATS);
        }
        registers.set_ats(ats);
        Ok(())
    }

    #[inline]
    fn await_idle(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::AwaitIdle, device))?;
        if self.places.find(device).is_some_and(Function::masters) { Err(BUSY) } else { Ok(()) }
    }

    #[inline]
    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        self.watch.pass(|| Call::of(Hook::ResetScope, device).detail(Detail::Why(why)))?;
        match self.places.find(device).map(Function::reset_support).unwrap_or_default() {
            ResetSupport::Missing => Err(NO_RESET),
            support => Ok(support.scope()),
        }
    }

    #[inline]
    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::Reset, device).detail(Detail::Reset(scope, kind)))?;
        match scope {
            ResetScope::Function => self.reset_function(device),
            ResetScope::Slot => self.reset_slot(device),
            ResetScope::Bus => self.reset_bus(device, device.bus()),
        }
        Ok(())
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::MsixPrepare, device))?;
        self.places.place(device).msix_prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::MsixRelease, device))?;
        self.places.place(device).msix_prepared.store(false, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    fn bind(&self, device: &dyn Claimed<D>, owner: Owner) -> Result<Binding<D>, HookError> {
        self.watch.pass(|| Call::of(Hook::Bind, device.address()).detail(Detail::Owner(owner)))?;
        match self.binder() {
            Some(bind) => bind(device, owner),
            None => Ok(None),
        }
    }

    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::AskUnplug, device).detail(Detail::Guest(guest)))?;
        locked(&self.asked).push((device, guest));
        Ok(())
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        let call = || Call::of(Hook::StopGuest, device).detail(Detail::Guest(guest));
        // There is nobody to tell of an error.
        let _ = self.watch.pass(call);
        locked(&self.stopped).push(Stopped { guest, device, because });
    }
}

impl<D, L> Simulated<D, L> {
    #[inline]
    fn change(&self, device: Sbdf, requester: Sbdf, entry: Entry) {
        let place = self.places.place(requester);
        place.translation.change(entry);
        let through = if device == requester { place } else { self.places.place(device) };
        through.touch(device, requester);
    }

    /// Calls `step` for every requester ID whose entry was ever changed through this device.
    #[inline]
    fn each_requester(&self, device: Sbdf, mut step: impl FnMut(&Function)) {
        let Some(place) = self.places.find(device) else { return };
        let mut here = place.touched_here();
        while here != 0 {
            let function =
                DevFn::from_bits(device.devfn().bits() & !7 | here.trailing_zeros().to_le_bytes()[0]);
            here &= here - 1;
            self.places.find(device.with_devfn(function)).into_iter().for_each(&mut step);
        }
        for requester in place.touched_elsewhere() {
            self.places.find(requester).into_iter().for_each(&mut step);
        }
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        locked(&self.rules).iter().try_for_each(|rule| rule.judge(request))
    }

    /// What to call for a new owner: taken out of its lock first, since it may lock the device.
    fn binder(&self) -> Option<Arc<OnBind<D>>> {
        if self.watch.is_on(BIND) { locked(&self.on_bind).clone() } else { None }
    }

    fn reset_function(&self, function: Sbdf) {
        self.places.find(function).into_iter().for_each(Function::reset);
    }

    fn reset_slot(&self, device: Sbdf) {
        let functions = (0..8).filter_map(|function| DevFn::new(device.device(), function));
        functions.for_each(|devfn| self.reset_function(device.with_devfn(devfn)));
    }

    /// Resets a bus, and those behind the bridges there.
    fn reset_bus(&self, device: Sbdf, bus: Bus) {
        let Some(places) = self.places.bus(device.segment(), bus) else { return };
        places.iter().for_each(Function::reset);
        let below = places.iter().filter_map(buses_below).flat_map(|(first, last)| first..=last);
        // Only buses of higher numbers lie below a bridge, and those of nested bridges are in its own range.
        for below in below.filter(|below| *below > bus.number()) {
            let places = self.places.bus(device.segment(), Bus::new(below));
            places.into_iter().flatten().for_each(Function::reset);
        }
    }
}

/// The first and last bus behind a bridge that has them.
fn buses_below(place: &Function) -> Option<(u8, u8)> {
    let registers = place.registers()?;
    let is_bridge = registers.read(HEADER_TYPE, Width::Byte) & 0x7f == 1;
    let [_, secondary, subordinate, _] = registers.read(BUS_NUMBERS, Width::Dword).to_le_bytes();
    (is_bridge && secondary != 0).then_some((secondary, subordinate))
}

/// What nobody answers.
const fn ones(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword => u32::MAX,
    }
}
