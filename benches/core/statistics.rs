//! The single-threaded candidates for criterion.

use crate::access::Accessed;
use crate::devices;
use crate::floors::{Floors, Visits};
use crate::measuring::statistics::{criterion, group};
use crate::transitions::Busy;

pub(crate) fn run(quick: bool) {
    let mut criterion = criterion(quick);
    let (floors, visits) = (Floors::new(), Visits::new());
    group(&mut criterion, "floors", &[floors.xadd(&visits), floors.pair(), floors.spin_pair()]);
    for n in devices::COUNTS {
        group(&mut criterion, &format!("n={n}"), &Accessed::of(n).alone());
        group(&mut criterion, &format!("n={n}, transitions"), &Busy::of(n).candidates());
    }
    criterion.final_summary();
}
