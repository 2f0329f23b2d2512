//! What a VMM calls at an exit: from the address to the device and back, with 16 devices and 64 ranges of addresses.
//!
//! The vCPUs access eight of the devices in random order. In configuration space that is registers whose handler is the
//! device's own code; in BARs, registers all over them.

use pcidevs::vpci::{ADDRESS_PORT, DATA_PORT, Written};

use crate::machine::{GuestVcpu, Machine, Place, accessed};
use crate::measuring::order::{always, random_order};
use crate::measuring::pair::{Apart, Floor, LOCK_PAIR, Pair, ParkingLot};
use crate::measuring::rounds::{Candidate, Effort, Results};

pub(crate) const ALONE: &str = "a whole exit, 1 vCPU";
pub(crate) const TOGETHER: &str = "a whole exit, 2 vCPUs";

pub(crate) const ECAM_READ: &str = "ECAM read";
pub(crate) const ECAM_READ_MIXED: &str = "ECAM read, registers of all kinds in random order";
pub(crate) const ECAM_WRITE: &str = "ECAM write";
pub(crate) const PORTS_READ: &str = "CF8 + CFC read";
pub(crate) const BAR_READ: &str = "BAR read";
pub(crate) const BAR_WRITE: &str = "BAR write";
pub(crate) const BAR_READ_AGAIN: &str = "BAR read, always the same BAR";
pub(crate) const PRIVATE_PAIRS: &str = "lock pair, 2 threads, private";

pub(crate) fn different(what: &str) -> String {
    format!("{what}, different devices")
}

/// An access: where, and how many bytes. As in an exit, the compiler does not know how many.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    address: u64,
    length: usize,
}

impl Access {
    pub(crate) fn to(address: u64) -> Self {
        Self { address, length: 4 }
    }
}

/// What exits are about, in random order, for so many vCPUs: none of their devices in common.
struct Visits<const VCPUS: usize> {
    ecam: [Vec<Access>; VCPUS],
    ecam_mixed: [Vec<Access>; VCPUS],
    ports: [Vec<Access>; VCPUS],
    bars: [Vec<Access>; VCPUS],
    same_bar: [Vec<Access>; VCPUS],
}

impl<const VCPUS: usize> Visits<VCPUS> {
    fn new() -> Self {
        let devices = |vcpu: usize| accessed().skip(vcpu).step_by(VCPUS);
        let each = std::array::from_fn::<usize, VCPUS, _>(|vcpu| vcpu);
        let bars = |vcpu| devices(vcpu).flat_map(Place::in_bars).map(Place::by_bar);
        let own = |vcpu| devices(vcpu).flat_map(Place::own);
        Self {
            ecam: each.map(|vcpu| order(own(vcpu).map(Place::by_ecam))),
            ecam_mixed: each.map(|vcpu| order(devices(vcpu).flat_map(Place::in_config).map(Place::by_ecam))),
            ports: each.map(|vcpu| order(own(vcpu).map(|place| place.by_port().into()))),
            bars: each.map(|vcpu| order(bars(vcpu))),
            same_bar: each.map(|vcpu| order(bars(vcpu).take(2))),
        }
    }
}

fn order(all: impl Iterator<Item = u64>) -> Vec<Access> {
    random_order(&all.map(Access::to).collect::<Vec<_>>())
}

#[inline]
pub(crate) fn load(vcpu: &mut GuestVcpu, access: Access) -> u32 {
    let mut data = [0; 4];
    vcpu.mmio_read(access.address, &mut data[..access.length]);
    u32::from_le_bytes(data)
}

#[inline]
fn store(vcpu: &mut GuestVcpu, access: Access) -> bool {
    matches!(vcpu.mmio_write(access.address, &[5, 0, 0, 0][..access.length]), Written::Done)
}

#[inline]
fn read_ports(vcpu: &mut GuestVcpu, access: Access) -> u32 {
    let mut data = [0; 4];
    let [a0, a1, a2, a3, ..] = access.address.to_le_bytes();
    let named = vcpu.io_write(ADDRESS_PORT, &[a0, a1, a2, a3][..access.length]);
    vcpu.io_read(DATA_PORT, &mut data[..access.length]);
    u32::from_le_bytes(data).wrapping_add(matches!(named, Written::Done).into())
}

/// A guest, and the orders in which its one vCPU visits its devices.
pub(crate) struct Exits {
    machine: Machine,
    alone: Visits<1>,
}

impl Exits {
    pub(crate) fn new() -> Self {
        let exits = Self { machine: Machine::new(), alone: Visits::new() };
        exits.check();
        exits
    }

    /// Measured is what is there: no access reads the ones of a device that is not.
    fn check(&self) {
        let mut vcpu = self.machine.bus.vcpu();
        for access in self.alone.ecam_mixed[0].iter().chain(&self.alone.bars[0]) {
            assert_ne!(load(&mut vcpu, *access), u32::MAX, "{:#x}", access.address);
        }
        for access in &self.alone.ports[0] {
            assert_ne!(read_ports(&mut vcpu, *access), u32::MAX, "{:#x}", access.address);
        }
    }

    fn on<'a, const VCPUS: usize>(
        &'a self,
        visits: &'a Visits<VCPUS>,
        name: impl Fn(&str) -> String,
    ) -> [Candidate<'a>; 7] {
        let vcpu = |_| self.machine.bus.vcpu();
        let reads = |vcpu: &mut GuestVcpu, access: &Access| load(vcpu, *access);
        let writes = |vcpu: &mut GuestVcpu, access: &Access| store(vcpu, *access);
        let ports = |vcpu: &mut GuestVcpu, access: &Access| read_ports(vcpu, *access);
        [
            Candidate::visiting_with(&name(ECAM_READ), &visits.ecam, vcpu, reads),
            Candidate::visiting_with(&name(ECAM_READ_MIXED), &visits.ecam_mixed, vcpu, reads),
            Candidate::visiting_with(&name(ECAM_WRITE), &visits.ecam, vcpu, writes),
            Candidate::visiting_with(&name(PORTS_READ), &visits.ports, vcpu, ports),
            Candidate::visiting_with(&name(BAR_READ), &visits.bars, vcpu, reads),
            Candidate::visiting_with(&name(BAR_WRITE), &visits.bars, vcpu, writes),
            Candidate::visiting_with(&name(BAR_READ_AGAIN), &visits.same_bar, vcpu, reads),
        ]
    }

    pub(crate) fn alone(&self) -> [Candidate<'_>; 7] {
        self.on(&self.alone, str::to_owned)
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let (exits, two) = (Exits::new(), Visits::<2>::new());
    let floor = Floor::<ParkingLot>::new();
    let mut candidates = vec![floor.candidate(LOCK_PAIR)];
    candidates.extend(exits.alone());
    results.measure(ALONE, &candidates, effort);

    let locks = [Apart(ParkingLot::new()), Apart(ParkingLot::new())];
    let private: [Vec<usize>; 2] = [always(&0), always(&1)];
    let mut candidates = vec![
        floor.candidate(LOCK_PAIR),
        Candidate::visiting(PRIVATE_PAIRS, &private, |at| locks[*at].0.with(|| ())),
    ];
    candidates.extend(exits.alone());
    candidates.extend(exits.on(&two, different));
    results.measure(TOGETHER, &candidates, effort);
}
