//! One in memory, that can fail every call.

mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::call::{Access, Frames, Gsi, Hypercall, Pirq, Ports};
use super::domain::{DomainInfo, DomainLife, Passthrough};
use super::error::HypercallError;
use super::{Hypervisor, QUARANTINE};
use crate::address::Sbdf;
use crate::errno::Errno;
use crate::owner::{DomainId, Owner};
use crate::xen::spec::RdmPolicy;
pub use ranges::Ranges;

/// A hypervisor in memory: it knows domains and devices, remembers what each domain was given, and says no where the real
/// one would, and where it is told to.
///
/// ```
/// use pcidevs::xen::hypercall::{DomainInfo, Hypervisor, Simulated};
/// use pcidevs::xen::spec::RdmPolicy;
/// use pcidevs::{DomainId, Owner, Sbdf};
///
/// let xen = Simulated::new();
/// let (guest, device) = (DomainId::new(3), "0000:03:00.0".parse::<Sbdf>()?);
/// xen.create(DomainInfo::guest(guest));
/// xen.plug(device);
/// xen.assign_device(guest, device, RdmPolicy::Relaxed)?;
/// assert_eq!(xen.owner(device), Some(Owner::Guest(guest)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Simulated {
    state: Mutex<State>,
}

/// What a domain was given beside devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holdings {
    /// Pages, by number.
    pub frames: Ranges,
    /// Ports, by number.
    pub ports: Ranges,
    /// Its physical interrupts, and the lines that they are.
    pub pirqs: BTreeMap<Pirq, Gsi>,
    /// The interrupts that it may use.
    pub irqs: BTreeSet<Pirq>,
}

impl Holdings {
    /// Whether it has nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Default)]
struct State {
    domains: BTreeMap<DomainId, Domain>,
    devices: BTreeMap<Sbdf, Owner>,
    calls: Vec<(DomainId, Hypercall)>,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Domain {
    info: DomainInfo,
    holdings: Holdings,
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The call of this number, counted from the first of all.
    At(usize, Errno),
    /// Each call of this domain that is the same.
    Always(DomainId, Hypercall, Errno),
}

impl Simulated {
    /// A machine with an IOMMU, and with neither devices nor guests.
    pub fn new() -> Self {
        Self::default()
    }

    /// A domain is created, or is now otherwise than it was; what it has stays.
    pub fn create(&self, info: DomainInfo) {
        let mut state = self.lock();
        let holdings = state.domains.remove(&info.domain).map(|domain| domain.holdings).unwrap_or_default();
        state.domains.insert(info.domain, Domain { info, holdings });
    }

    /// A domain is gone. What it was given is nobody's, and its devices are in quarantine.
    pub fn destroy(&self, domain: DomainId) {
        let mut state = self.lock();
        state.domains.remove(&domain);
        for owner in state.devices.values_mut().filter(|owner| **owner == Owner::Guest(domain)) {
            *owner = Owner::Quarantine;
        }
    }

    /// The machine has this device now; it is the host's.
    pub fn plug(&self, device: Sbdf) {
        self.lock().devices.insert(device, Owner::Host);
    }

    /// The machine has this device no more.
    pub fn unplug(&self, device: Sbdf) {
        self.lock().devices.remove(&device);
    }

    /// Whose the device is, if the machine has it.
    pub fn owner(&self, device: Sbdf) -> Option<Owner> {
        self.lock().devices.get(&device).copied()
    }

    /// What the domain was given beside devices; nothing if there is no such domain.
    pub fn holdings(&self, domain: DomainId) -> Holdings {
        self.lock().domains.get(&domain).map(|domain| domain.holdings.clone()).unwrap_or_default()
    }

    /// All calls so far, those that failed included.
    pub fn calls(&self) -> Vec<(DomainId, Hypercall)> {
        self.lock().calls.clone()
    }

    /// The call after so many others fails: 0 is the next one.
    pub fn fail_after(&self, others: usize, errno: Errno) {
        let mut state = self.lock();
        let at = state.calls.len().saturating_add(others);
        state.failures.push(Failure::At(at, errno));
    }

    /// This call fails for this domain, whenever it is made.
    pub fn fail_always(&self, domain: DomainId, call: Hypercall, errno: Errno) {
        self.lock().failures.push(Failure::Always(domain, call, errno));
    }

    /// No call fails any more that would not fail by itself.
    pub fn heal(&self) {
        self.lock().failures.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No call leaves the state half changed: each looks first and then writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T>(
        &self,
        domain: DomainId,
        call: Hypercall,
        answer: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, HypercallError> {
        let mut state = self.lock();
        let number = state.calls.len();
        state.calls.push((domain, call));
        let failure = state.failures.iter().find_map(|&failure| match failure {
            Failure::At(at, errno) if at == number => Some(errno),
            Failure::Always(whose, which, errno) if (whose, which) == (domain, call) => Some(errno),
            _ => None,
        });
        failure.map_or_else(|| answer(&mut state), Err).map_err(|errno| match (call, errno) {
            (Hypercall::Domain, Errno::ESRCH) => HypercallError::NoDomain(domain),
            _ => HypercallError::Refused { call, domain, errno },
        })
    }
}

impl State {
    fn domain(&mut self, domain: DomainId) -> Result<&mut Domain, Errno> {
        self.domains.get_mut(&domain).ok_or(Errno::ESRCH)
    }

    /// The domain, as one that can have devices; quarantine always can.
    fn with_passthrough(&mut self, domain: DomainId) -> Result<Option<DomainLife>, Errno> {
        if domain == QUARANTINE {
            return Ok(None);
        }
        let info = self.domain(domain)?.info;
        if info.passthrough == Passthrough::Disabled { Err(Errno::EOPNOTSUPP) } else { Ok(Some(info.life)) }
    }

    /// The device's owner, if it can be assigned.
    fn free(&mut self, device: Sbdf) -> Result<&mut Owner, Errno> {
        let owner = self.devices.get_mut(&device).ok_or(Errno::ENODEV)?;
        if matches!(owner, Owner::Host | Owner::Quarantine) { Ok(owner) } else { Err(Errno::EBUSY) }
    }
}

/// Whose a device is that is assigned to this domain.
fn owner(domain: DomainId) -> Owner {
    if domain == QUARANTINE { Owner::Quarantine } else { Owner::Guest(domain) }
}

fn permit(numbers: &mut Ranges, first: u64, last: u64, access: Access) {
    match access {
        Access::Allow => numbers.insert(first, last),
        Access::Deny => numbers.remove(first, last),
    }
}

impl Hypervisor for Simulated {
    fn domain(&self, domain: DomainId) -> Result<DomainInfo, HypercallError> {
        self.ask(domain, Hypercall::Domain, |state| Ok(state.domain(domain)?.info))
    }

    fn test_assign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        device.to_u32()?;
        self.ask(domain, Hypercall::TestAssign(device), |state| {
            state.with_passthrough(domain)?;
            state.free(device).map(|_| ()).map_err(|_| Errno::EINVAL)
        })
    }

    fn assign_device(
        &self,
        domain: DomainId,
        device: Sbdf,
        _reserved: RdmPolicy,
    ) -> Result<(), HypercallError> {
        device.to_u32()?;
        self.ask(domain, Hypercall::Assign(device), |state| {
            let life = state.with_passthrough(domain)?;
            if life == Some(DomainLife::Dying) {
                return Err(Errno::EINVAL);
            }
            *state.free(device)? = owner(domain);
            Ok(())
        })
    }

    fn deassign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        device.to_u32()?;
        self.ask(domain, Hypercall::Deassign(device), |state| {
            state.with_passthrough(domain)?;
            let now =
                state.devices.get_mut(&device).filter(|now| **now == owner(domain)).ok_or(Errno::ENODEV)?;
            *now = if domain == QUARANTINE { Owner::Host } else { Owner::Quarantine };
            Ok(())
        })
    }

    fn iomem_permission(
        &self,
        domain: DomainId,
        frames: Frames,
        access: Access,
    ) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Iomem(frames, access), |state| {
            let last = frames.first() + (frames.count() - 1);
            permit(&mut state.domain(domain)?.holdings.frames, frames.first(), last, access);
            Ok(())
        })
    }

    fn ioport_permission(
        &self,
        domain: DomainId,
        ports: Ports,
        access: Access,
    ) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Ioport(ports, access), |state| {
            let (first, count) = (u64::from(ports.first()), u64::from(ports.count()));
            permit(&mut state.domain(domain)?.holdings.ports, first, first + (count - 1), access);
            Ok(())
        })
    }

    fn map_pirq(&self, domain: DomainId, gsi: Gsi) -> Result<Pirq, HypercallError> {
        self.ask(domain, Hypercall::MapPirq(gsi), |state| {
            let pirqs = &mut state.domain(domain)?.holdings.pirqs;
            if let Some((&pirq, _)) = pirqs.iter().find(|&(_, &line)| line == gsi) {
                return Ok(pirq);
            }
            let pirq =
                Pirq::new(gsi.number()).filter(|pirq| !pirqs.contains_key(pirq)).ok_or(Errno::ENOSPC)?;
            pirqs.insert(pirq, gsi);
            Ok(pirq)
        })
    }

    fn unmap_pirq(&self, domain: DomainId, pirq: Pirq) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::UnmapPirq(pirq), |state| {
            state.domain(domain)?.holdings.pirqs.remove(&pirq).map(|_| ()).ok_or(Errno::EINVAL)
        })
    }

    fn irq_permission(&self, domain: DomainId, pirq: Pirq, access: Access) -> Result<(), HypercallError> {
        self.ask(domain, Hypercall::Irq(pirq, access), |state| {
            let irqs = &mut state.domain(domain)?.holdings.irqs;
            match access {
                Access::Allow => irqs.insert(pirq),
                Access::Deny => irqs.remove(&pirq),
            };
            Ok(())
        })
    }
}
