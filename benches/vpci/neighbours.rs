//! Two vCPUs of one guest on two of its devices, one reading, one writing: ours, under Xen's locks, and two threads
//! that have a lock each.

use pcidevs::Sbdf;

use crate::measuring::order::{always, random_order};
use crate::measuring::pair::{Apart, LOCK_PAIR, Pair, ParkingLot};
use crate::measuring::rounds::{Candidate, Effort, Results, Series};
use crate::registers::{Guest, addresses, offsets};
use crate::xen;

const DEVICES: u16 = 8;
const REGISTERS: u16 = 16;

pub(crate) const GROUP: &str = "8 devices of 16 registers, 2 vCPUs on different devices";
pub(crate) const OURS: &str = "device lock";
pub(crate) const XEN: &str = "Xen's locks and lists";

/// The alternatives, alone and together.
pub(crate) fn reads(what: &str) -> String {
    format!("{what}, 1 vCPU reads")
}

pub(crate) fn writes(what: &str) -> String {
    format!("{what}, 1 vCPU writes")
}

pub(crate) fn together(what: &str) -> String {
    format!("{what}, one reads, one writes")
}

/// How much slower the two are than either alone.
pub(crate) fn slowdown(results: &Results, what: &str) -> Series {
    let of = |name: String| results.series(GROUP, &name);
    let alone =
        of(reads(what)).0.iter().zip(&of(writes(what)).0).map(|(read, write)| f64::midpoint(*read, *write));
    of(together(what)).over(&Series(alone.collect()))
}

/// Which device and which register; one device a thread.
type Visit = (Sbdf, u16);

struct Visits {
    first: [Vec<Visit>; 1],
    second: [Vec<Visit>; 1],
    both: [Vec<Visit>; 2],
}

impl Visits {
    fn new() -> Self {
        let of = |device: usize| {
            let at = addresses(DEVICES).nth(device).expect("so many");
            random_order(&offsets(REGISTERS).map(|offset| (at, offset)).collect::<Vec<_>>())
        };
        // Neither first nor last on a list.
        let (first, second) = (of(2), of(5));
        Self { first: [first.clone()], second: [second.clone()], both: [first, second] }
    }

    fn of<'a>(
        &'a self,
        what: &str,
        read: impl Fn(Sbdf, u16) -> u32 + Sync + Clone + 'a,
        write: impl Fn(Sbdf, u16) -> bool + Sync + Clone + 'a,
    ) -> [Candidate<'a>; 3] {
        let (reads_too, writes_too) = (read.clone(), write.clone());
        [
            Candidate::visiting(&reads(what), &self.first, move |(at, offset)| read(*at, *offset)),
            Candidate::visiting(&writes(what), &self.second, move |(at, offset)| write(*at, *offset)),
            Candidate::visiting_with(
                &together(what),
                &self.both,
                |thread| thread,
                move |thread, (at, offset)| {
                    if *thread == 0 { reads_too(*at, *offset) } else { u32::from(writes_too(*at, *offset)) }
                },
            ),
        ]
    }
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let visits = Visits::new();
    let (guest, xen) = (Guest::with(DEVICES, REGISTERS), xen::Domain::with(addresses(DEVICES), REGISTERS));
    let locks = [Apart(ParkingLot::new()), Apart(ParkingLot::new())];
    let private: [Vec<usize>; 2] = [always(&0), always(&1)];
    let mut candidates = vec![
        Candidate::visiting(&reads(LOCK_PAIR), &private[..1], |at| locks[*at].0.with(|| ())),
        Candidate::visiting(&writes(LOCK_PAIR), &private[1..], |at| locks[*at].0.with(|| ())),
        Candidate::visiting(&together(LOCK_PAIR), &private, |at| locks[*at].0.with(|| ())),
    ];
    candidates.extend(visits.of(
        OURS,
        |at, offset| guest.read(at, offset),
        |at, offset| guest.write(at, offset, 5),
    ));
    candidates.extend(visits.of(
        XEN,
        |at, offset| xen.read(at, offset),
        |at, offset| xen.write(at, offset, 5),
    ));
    results.measure(GROUP, &candidates, effort);
}
