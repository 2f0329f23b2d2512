//! What befalls writes, wherever they go: to the kernel, to the store, to the hypervisor. They are counted together, so
//! that "the k-th write fails" and "the process ends before the k-th write" are one loop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pcidevs::host::fake::{Fake, Mishap};
use pcidevs::xen::hypercall::{
    Access, DomainInfo, Frames, Gsi, Hypercall, HypercallError, Hypervisor, Pirq, Ports, Simulated,
};
use pcidevs::xen::spec::RdmPolicy;
use pcidevs::xen::store::{End, Event, Refusal, Reply, Request, Store, StoreError, TransactionId};
use pcidevs::{DomainId, Errno, Sbdf};

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It fails, and has done nothing.
    Fails,
    /// The process ends before it.
    Ends,
}

#[derive(Default)]
struct State {
    count: usize,
    blows: Vec<(usize, Blow)>,
    is_dead: bool,
    struck: usize,
}

/// Shared by all that can be written to.
#[derive(Clone, Default)]
pub(crate) struct Fate(Arc<Mutex<State>>);

impl Fate {
    /// Counting begins anew; these are to come.
    pub(crate) fn expect(&self, blows: &[(usize, Blow)]) {
        *self.0.lock().expect("no test panics here") = State { blows: blows.to_vec(), ..State::default() };
    }

    /// How many of those that were expected have come.
    pub(crate) fn struck(&self) -> usize {
        self.0.lock().expect("no test panics here").struck
    }

    fn is_dead(&self) -> bool {
        self.0.lock().expect("no test panics here").is_dead
    }

    pub(crate) fn strike(&self) -> Option<Blow> {
        let mut state = self.0.lock().expect("no test panics here");
        if state.is_dead {
            return Some(Blow::Ends);
        }
        state.count += 1;
        let count = state.count;
        let blow = state.blows.iter().find(|(at, _)| *at == count).map(|(_, blow)| *blow);
        state.struck += usize::from(blow.is_some());
        state.is_dead |= blow == Some(Blow::Ends);
        blow
    }

    /// The kernel's writes count too.
    pub(crate) fn rules(&self, kernel: &Fake) {
        let fate = self.clone();
        kernel.on_write(move |_, _| {
            fate.strike().map(|blow| match blow {
                Blow::Fails => Mishap::Error(Errno::EIO),
                Blow::Ends => Mishap::Crash,
            })
        });
    }
}

/// A store in the hands of fate.
pub(crate) struct FatedStore {
    pub(crate) inner: Box<dyn Store + Send>,
    pub(crate) fate: Fate,
}

/// A hypervisor in the hands of fate.
pub(crate) struct Fated<H> {
    pub(crate) inner: H,
    pub(crate) fate: Fate,
}

impl Store for FatedStore {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        if self.fate.is_dead() {
            return Err(StoreError::Closed);
        }
        if matches!(request, Request::End(End::Commit)) {
            match self.fate.strike() {
                None => {}
                Some(Blow::Fails) => {
                    self.inner.request(transaction, &Request::End(End::Discard))?;
                    return Err(Refusal::NoSpace.into());
                }
                Some(Blow::Ends) => return Err(StoreError::Closed),
            }
        }
        self.inner.request(transaction, request)
    }

    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError> {
        if self.fate.is_dead() { Err(StoreError::Closed) } else { self.inner.next_event(until) }
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }
}

impl<H> Fated<H> {
    fn ask<T>(
        &self,
        domain: DomainId,
        call: Hypercall,
        ask: impl FnOnce(&H) -> Result<T, HypercallError>,
    ) -> Result<T, HypercallError> {
        match self.fate.strike() {
            None => ask(&self.inner),
            Some(_) => Err(HypercallError::Refused { call, domain, errno: Errno::EIO }),
        }
    }
}

impl Hypervisor for Fated<Arc<Simulated>> {
    fn domain(&self, domain: DomainId) -> Result<DomainInfo, HypercallError> {
        self.inner.domain(domain)
    }

    fn test_assign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        self.inner.test_assign_device(domain, device)
    }

    fn assign_device(&self, domain: DomainId, device: Sbdf, policy: RdmPolicy) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Assign(device), |xen| xen.assign_device(domain, device, policy))
    }

    fn deassign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Deassign(device), |xen| xen.deassign_device(domain, device))
    }

    fn iomem_permission(
        &self,
        domain: DomainId,
        frames: Frames,
        access: Access,
    ) -> Result<(), HypercallError> {
        let call = Hypercall::Iomem(frames, access);
        self.ask(domain, call, |xen| xen.iomem_permission(domain, frames, access))
    }

    fn ioport_permission(
        &self,
        domain: DomainId,
        ports: Ports,
        access: Access,
    ) -> Result<(), HypercallError> {
        let call = Hypercall::Ioport(ports, access);
        self.ask(domain, call, |xen| xen.ioport_permission(domain, ports, access))
    }

    fn map_pirq(&self, domain: DomainId, gsi: Gsi) -> Result<Pirq, HypercallError> {
        self.ask(domain, Hypercall::MapPirq(gsi), |xen| xen.map_pirq(domain, gsi))
    }

    fn unmap_pirq(&self, domain: DomainId, pirq: Pirq) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::UnmapPirq(pirq), |xen| xen.unmap_pirq(domain, pirq))
    }

    fn irq_permission(&self, domain: DomainId, pirq: Pirq, access: Access) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Irq(pirq, access), |xen| xen.irq_permission(domain, pirq, access))
    }
}
