//! Everybody else, while a hook hangs on one device: accesses of vCPU threads, and transitions of other devices.
//!
//! In every round the same is measured with nothing hanging and with one hook that does, in random order; another
//! hook hangs in each round. The hook is one of an assignment to the very guest whose accesses are measured.

use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::lifecycle::Device;
use pcidevs::platform::Simulated;
use pcidevs::platform::{Fault, Hook};
use pcidevs::{Domain, Member, Sbdf};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::machine::{GUEST, Ids, Machine, State};
use crate::measuring::order::random_order;
use crate::measuring::rounds::{Candidate, Effort, Results, Series};

const PRESENT: usize = 4096;
/// So many devices have a guest whose threads access them.
const ACCESSED: usize = 64;

pub(crate) const GROUP: &str = "n=4096, while a hook hangs on one device";
pub(crate) const ACCESS: &str = "access by guest address";
pub(crate) const TRANSITION: &str = "assign + deassign";

/// The name of a candidate while something hangs.
pub(crate) fn hanging(name: &str) -> String {
    format!("{name}, a hook hangs")
}

/// The hooks of an assignment, in their order.
const HOOKS: [Hook; 9] = [
    Hook::Permit,
    Hook::ResetScope,
    Hook::AwaitIdle,
    Hook::SetAts,
    Hook::IommuBlock,
    Hook::IommuFlush,
    Hook::Reset,
    Hook::IommuAttach,
    Hook::Bind,
];

struct Others {
    machine: Machine,
    /// The device on which hooks hang.
    hung: Member,
    guest: Domain<Device<Simulated<State>>>,
    accessed: [Vec<Sbdf>; 1],
    moving: [Vec<[Member; 1]>; 1],
    next_hook: AtomicUsize,
}

impl Others {
    fn new() -> Self {
        let machine = Machine::of(PRESENT, Ids::One);
        let guest = machine.life.domain(GUEST).expect("made with the machine");
        let order = random_order(&machine.addresses);
        let ([hung, accessed @ ..], moving) = order[..PRESENT].split_at(1 + ACCESSED) else {
            unreachable!("there are more devices")
        };
        // The guest sees its devices where the host does.
        machine.assign(&accessed.iter().map(|at| Member::at(*at, *at)).collect::<Vec<_>>());
        let moving: Vec<_> = moving.iter().map(|at| [Member::new(*at)]).collect();
        Self {
            hung: Member::new(*hung),
            guest,
            accessed: [random_order(accessed)],
            moving: [random_order(&moving)],
            machine,
            next_hook: AtomicUsize::new(0),
        }
    }

    fn candidates(&self) -> [Candidate<'_>; 2] {
        [
            Candidate::visiting(ACCESS, &self.accessed, |at| {
                self.guest.lock(*at).map_or(0, |device| device[3])
            }),
            Candidate::visiting(TRANSITION, &self.moving, |device| self.machine.pair(device)),
        ]
    }

    /// Runs `step` while a hook hangs.
    fn while_hanging(&self, step: impl FnOnce()) {
        let simulated = self.machine.life.platform();
        let hook = HOOKS[self.next_hook.fetch_add(1, Ordering::Relaxed) % HOOKS.len()];
        simulated.fail_next(hook, Fault::Hang);
        std::thread::scope(|scope| {
            scope.spawn(|| self.machine.pair(&[self.hung]));
            simulated.wait_for_hangs(1);
            // What hangs goes on hanging; but calls are not looked at any more, which would cost them something.
            simulated.clear_faults();
            step();
            simulated.release_hangs();
        });
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let others = Others::new();
    let candidates = others.candidates().map(|candidate| (candidate.find_chunk(), candidate));
    let mut series = [const { [const { Vec::new() }; 2] }; 2];
    let mut random = StdRng::seed_from_u64(0x4a26);
    for _ in 0..effort.rounds {
        let mut states = [false, true];
        states.shuffle(&mut random);
        for hangs in states {
            let mut measure = || {
                for ((chunk, candidate), series) in candidates.iter().zip(&mut series[usize::from(hangs)]) {
                    series.push(candidate.round(*chunk, effort));
                }
            };
            if hangs { others.while_hanging(measure) } else { measure() }
        }
    }
    let names = [ACCESS.to_owned(), TRANSITION.to_owned(), hanging(ACCESS), hanging(TRANSITION)];
    let series = series.into_iter().flatten().map(Series);
    results.record(GROUP, names.into_iter().zip(series).collect());
}
