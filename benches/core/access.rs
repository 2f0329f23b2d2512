//! The ways to a device that vCPU threads take: a counted use (G), the same under a name, and a locked read of
//! a register (L), by the host's address and by the guest's.

use pcidevs::{DefaultLock, Domain, Holder, RawLock, Registry, Sbdf};

use crate::devices::{self, Device, Orders, REGISTER};
use crate::floors::{Floors, Known, Visits};
use crate::locks::Spin;
use crate::measuring::pair::{ParkingLot, Raw};
use crate::measuring::rounds::{Candidate, Effort, Results};

#[inline]
fn get_and_put<L: RawLock>(registry: &Registry<Device, L>, address: Sbdf) -> bool {
    registry.get(address).is_some()
}

#[inline]
fn hold_and_put<L: RawLock>(registry: &Registry<Device, L>, address: Sbdf) -> bool {
    registry.hold(address, Holder::Named("bench")).is_ok_and(|hold| hold.is_some())
}

#[inline]
pub(crate) fn read<L: RawLock>(registry: &Registry<Device, L>, address: Sbdf) -> u32 {
    registry.lock(address).map_or(u32::MAX, |device| device.registers[REGISTER])
}

#[inline]
fn guest_read<L: RawLock>(guest: &Domain<Device, L>, address: Sbdf) -> u32 {
    guest.lock(address).map_or(u32::MAX, |device| device.registers[REGISTER])
}

/// Registries of one size, with all orders of visits.
pub(crate) struct Accessed {
    n: usize,
    host: Registry<Device>,
    /// Keeps the guest's devices.
    _guests: Registry<Device>,
    guest: Domain<Device>,
    orders: Orders<Sbdf>,
}

/// "Slot known" at one size.
struct KnownSlots<'a> {
    orders: Orders<&'a Known<ParkingLot>>,
}

impl<'a> KnownSlots<'a> {
    fn of(slots: &'a [Box<Known<ParkingLot>>]) -> Self {
        let slots: Vec<&Known<ParkingLot>> = slots.iter().map(|slot| &**slot).collect();
        Self { orders: Orders::over(&slots) }
    }

    fn alone(&self) -> Candidate<'_> {
        Candidate::visiting("slot known, lock, read", &self.orders.alone, |slot| slot.read())
    }

    fn different(&self) -> Option<Candidate<'_>> {
        let orders = self.orders.different.as_ref()?;
        Some(Candidate::visiting("slot known, 2 threads, different", orders, |slot| slot.read()))
    }
}

impl Accessed {
    pub(crate) fn of(n: usize) -> Self {
        let addresses = devices::addresses(n);
        let (guests, guest) = devices::guest::<DefaultLock>(&addresses);
        let host = devices::registry(&addresses);
        Self { n, host, _guests: guests, guest, orders: Orders::over(&addresses) }
    }

    fn on<'a, const THREADS: usize>(
        &'a self,
        orders: &'a [Vec<Sbdf>; THREADS],
        suffix: &str,
    ) -> [Candidate<'a>; 4] {
        let name = |what: &str| format!("{what}{suffix}");
        [
            Candidate::visiting(&name("G"), orders, |address| get_and_put(&self.host, *address)),
            Candidate::visiting(&name("G named"), orders, |address| hold_and_put(&self.host, *address)),
            Candidate::visiting(&name("L"), orders, |address| read(&self.host, *address)),
            Candidate::visiting(&name("L by guest address"), orders, |address| {
                guest_read(&self.guest, *address)
            }),
        ]
    }

    /// One thread: also what criterion measures.
    pub(crate) fn alone(&self) -> [Candidate<'_>; 4] {
        self.on(&self.orders.alone, "")
    }
}

/// The group of one thread at this size.
pub(crate) fn one_thread(n: usize) -> String {
    format!("n={n}, 1 thread")
}

/// The group of two threads at this size.
pub(crate) fn two_threads(n: usize) -> String {
    format!("n={n}, 2 threads")
}

pub(crate) fn measure(results: &mut Results, effort: &Effort, n: usize) {
    let effort = effort.for_devices(n);
    let (floors, visits) = (Floors::new(), Visits::new());
    let accessed = Accessed::of(n);
    let slots = Known::all(n);
    let known = KnownSlots::of(&slots);
    let spin = devices::registry::<Spin>(&devices::addresses(n));

    let mut candidates = vec![floors.xadd(&visits), floors.pair(), known.alone()];
    candidates.extend(accessed.alone());
    if n == 64 {
        candidates.push(floors.spin_pair());
        candidates
            .push(Candidate::visiting("L, spin", &accessed.orders.alone, |address| read(&spin, *address)));
    }
    results.measure(&one_thread(n), &candidates, &effort);

    let mut candidates = vec![floors.pair(), floors.private_pairs(&visits)];
    if let Some(different) = &accessed.orders.different {
        candidates.extend(accessed.alone());
        candidates.extend(accessed.on(different, ", different"));
        candidates.extend(known.different());
    }
    candidates.extend(accessed.on(&accessed.orders.same, ", same"));
    results.measure(&two_threads(n), &candidates, &effort);
}

pub(crate) const GROWTH: &str = "growth, 1 thread";

/// The sizes against each other, in the same rounds.
pub(crate) fn measure_growth(results: &mut Results, effort: &Effort) {
    let sizes: Vec<Accessed> = devices::COUNTS.into_iter().map(Accessed::of).collect();
    let slots: Vec<Vec<Box<Known<Raw<DefaultLock>>>>> = devices::COUNTS.into_iter().map(Known::all).collect();
    let known: Vec<KnownSlots<'_>> = slots.iter().map(|slots| KnownSlots::of(slots)).collect();
    let mut candidates = Vec::new();
    for (accessed, known) in sizes.iter().zip(&known) {
        let at_this_size = accessed.alone().into_iter().chain([known.alone()]);
        candidates.extend(at_this_size.map(|mut candidate| {
            candidate.name = format!("{}, n={}", candidate.name, accessed.n);
            candidate
        }));
    }
    results.measure(GROWTH, &candidates, &effort.for_devices(65536));
}
