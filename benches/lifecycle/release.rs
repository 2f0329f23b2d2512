//! The end of a guest: all its devices are taken back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pcidevs::Member;

use crate::machine::{GUEST, Ids, Machine};
use crate::measuring::order::random_order;
use crate::measuring::rounds::{Candidate, Effort, Results};

const PRESENT: usize = 4096;

pub(crate) const GROUP: &str = "n=4096, release of a domain, a device";
pub(crate) const FEW: &str = "of 64 devices";
pub(crate) const ALL: &str = "of 4096 devices";

/// A machine whose guest ends again and again.
struct Release {
    machine: Machine,
    order: Mutex<std::iter::Cycle<std::vec::IntoIter<Member>>>,
}

impl Release {
    fn new() -> Self {
        let machine = Machine::of(PRESENT, Ids::One);
        let members: Vec<Member> = machine.addresses.iter().copied().map(Member::new).collect();
        let order = random_order(&members);
        Self { machine, order: Mutex::new(order.into_iter().cycle()) }
    }

    fn of(&self, name: &str, devices: usize) -> Candidate<'_> {
        Candidate::timing_itself(name, devices, move || {
            let set: Vec<Member> = self.order.lock().expect("no panic").by_ref().take(devices).collect();
            self.machine.assign(&set);
            self.time()
        })
    }

    fn time(&self) -> Duration {
        let start = Instant::now();
        self.machine.life.release_domain(GUEST).expect("nobody is in the way");
        let time = start.elapsed();
        self.machine.life.create_domain(GUEST).expect("just released");
        time
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let release = Release::new();
    // A guest with all devices takes longer to end than a turn.
    let effort = Effort { turn: effort.turn * 10, ..effort.fewer(2) };
    results.measure(GROUP, &[release.of(FEW, 64), release.of(ALL, PRESENT)], &effort);
}
