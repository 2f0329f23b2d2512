//! Devices go to a guest and come back: one, and sets.

use pcidevs::Member;

use crate::machine::{Ids, Machine};
use crate::measuring::order::{always, random_order};
use crate::measuring::pair::{Floor, LOCK_PAIR, ParkingLot};
use crate::measuring::rounds::{Candidate, Effort, Results};

/// So many devices are present.
const PRESENT: usize = 4096;
/// So many are in a set.
const SET: usize = 64;

pub(crate) const GROUP: &str = "n=4096, assign and deassign";
pub(crate) const ANY: &str = "any device";
pub(crate) const SAME: &str = "the same device again";
pub(crate) const SINGLES: &str = "64 devices, one by one";
pub(crate) const A_SET: &str = "64 devices, as a set";

/// A machine, and who goes to its guest.
pub(crate) struct Assignment {
    machine: Machine,
    any: [Vec<[Member; 1]>; 1],
    same: [Vec<[Member; 1]>; 1],
    sets: [Vec<Vec<Member>>; 1],
}

impl Assignment {
    pub(crate) fn new() -> Self {
        let machine = Machine::of(PRESENT, Ids::One);
        let any = random_order(&machine.singles());
        let sets: Vec<Vec<Member>> = any.chunks(SET).map(<[_]>::concat).collect();
        Self { same: [always(&any[0])], sets: [random_order(&sets)], any: [any], machine }
    }

    pub(crate) fn candidates(&self) -> [Candidate<'_>; 4] {
        let pair = |set: &[Member]| self.machine.pair(set);
        let singles = move |set: &Vec<Member>| set.iter().for_each(|member| pair(&[*member]));
        [
            Candidate::visiting(ANY, &self.any, move |device| pair(device)),
            Candidate::visiting(SAME, &self.same, move |device| pair(device)),
            Candidate::visiting(SINGLES, &self.sets, singles),
            Candidate::visiting(A_SET, &self.sets, move |set| pair(set)),
        ]
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let (floor, assignment) = (Floor::<ParkingLot>::new(), Assignment::new());
    let candidates: Vec<_> =
        [floor.candidate(LOCK_PAIR)].into_iter().chain(assignment.candidates()).collect();
    results.measure(GROUP, &candidates, effort);
}
