//! The single-threaded candidates for criterion.

use crate::exits::{ALONE, Exits};
use crate::measuring::pair::{Floor, LOCK_PAIR, ParkingLot};
use crate::measuring::statistics::{criterion, group};
use crate::registers::{COUNTS, GROUP, Registers};

pub(crate) fn run(quick: bool) {
    let mut criterion = criterion(quick);
    group(&mut criterion, "floors", &[Floor::<ParkingLot>::new().candidate(LOCK_PAIR)]);
    let sizes = COUNTS.map(Registers::of);
    group(&mut criterion, GROUP, &sizes.iter().flat_map(Registers::candidates).collect::<Vec<_>>());
    group(&mut criterion, ALONE, &Exits::new().alone());
    criterion.final_summary();
}
