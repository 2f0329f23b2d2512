//! Schedules at random, for what is too long to be explored.
//!
//! Half of them switch threads wherever they can, with equal chances; the other half (PCT) run one thread for long
//! and switch at a few places, which finds what needs a thread to be very slow at one place. What a life does beside
//! that is drawn from the same seeds, so a failure leaves a schedule that can be run again as it was.
//!
//! | variable | |
//! |---|---|
//! | `SHUTTLE_SCHEDULES` | how many, in place of the number stated at the model |
//! | `SHUTTLE_RANDOM_SEED` | other schedules than the usual ones; a life that failed at random names its own seed |
//! | `SHUTTLE_REPLAY` | the schedule in this file, which a failure names, and no other |

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// How many places a PCT schedule switches threads at.
const SWITCHES: usize = 5;

/// The same schedules every time, so that a mutant that is caught is caught again.
const SEED: u64 = 0x9c1d_e75;

/// Runs so many schedules of `model`.
///
/// shuttle takes every ordering for `SeqCst`: what depends on weaker ones is loom's.
pub fn schedule(count: usize, model: impl Fn() + Sync + Send + 'static) {
    let model = Arc::new(model);
    let run = || {
        let model = Arc::clone(&model);
        move || model()
    };
    let mut config = Config::new();
    // It warns of weak orderings, and of statics.
    config.silence_warnings = true;
    config.stack_size = 0x4_0000;
    config.failure_persistence = FailurePersistence::File(Some(std::env::temp_dir()));
    if let Ok(file) = std::env::var("SHUTTLE_REPLAY") {
        config.failure_persistence = FailurePersistence::None;
        let mut replay = ReplayScheduler::new_from_file(file).expect("a schedule");
        // It ends where the failure was.
        replay.set_allow_incomplete();
        Runner::new(replay, config).run(run());
        return;
    }
    let asked = std::env::var("SHUTTLE_SCHEDULES").ok().map(|count| count.parse().expect("a number"));
    let half = asked.unwrap_or(count).div_ceil(2);
    let random = Runner::new(RandomScheduler::new_from_seed(SEED, half), config.clone()).run(run());
    let few = Runner::new(PctScheduler::new_from_seed(SEED, SWITCHES, half), config).run(run());
    println!("{} schedules", random + few);
}
