//! Everybody else, while the handler of one device takes 5 µs half of the time.
//!
//! A second vCPU reads a BAR of that device, whose handler keeps the processor busy for 5 µs under the device's lock,
//! and then is busy for 5 µs with something else; over and over. Beside it, in the same round, one that is busy just as
//! much and never in a handler. What counts is the *mean* read of the first vCPU: one that had to wait would raise it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::exits::{Access, load};
use crate::machine::{Machine, Place, SLOW, accessed, spin};
use crate::measuring::order::random_order;
use crate::measuring::processors::pin;
use crate::measuring::rounds::{Candidate, Effort, Results, Series};

pub(crate) const GROUP: &str = "while one device's handler takes 5 µs half of the time, mean";
pub(crate) const ECAM_READ: &str = "ECAM read of other devices";
pub(crate) const BAR_READ: &str = "BAR read of other devices";

const BETWEEN: Duration = Duration::from_micros(5);

/// The name of a candidate while the handler is slow.
pub(crate) fn beside(name: &str) -> String {
    format!("{name}, beside a slow handler")
}

/// Runs `step` while the other vCPU is busy, half of the time in a slow handler or never.
fn while_busy<R>(machine: &Machine, in_handler: bool, step: impl FnOnce() -> R) -> R {
    let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut vcpu = machine.bus.vcpu();
            let [place, ..] = Place::in_bars(SLOW).map(Place::by_bar);
            while !over.load(Ordering::Relaxed) {
                if in_handler {
                    std::hint::black_box(load(&mut vcpu, Access::to(place)));
                } else {
                    spin(BETWEEN);
                }
                begun.store(true, Ordering::Relaxed);
                spin(BETWEEN);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        let result = step();
        over.store(true, Ordering::Relaxed);
        result
    })
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let machine = Machine::new();
    let order = |places: &dyn Fn(u16) -> Vec<Access>| {
        [random_order(&accessed().flat_map(places).collect::<Vec<_>>())]
    };
    let ecam = order(&|device| Place::in_config(device).map(|place| Access::to(place.by_ecam())).to_vec());
    let bars = order(&|device| Place::in_bars(device).map(|place| Access::to(place.by_bar())).to_vec());
    let candidates = [(ECAM_READ, &ecam), (BAR_READ, &bars)].map(|(name, order)| {
        let vcpu = |_| machine.bus.vcpu();
        let mut candidate =
            Candidate::visiting_with(name, order, vcpu, |vcpu, access: &Access| load(vcpu, *access));
        candidate.by_mean = true;
        (candidate.find_chunk(), candidate)
    });
    let mut series = [const { [const { Vec::new() }; 2] }; 2];
    let mut random = StdRng::seed_from_u64(0x510e);
    for _ in 0..effort.rounds {
        let mut states = [false, true];
        states.shuffle(&mut random);
        for in_handler in states {
            for ((chunk, candidate), series) in candidates.iter().zip(&mut series[usize::from(in_handler)]) {
                series.push(while_busy(&machine, in_handler, || candidate.round(*chunk, effort)));
            }
        }
    }
    let names = [ECAM_READ.to_owned(), BAR_READ.to_owned(), beside(ECAM_READ), beside(BAR_READ)];
    let series = series.into_iter().flatten().map(Series);
    results.record(GROUP, names.into_iter().zip(series).collect());
}
