//! What is measured on: devices, their addresses, and who visits which.

use pcidevs::address::Segment;
use pcidevs::{Domain, DomainId, Member, Owner, RawLock, Registry, Sbdf};

use crate::measuring::order::random_order;

/// How many devices there are.
pub(crate) const COUNTS: [usize; 4] = [1, 64, 4096, 65536];

/// The register that reads read.
pub(crate) const REGISTER: usize = 3;

/// A device as an embedder might keep it: a standard header of registers.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) registers: [u32; 16],
}

impl Device {
    pub(crate) fn at(address: Sbdf) -> Self {
        Self { registers: [u32::from(address.bdf()); 16] }
    }
}

/// The lowest `n` addresses of segment 0: whole buses, all functions.
pub(crate) fn addresses(n: usize) -> Vec<Sbdf> {
    (0..=u16::MAX).take(n).map(|bdf| Sbdf::from_bdf(Segment::new(0), bdf)).collect()
}

/// For each number of a thread, its order of visits.
pub(crate) struct Orders<T> {
    /// One thread, all devices.
    pub(crate) alone: [Vec<T>; 1],
    /// Two threads, each half of the devices; `None` if there is one device only.
    pub(crate) different: Option<[Vec<T>; 2]>,
    /// Two threads, one device.
    pub(crate) same: [Vec<T>; 2],
}

impl<T: Clone> Orders<T> {
    pub(crate) fn over(all: &[T]) -> Self {
        let half = |odd: usize| random_order(&all.iter().skip(odd).step_by(2).cloned().collect::<Vec<_>>());
        Self {
            alone: [random_order(all)],
            different: (all.len() > 1).then(|| [half(0), half(1)]),
            same: [random_order(&all[..1]), random_order(&all[..1])],
        }
    }
}

/// A registry with these devices, all the host's.
pub(crate) fn registry<L: RawLock>(addresses: &[Sbdf]) -> Registry<Device, L> {
    let registry = Registry::new().expect("memory");
    for address in addresses {
        registry.add(*address, Device::at(*address)).expect("each address once");
    }
    registry
}

/// A registry whose devices are all one guest's, at the addresses the host has them.
pub(crate) fn guest<L: RawLock>(addresses: &[Sbdf]) -> (Registry<Device, L>, Domain<Device, L>) {
    let registry = registry::<L>(addresses);
    let guest = registry.create_domain(DomainId::new(1)).expect("the first domain");
    let members: Vec<_> = addresses.iter().map(|address| Member::at(*address, *address)).collect();
    registry.move_devices(&members, Owner::Guest(guest.id())).expect("nobody is in the way");
    (registry, guest)
}
