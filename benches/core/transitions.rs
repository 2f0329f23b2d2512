//! Devices come, go and move: add, remove, and a set given to a guest and taken back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pcidevs::{Domain, DomainId, Member, Owner, Registry, Sbdf};

use crate::devices::{self, Device};
use crate::measuring::order::random_order;
use crate::measuring::pair::{Floor, LOCK_PAIR, ParkingLot};
use crate::measuring::rounds::{Candidate, Effort, Results};

/// A registry whose devices come and go.
pub(crate) struct Busy {
    n: usize,
    registry: Registry<Device>,
    guest: Domain<Device>,
    addresses: Vec<Sbdf>,
    /// The next part of the random order.
    order: Mutex<std::iter::Cycle<std::vec::IntoIter<Vec<Sbdf>>>>,
}

/// As many devices come and go between two looks at the clock.
const AT_ONCE: usize = 64;

impl Busy {
    pub(crate) fn of(n: usize) -> Self {
        let addresses = devices::addresses(n);
        let registry: Registry<Device> = devices::registry(&addresses);
        let guest = registry.create_domain(DomainId::new(1)).expect("the first domain");
        let parts: Vec<_> = random_order(&addresses).chunks(AT_ONCE.min(n)).map(<[Sbdf]>::to_vec).collect();
        Self { n, registry, guest, addresses, order: Mutex::new(parts.into_iter().cycle()) }
    }

    fn part(&self) -> Vec<Sbdf> {
        self.order.lock().expect("no panic").next().expect("endless")
    }

    fn remove(&self, part: &[Sbdf]) -> Duration {
        time(|| part.iter().for_each(|address| self.registry.remove_device(*address).expect("unused")))
    }

    fn add(&self, part: &[Sbdf]) -> Duration {
        let devices: Vec<_> = part.iter().map(|address| (*address, Device::at(*address))).collect();
        time(|| {
            for (address, device) in devices {
                self.registry.add(address, device).expect("removed before");
            }
        })
    }

    fn move_to(&self, members: &[Member], owner: Owner) -> Duration {
        time(|| self.registry.move_devices(members, owner).expect("nobody is in the way"))
    }

    /// All devices into an empty registry: slots, tables and list grow.
    fn first_adds(&self) -> Duration {
        let registry: Registry<Device> = Registry::new().expect("memory");
        time(|| {
            for address in &self.addresses {
                registry.add(*address, Device::at(*address)).expect("each address once");
            }
        })
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate<'_>> {
        let at_once = AT_ONCE.min(self.n);
        let mut candidates = vec![
            Candidate::timing_itself("add", at_once, || {
                let part = self.part();
                self.remove(&part);
                self.add(&part)
            }),
            Candidate::timing_itself("add, first at its address", self.n, || self.first_adds()),
            Candidate::timing_itself("remove", at_once, || {
                let part = self.part();
                let time = self.remove(&part);
                self.add(&part);
                time
            }),
        ];
        for size in [1, 64] {
            if size <= self.n {
                candidates.push(self.moving(size));
            }
        }
        candidates
    }

    /// To the guest and back: two moves.
    fn moving(&self, size: usize) -> Candidate<'_> {
        Candidate::timing_itself(&format!("move a set of {size}"), 2, move || {
            let members: Vec<_> =
                self.part().into_iter().take(size).map(|address| Member::at(address, address)).collect();
            self.move_to(&members, Owner::Guest(self.guest.id())) + self.move_to(&members, Owner::Host)
        })
    }
}

fn time(step: impl FnOnce()) -> Duration {
    let start = Instant::now();
    step();
    start.elapsed()
}

/// The group of this size.
pub(crate) fn group(n: usize) -> String {
    format!("n={n}, transitions")
}

pub(crate) fn measure(results: &mut Results, effort: &Effort, n: usize) {
    let floor = Floor::<ParkingLot>::new();
    let busy = Busy::of(n);
    let mut candidates = vec![floor.candidate(LOCK_PAIR)];
    candidates.extend(busy.candidates());
    results.measure(&group(n), &candidates, &effort.fewer(2));
}
