//! What goes wrong on purpose: hooks that fail, panic or hang, and attachments that cannot be undone.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pcidevs::Errno;
use pcidevs::platform::{Fault, Hook, HookError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::world::World;

/// How long a hook hangs at most, about.
const HANG: Duration = Duration::from_millis(2);
/// Panics and hangs that wait for their call, at most: some hooks are called rarely.
const WAITING: usize = 4;
/// From this rate on, in a thousand, there is a panic or a hang whenever one can be.
const OFTEN: u32 = 50;
const CANNOT: HookError = HookError::new(Errno::EIO, "the attachment cannot be undone");

/// Chances for what is not a hook of the platform's.
pub(crate) struct Mishaps {
    /// Of so many in a thousand, in the whole storm.
    rate: u32,
    /// The same, at this moment.
    permille: AtomicU32,
    calls: AtomicU64,
    happened: AtomicU64,
}

impl Mishaps {
    pub(crate) fn new(rate: u32) -> Self {
        let (calls, happened) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rate, permille: AtomicU32::new(0), calls, happened }
    }

    /// From now on something may go wrong.
    pub(crate) fn begin(&self) {
        self.permille.store(self.rate, Ordering::SeqCst);
    }

    /// From now on nothing goes wrong.
    pub(crate) fn end(&self) {
        self.permille.store(0, Ordering::SeqCst);
    }

    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether anything may go, or may have gone, wrong.
    pub(crate) fn are_possible(&self) -> bool {
        self.rate > 0
    }

    /// How often something did.
    pub(crate) fn happened(&self) -> u64 {
        self.happened.load(Ordering::Relaxed)
    }

    /// Fails, panics without a word, or lets it pass.
    pub(crate) fn chance(&self) -> Result<(), HookError> {
        let permille = self.permille.load(Ordering::Relaxed);
        let draw = spread(self.calls.fetch_add(1, Ordering::Relaxed));
        if draw % 1000 >= u64::from(permille) {
            return Ok(());
        }
        self.happened.fetch_add(1, Ordering::Relaxed);
        if (draw >> 32).is_multiple_of(8) {
            std::panic::resume_unwind(Box::new("the storm asked for this"));
        }
        Err(CANNOT)
    }
}

/// Something that looks random, from a counter.
const fn spread(number: u64) -> u64 {
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}

/// A hook takes its time, and others come between.
pub(crate) fn take_time(number: u64) {
    if spread(number).is_multiple_of(32) {
        std::thread::sleep(Duration::from_micros(20));
    } else {
        std::thread::yield_now();
    }
}

/// Sprinkles panics and hangs over the hooks, and lets those that hang go on after a while.
pub(crate) fn run(world: &World, seed: u64, calm: &AtomicBool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let platform = world.machine().platform();
    while !calm.load(Ordering::SeqCst) {
        let due = random.random_ratio(world.mishaps().rate().min(OFTEN), OFTEN);
        if due && world.runs() && platform.pending_faults() < WAITING {
            let hooks: Vec<_> = Hook::ALL.iter().filter(|hook| !hook.is_config()).collect();
            let hook = *hooks[random.random_range(0..hooks.len())];
            let fault = if random.random_ratio(1, 4) { Fault::Hang } else { Fault::Panic };
            platform.fail_next(hook, fault);
        }
        std::thread::sleep(HANG);
        platform.release_hangs();
    }
}
