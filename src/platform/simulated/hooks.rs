//! The hooks: each asks the watch, then does its work on atomics.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::function::Function;
use super::iommu::Entry;
use super::journal::{Call, Detail, Hook};
use super::policy::ResetSupport;
use super::watch::{BIND, RULES};
use super::{OnBind, RECORDED, Simulated, Stopped, locked};
use crate::address::{DevFn, Sbdf};
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope, Switch,
    Width,
};
use crate::sync::RawLock;
use crate::transition::Transition;

const NO_ATS: HookError = HookError::new(Errno::EOPNOTSUPP, "the function has no ATS");
const NO_RESET: HookError = HookError::new(Errno::EOPNOTSUPP, "the device cannot be reset");
const NO_MEMORY: HookError = HookError::new(Errno::ENOMEM, "the simulated machine has no memory left");
const BUSY: HookError = HookError::new(Errno::ETIMEDOUT, "bus mastering is on: requests never end");

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
        self.places.find(device).map_or(Ok(Facts::default()), Function::facts).map_err(no_memory)
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
        self.change(device, requester, Entry::Attached(owner))
    }

    #[inline]
    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::IommuBlock, device).requester(requester))?;
        self.change(device, requester, Entry::Blocked)
    }

    #[inline]
    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::IommuDetach, device).requester(requester))?;
        self.change(device, requester, Entry::Absent)
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
            blocked &= place.translation.is_blocked();
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
        self.places.reset(device, scope);
        Ok(())
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::MsixPrepare, device))?;
        self.set_msix_prepared(device, true)
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.watch.pass(|| Call::of(Hook::MsixRelease, device))?;
        self.set_msix_prepared(device, false)
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
        record(&self.asked, (device, guest));
        Ok(())
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        let call = || Call::of(Hook::StopGuest, device).detail(Detail::Guest(guest));
        // There is nobody to tell of an error.
        let _ = self.watch.pass(call);
        record(&self.stopped, Stopped { guest, device, because });
    }
}

impl<D, L> Simulated<D, L> {
    #[inline]
    fn change(&self, device: Sbdf, requester: Sbdf, entry: Entry) -> Result<(), HookError> {
        let place = self.places.place(requester).map_err(no_memory)?;
        let through = if device == requester { Ok(place) } else { self.places.place(device) };
        through.and_then(|through| through.touch(device, requester)).map_err(no_memory)?;
        place.translation.change(entry);
        Ok(())
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
        place.touched_elsewhere(|requester| self.places.find(requester).into_iter().for_each(&mut step));
    }

    fn set_msix_prepared(&self, device: Sbdf, prepared: bool) -> Result<(), HookError> {
        let place = self.places.place(device).map_err(no_memory)?;
        place.msix_prepared.store(prepared, Ordering::Relaxed);
        Ok(())
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        locked(&self.rules).iter().try_for_each(|rule| rule.judge(request))
    }

    /// What to call for a new owner: taken out of its lock first, since it may lock the device.
    fn binder(&self) -> Option<Arc<OnBind<D>>> {
        if self.watch.is_on(BIND) { locked(&self.on_bind).clone() } else { None }
    }
}

/// Records one of the rarer events. The oldest makes room: a machine that runs for days takes no more memory.
fn record<T>(events: &Mutex<VecDeque<T>>, event: T) {
    let mut events = locked(events);
    if events.len() >= RECORDED {
        events.pop_front();
    }
    events.push_back(event);
}

const fn no_memory(_: NoMemory) -> HookError {
    NO_MEMORY
}

/// What nobody answers.
const fn ones(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword => u32::MAX,
    }
}
