//! The single-threaded candidates for criterion.

use crate::assignment::Assignment;
use crate::machine::Ids;
use crate::measuring::pair::{Floor, LOCK_PAIR, ParkingLot};
use crate::measuring::statistics::{criterion, group};
use crate::operations::{self, Busy};

/// Building a larger machine takes longer than measuring on it.
const COUNTS: [usize; 2] = [64, 4096];

pub(crate) fn run(quick: bool) {
    let mut criterion = criterion(quick);
    group(&mut criterion, "floors", &[Floor::<ParkingLot>::new().candidate(LOCK_PAIR)]);
    group(&mut criterion, crate::assignment::GROUP, &Assignment::new().candidates());
    for n in COUNTS {
        for ids in [Ids::One, Ids::Eight] {
            group(&mut criterion, &operations::group(n), &Busy::of(n, ids).candidates());
        }
    }
    criterion.final_summary();
}
