//! A machine of one function, whose hooks panic or fail on request.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcidevs::address::{Bus, DevFn, Segment};
use pcidevs::lifecycle::Lifecycle;
use pcidevs::platform::{
    Attachment, AttachmentKind, Binding, Claimed, Facts, GroupId, Hardware, HookError, Platform, Refusal,
    Request, ResetKind, ResetScope, Switch, Width,
};
use pcidevs::sync::{WAIT_BUCKETS, WaitBucket, WaitTable};
use pcidevs::{DomainId, Errno, Owner, RawLock, Sbdf, Transition};

pub(crate) type Machine = Lifecycle<Explosive>;

pub(crate) const NIC: Sbdf = Sbdf::new(Segment::new(0), Bus::new(0), DevFn::from_bits(3 << 3));

const EIO: HookError = HookError::new(Errno::EIO, "the test says so");

pub(crate) fn machine() -> Machine {
    Lifecycle::new(Explosive::default()).expect("memory")
}

/// Whether a hook panics before its work or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What can be seen of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Whom the function's requests reach; inside, `None` is nobody.
    pub(crate) entry: Option<Option<Owner>>,
    pub(crate) command: u16,
    /// How many views owners have.
    pub(crate) views: usize,
}

#[derive(Default)]
pub(crate) struct Explosive {
    state: Arc<Mutex<State>>,
    charges: Arc<Mutex<Charges>>,
}

#[derive(Default)]
struct Charges {
    panic: Option<(&'static str, Moment)>,
    fail: Option<&'static str>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Charges {
    /// What a hook meets, once.
    fn hook<R>(charges: &Mutex<Self>, name: &str, work: impl FnOnce() -> R) -> Result<R, HookError> {
        let (panics, fails) = {
            let mut charges = locked(charges);
            let panics = charges.panic.take_if(|(hook, _)| *hook == name);
            (panics.map(|(_, moment)| moment), charges.fail.take_if(|hook| *hook == name))
        };
        let explode = |at| {
            if panics == Some(at) {
                // Not `panic!`, which would print.
                std::panic::resume_unwind(Box::new("the test says so"));
            }
        };
        explode(Moment::Before);
        if fails.is_some() {
            return Err(EIO);
        }
        let result = work();
        explode(Moment::After);
        Ok(result)
    }
}

impl Explosive {
    /// The next call of this hook panics.
    pub(crate) fn explode(&self, hook: &'static str, moment: Moment) {
        locked(&self.charges).panic = Some((hook, moment));
    }

    /// The next call of this hook fails.
    pub(crate) fn fail(&self, hook: &'static str) {
        locked(&self.charges).fail = Some(hook);
    }

    pub(crate) fn state(&self) -> State {
        locked(&self.state).clone()
    }

    pub(crate) fn set_command(&self, command: u16) {
        locked(&self.state).command = command;
    }

    pub(crate) fn is_untouched(&self) -> bool {
        let state = locked(&self.state);
        state.entry.is_none() && state.views == 0
    }

    fn hook<R>(&self, name: &str, work: impl FnOnce(&mut State) -> R) -> Result<R, HookError> {
        Charges::hook(&self.charges, name, || work(&mut locked(&self.state)))
    }
}

impl Platform for Explosive {
    type Data = ();
    type Lock = Spin;

    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        let ones = u32::MAX >> (32 - 8 * width as u32);
        if device != NIC || offset >= 0x100 {
            return ones;
        }
        let command = u32::from(locked(&self.state).command);
        let dword = match offset & !3 {
            0 => 0x10d3_8086,
            4 => command,
            8 => 0x0200_0000,
            _ => 0,
        };
        dword >> (8 * (offset & 3)) & ones
    }

    fn config_write(&self, _: Sbdf, offset: u16, _: Width, value: u32) {
        if offset == 4 {
            locked(&self.state).command = u16::try_from(value & 0xffff).unwrap_or_default();
        }
    }

    fn facts(&self, _: Sbdf) -> Result<Facts, HookError> {
        self.hook("facts", |_| Facts::default())
    }

    fn permit(&self, _: &Request) -> Result<(), Refusal> {
        self.hook("permit", |_| ()).map_err(|_| Refusal::Denied)
    }

    fn has_driver(&self, _: Sbdf) -> bool {
        false
    }

    fn group_in_use(&self, _: GroupId) -> bool {
        false
    }

    fn now(&self) -> u64 {
        0
    }

    fn iommu_attach(&self, _: Sbdf, _: Sbdf, owner: Owner) -> Result<(), HookError> {
        self.hook("attach", |state| state.entry = Some(Some(owner)))
    }

    fn iommu_block(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        self.hook("block", |state| state.entry = Some(None))
    }

    fn iommu_detach(&self, _: Sbdf, _: Sbdf) -> Result<(), HookError> {
        self.hook("detach", |state| state.entry = None)
    }

    fn iommu_flush(&self, _: Sbdf) -> Result<(), HookError> {
        self.hook("flush", |_| ())
    }

    fn dma_blocked(&self, _: Sbdf) -> Result<bool, HookError> {
        self.hook("dma_blocked", |state| state.entry == Some(None))
    }

    fn set_ats(&self, _: Sbdf, _: Switch) -> Result<(), HookError> {
        self.hook("set_ats", |_| ())
    }

    fn await_idle(&self, _: Sbdf) -> Result<(), HookError> {
        self.hook("await_idle", |_| ())
    }

    fn reset_scope(&self, _: Sbdf, _: Transition) -> Result<Option<ResetScope>, HookError> {
        self.hook("reset_scope", |_| Some(ResetScope::Function))
    }

    fn reset(&self, _: Sbdf, _: ResetScope, _: Option<ResetKind>) -> Result<(), HookError> {
        self.hook("reset", |state| state.command = 0)
    }

    fn msix_prepare(&self, _: Sbdf) -> Result<(), HookError> {
        self.hook("msix_prepare", |_| ())
    }

    fn msix_release(&self, _: Sbdf) -> Result<(), HookError> {
        self.hook("msix_release", |_| ())
    }

    fn bind(&self, _: &dyn Claimed<()>, owner: Owner) -> Result<Binding<()>, HookError> {
        self.hook("bind", |_| ())?;
        if !matches!(owner, Owner::Host | Owner::Guest(_)) {
            return Ok(None);
        }
        let (state, charges) = (self.state.clone(), self.charges.clone());
        locked(&state).views += 1;
        Ok(Some(Box::new(View { state, charges })))
    }

    fn ask_unplug(&self, _: Sbdf, _: DomainId) -> Result<(), HookError> {
        self.hook("ask_unplug", |_| ())
    }

    fn stop_guest(&self, _: DomainId, _: Sbdf, _: HookError) {}
}

/// What an owner sees.
struct View {
    state: Arc<Mutex<State>>,
    charges: Arc<Mutex<Charges>>,
}

impl Attachment<()> for View {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn undo(&mut self, _: &dyn Claimed<()>, _: Hardware) -> Result<(), HookError> {
        Charges::hook(&self.charges, "undo", || locked(&self.state).views -= 1)
    }

    fn redo(&mut self, _: &dyn Claimed<()>) -> Result<(), HookError> {
        Charges::hook(&self.charges, "redo", || locked(&self.state).views += 1)
    }
}

/// A lock that spins, and lets others run.
pub(crate) struct Spin(AtomicBool);

// SAFETY: one compare-exchange admits one thread; Acquire and Release pair.
unsafe impl RawLock for Spin {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn lock(&self) {
        while !self.try_lock() {
            std::thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn current() -> NonZeroUsize {
        thread_local!(static HERE: u8 = const { 0 });
        HERE.with(|here| NonZeroUsize::new(std::ptr::from_ref(here).addr())).expect("an address")
    }

    fn waiters() -> &'static WaitTable<Self> {
        static WAITERS: WaitTable<Spin> = WaitTable::new(
            [const { WaitBucket::from_raw(Spin(AtomicBool::new(false)), Vec::new()) }; WAIT_BUCKETS],
        );
        &WAITERS
    }
}
