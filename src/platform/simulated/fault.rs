//! What can be done to a hook, and to which call.

use core::fmt;
use std::sync::{Condvar, Mutex};

use super::journal::Hook;
use super::locked;
use crate::errno::Errno;
use crate::platform::HookError;

/// What happens to a call of a hook, before it has had any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error, and has done nothing.
    ///
    /// Hooks without an error answer for the worst: `permit` denies, `has_driver` and `group_in_use` say yes, a
    /// configuration read gives all ones, a configuration write is lost. `stop_guest` does its work.
    Error(HookError),
    /// It panics, and has done nothing. The panic hook is not called: nothing is printed.
    Panic,
    /// It blocks until [`release_hangs`](super::Simulated::release_hangs), and then does its work.
    ///
    /// In a model, where nothing may block, it fails with ETIMEDOUT.
    Hang,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic => f.pad("panic"),
            Self::Hang => f.pad("hang"),
        }
    }
}

/// The error of calls that fail by [`fault_rate`](super::Simulated::fault_rate).
pub(super) const RANDOM: HookError = HookError::new(Errno::EIO, "failed at random, as the test asked");

/// The faults that wait for their call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By the number of the call.
    pub(super) numbered: Vec<(u64, Fault)>,
    /// For the next call of the hook, in the order given.
    pub(super) next: Vec<(Hook, Fault)>,
    /// For every call of the hook.
    pub(super) every: Vec<(Hook, Fault)>,
}

impl Plan {
    /// The fault of this call, if any. Those for one call only are used up.
    pub(super) fn take(&mut self, number: u64, hook: Hook) -> Option<Fault> {
        let numbered = self.numbered.iter().position(|(at, _)| *at == number);
        let numbered = numbered.map(|place| self.numbered.remove(place).1);
        let next = || {
            let place = self.next.iter().position(|(of, _)| *of == hook)?;
            Some(self.next.remove(place).1)
        };
        let every = || self.every.iter().find(|(of, _)| *of == hook).map(|(_, fault)| *fault);
        numbered.or_else(next).or_else(every)
    }

    /// Faults that wait for one call, and have not met it.
    pub(super) fn pending(&self) -> usize {
        self.numbered.len() + self.next.len()
    }
}

/// Whether the call of this number fails at random: the same seed gives the same calls.
pub(super) const fn by_chance(seed: u64, number: u64, permille: u32) -> bool {
    // SplitMix64: a permutation that spreads consecutive numbers over all of 64 bits.
    let mut word = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ word >> 31) % 1000 < permille as u64
}

/// Where hanging hooks wait.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    state: Mutex<Hanging>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Hanging {
    /// How often all were released.
    releases: u64,
    /// How many hang.
    count: usize,
}

impl Hangs {
    /// Hangs until the next release.
    pub(super) fn hang(&self) {
        let mut state = locked(&self.state);
        let before = state.releases;
        state.count += 1;
        self.changed.notify_all();
        let wait = self.changed.wait_while(state, |state| state.releases == before);
        drop(wait);
    }

    pub(super) fn release(&self) {
        let mut state = locked(&self.state);
        state.releases += 1;
        state.count = 0;
        self.changed.notify_all();
    }

    pub(super) fn count(&self) -> usize {
        locked(&self.state).count
    }

    /// Waits until at least this many hang.
    pub(super) fn wait_for(&self, count: usize) {
        drop(self.changed.wait_while(locked(&self.state), |state| state.count < count));
    }
}
