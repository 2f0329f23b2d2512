//! Every operation by itself, at every size, with one requester ID and with eight.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pcidevs::platform::ResetKind;
use pcidevs::{Member, Owner, Sbdf};

use crate::machine::{Ids, Machine};
use crate::measuring::order::random_order;
use crate::measuring::rounds::{Candidate, Effort, Results};

/// As many devices, one after the other, between two looks at the clock.
const AT_ONCE: usize = 64;

/// A machine whose devices come, go and move.
pub(crate) struct Busy {
    machine: Machine,
    ids: Ids,
    /// The next part of the random order.
    order: Mutex<std::iter::Cycle<std::vec::IntoIter<Vec<Sbdf>>>>,
    at_once: usize,
}

impl Busy {
    pub(crate) fn of(n: usize, ids: Ids) -> Self {
        let machine = Machine::of(n, ids);
        let at_once = AT_ONCE.min(n);
        let parts: Vec<_> = random_order(&machine.addresses).chunks(at_once).map(<[Sbdf]>::to_vec).collect();
        Self { machine, ids, order: Mutex::new(parts.into_iter().cycle()), at_once }
    }

    /// The time of `step` for each device of the next part; `before` and `after` are not timed.
    fn timed(
        &self,
        name: &str,
        before: fn(&Machine, Sbdf),
        step: fn(&Machine, Sbdf),
        after: fn(&Machine, Sbdf),
    ) -> Candidate<'_> {
        let name = format!("{name}, {}", self.ids.name());
        Candidate::timing_itself(&name, self.at_once, move || {
            let part = self.order.lock().expect("no panic").next().expect("endless");
            let for_each = |step: fn(&Machine, Sbdf)| {
                for address in &part {
                    step(&self.machine, *address);
                }
            };
            for_each(before);
            let time = time(|| for_each(step));
            for_each(after);
            time
        })
    }

    pub(crate) fn candidates(&self) -> [Candidate<'_>; 7] {
        [
            self.timed("add", remove, Machine::add, nothing),
            self.timed("remove", nothing, remove, Machine::add),
            self.timed("assign", nothing, assign, deassign),
            self.timed("deassign", assign, deassign, nothing),
            self.timed("quarantine", nothing, quarantine, back),
            self.timed("back from quarantine", quarantine, back, nothing),
            self.timed("reset", nothing, reset, nothing),
        ]
    }
}

fn time(step: impl FnOnce()) -> Duration {
    let start = Instant::now();
    step();
    start.elapsed()
}

fn nothing(_: &Machine, _: Sbdf) {}

fn remove(machine: &Machine, address: Sbdf) {
    machine.life.remove_device(address).expect("unused");
}

fn assign(machine: &Machine, address: Sbdf) {
    machine.assign(&[Member::new(address)]);
}

fn deassign(machine: &Machine, address: Sbdf) {
    machine.deassign(&[Member::new(address)]);
}

fn quarantine(machine: &Machine, address: Sbdf) {
    machine.life.quarantine(&[Member::new(address)]).expect("nobody is in the way");
}

fn back(machine: &Machine, address: Sbdf) {
    machine.life.deassign(&[Member::new(address)], Owner::Quarantine).expect("it is in quarantine");
}

fn reset(machine: &Machine, address: Sbdf) {
    machine.life.reset(address, ResetKind::Flr).expect("nobody is in the way");
}

/// The group of this size.
pub(crate) fn group(n: usize) -> String {
    format!("n={n}")
}

pub(crate) fn measure(results: &mut Results, effort: &Effort, n: usize) {
    let machines = [Ids::One, Ids::Eight].map(|ids| Busy::of(n, ids));
    let candidates: Vec<_> = machines.iter().flat_map(Busy::candidates).collect();
    results.measure(&group(n), &candidates, &effort.for_devices(n).fewer(2));
}
