//! The storm: rounds of threads, and an audit after each.
//!
//! A round begins with new threads and ends with all of them joined, so what they held is given back and everything
//! can be counted exactly; and so a storm may last for days and remember no more than one round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::thread;

use super::statistics::Statistics;
use super::world::World;
use super::{administrator, backend, engine, guardian, hotplug, mishaps, vcpu};

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(1);
/// How often it is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What a storm is made of.
pub(crate) struct Storm {
    pub(crate) vcpus: u32,
    pub(crate) seed: u64,
    pub(crate) length: Duration,
}

impl Storm {
    /// Blows until the time is up, a promise was broken, or somebody stops it. `watch` is called now and then.
    pub(crate) fn blow(&self, world: &World, mut watch: impl FnMut(Duration)) -> Statistics {
        let mut statistics = Statistics::default();
        let begun = Instant::now();
        let mut round = 0;
        while world.judge().goes_on() && begun.elapsed() < self.length {
            let end = self.length.min(begun.elapsed() + ROUND);
            let seed = self.seed.wrapping_add(round << 32);
            statistics.add(&self.round(world, seed, || {
                while world.runs() && begun.elapsed() < end {
                    std::thread::sleep(TICK.min(end.saturating_sub(begun.elapsed())));
                    watch(begun.elapsed());
                }
            }));
            round += 1;
            if world.judge().violations() == 0
                && let Err(error) = world.audit()
            {
                world.violation(format_args!("the round could not be audited: {error}"));
            }
            world.judge().go_on();
        }
        statistics
    }

    fn round(&self, world: &World, seed: u64, mut wait: impl FnMut()) -> Statistics {
        let calm = AtomicBool::new(false);
        let joined = thread::scope(|scope| {
            let vcpus: Vec<_> = (0..self.vcpus)
                .map(|number| scope.spawn(move |_| vcpu::run(world, seed.wrapping_add(number.into()))))
                .collect();
            let others = [
                scope.spawn(|_| engine::run(world, seed ^ 0xd0)),
                scope.spawn(|_| engine::run(world, seed ^ 0xd1)),
                scope.spawn(|_| administrator::run(world, seed ^ 0xa0)),
                scope.spawn(|_| administrator::run(world, seed ^ 0xa1)),
                scope.spawn(|_| hotplug::run(world, seed ^ 0xb0)),
                scope.spawn(|_| guardian::run(world, seed ^ 0xad)),
                scope.spawn(|_| backend::run(world, seed ^ 0xbe)),
            ];
            let mishaps = scope.spawn(|_| mishaps::run(world, seed ^ 0xff, &calm));
            wait();
            world.judge().rest();
            let mut statistics = Statistics::default();
            for thread in vcpus.into_iter().chain(others) {
                match thread.join() {
                    Ok(part) => statistics.add(&part),
                    Err(_) => world.violation(format_args!("a thread of the storm panicked")),
                }
            }
            // What hangs is released until nobody is left to hang.
            calm.store(true, Ordering::SeqCst);
            let _nothing = mishaps.join();
            statistics
        });
        joined.unwrap_or_default()
    }
}
