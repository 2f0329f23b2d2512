//! What events cost when nobody subscribes.
//!
//! Compared is the same transition on the same platform, with reporting *compiled out*
//! ([`Platform::reports_events`] is a constant `false`, so that the question whether anybody watches is not even
//! asked) and with reporting as every embedder has it, and no subscriber. Beside them: a machine whose subscriber has
//! left again, and one with a subscriber that does nothing, which reads the clock twice.
//!
//! There are few devices, so that nothing waits for memory: the harder comparison.

use std::sync::Arc;

use pcidevs::lifecycle::Subscriber;
use pcidevs::platform::{
    Binding, Claimed, Facts, GroupId, HookError, Platform, Refusal, Request, ResetKind, ResetScope,
    Simulated, Switch, Width,
};
use pcidevs::{DefaultLock, DomainId, Member, Owner, Sbdf, Transition};

use crate::machine::{Ids, Machine, State};
use crate::measuring::order::random_order;
use crate::measuring::rounds::{Candidate, Effort, PLACEMENTS, Results};

pub(crate) const GROUP: &str = "n=64, assign + deassign, events";
pub(crate) const COMPILED_OUT: &str = "reporting compiled out";
pub(crate) const NOBODY: &str = "no subscriber";
pub(crate) const LEFT: &str = "a subscriber that has left";
pub(crate) const IDLE: &str = "a subscriber that does nothing";

/// The simulated machine, with or without events.
struct Reporting<const REPORTS: bool>(Simulated<State>);

impl<const REPORTS: bool> Platform for Reporting<REPORTS> {
    type Data = State;
    type Lock = DefaultLock;

    #[inline]
    fn reports_events(&self) -> bool {
        REPORTS
    }

    #[inline]
    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        self.0.config_read(device, offset, width)
    }

    #[inline]
    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        self.0.config_write(device, offset, width, value);
    }

    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        self.0.facts(device)
    }

    #[inline]
    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        self.0.permit(request)
    }

    #[inline]
    fn has_driver(&self, device: Sbdf) -> bool {
        self.0.has_driver(device)
    }

    #[inline]
    fn group_in_use(&self, group: GroupId) -> bool {
        self.0.group_in_use(group)
    }

    #[inline]
    fn now(&self) -> u64 {
        self.0.now()
    }

    #[inline]
    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        self.0.iommu_attach(device, requester, owner)
    }

    #[inline]
    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.0.iommu_block(device, requester)
    }

    #[inline]
    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.0.iommu_detach(device, requester)
    }

    #[inline]
    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError> {
        self.0.iommu_flush(device)
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        self.0.dma_blocked(device)
    }

    #[inline]
    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError> {
        self.0.set_ats(device, ats)
    }

    #[inline]
    fn await_idle(&self, device: Sbdf) -> Result<(), HookError> {
        self.0.await_idle(device)
    }

    #[inline]
    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        self.0.reset_scope(device, why)
    }

    #[inline]
    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError> {
        self.0.reset(device, scope, kind)
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.0.msix_prepare(device)
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.0.msix_release(device)
    }

    #[inline]
    fn bind(&self, device: &dyn Claimed<State>, owner: Owner) -> Result<Binding<State>, HookError> {
        self.0.bind(device, owner)
    }

    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError> {
        self.0.ask_unplug(device, guest)
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        self.0.stop_guest(guest, device, because);
    }
}

/// A machine, and the order in which its devices go.
struct Watched<const REPORTS: bool> {
    machine: Machine<Reporting<REPORTS>>,
    order: [Vec<[Member; 1]>; 1],
}

impl<const REPORTS: bool> Watched<REPORTS> {
    fn new() -> Self {
        let platform = Reporting::<REPORTS>(Simulated::new());
        // A clock that runs: who watches has to read it.
        platform.0.run_clock();
        let machine = Machine::on(platform, |platform| &platform.0, 64, Ids::One);
        Self { order: [random_order(&machine.singles())], machine }
    }

    fn candidate(&self, name: &str) -> Candidate<'_> {
        Candidate::visiting(name, &self.order, |device| self.machine.pair(device))
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let idle: Subscriber = Arc::new(|_| ());
    for placement in 0..PLACEMENTS {
        // Moves everything that is allocated next.
        let shift = vec![0_u8; 4096 + 1040 * placement];
        let compiled_out = Watched::<false>::new();
        let [nobody, left, watched] = std::array::from_fn(|_| Watched::<true>::new());
        let watch = |machine: &Watched<true>| machine.machine.life.subscribe(idle.clone()).expect("memory");
        let gone = watch(&left);
        assert!(left.machine.life.unsubscribe(gone));
        watch(&watched);
        let candidates = [
            compiled_out.candidate(COMPILED_OUT),
            nobody.candidate(NOBODY),
            left.candidate(LEFT),
            watched.candidate(IDLE),
        ];
        results.measure(GROUP, &candidates, &effort.fewer(PLACEMENTS));
        drop(candidates);
        drop(shift);
    }
}
