//! What stands between a caller and a hook: counting, recording, injecting.
//!
//! A benchmark calls hooks by the million and wants none of it, so all of it hides behind one word of switches
//! that rarely changes: a hook loads it once, and goes on if nothing is switched on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::fault::{Fault, Hangs, Plan, RANDOM, by_chance};
use super::journal::Call;
use super::locked;
use crate::errno::Errno;
use crate::platform::HookError;

/// Calls are counted.
pub(super) const COUNT: u32 = 1 << 0;
/// Calls are recorded.
pub(super) const RECORD: u32 = 1 << 1;
/// There is a plan of faults.
pub(super) const PLAN: u32 = 1 << 2;
/// Calls fail at random.
pub(super) const CHANCE: u32 = 1 << 3;
/// Configuration accesses are calls like any other.
pub(super) const CONFIG: u32 = 1 << 4;
/// There are rules of policy.
pub(super) const RULES: u32 = 1 << 5;
/// There is something to call for a new owner.
pub(super) const BIND: u32 = 1 << 6;

const NO_HANG: HookError = HookError::new(Errno::ETIMEDOUT, "a model cannot hang");

const CALLS: u32 = COUNT | RECORD | PLAN | CHANCE;

#[derive(Debug, Default)]
pub(super) struct Watch {
    switches: AtomicU32,
    pub(super) calls: AtomicU64,
    pub(super) injected: AtomicU64,
    pub(super) seed: AtomicU64,
    pub(super) permille: AtomicU32,
    pub(super) plan: Mutex<Plan>,
    pub(super) journal: Mutex<Vec<Call>>,
    pub(super) hangs: Hangs,
}

impl Watch {
    pub(super) fn switch(&self, switches: u32, on: bool) {
        // A switch may reach another thread a little late, but what it stands for is under a lock or atomic.
        if on {
            self.switches.fetch_or(switches, Ordering::Relaxed);
        } else {
            self.switches.fetch_and(!switches, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_on(&self, switch: u32) -> bool {
        self.switches.load(Ordering::Relaxed) & switch != 0
    }

    /// Lets a call through to its hook, or not.
    #[inline]
    pub(super) fn pass(&self, call: impl FnOnce() -> Call) -> Result<(), HookError> {
        if self.is_on(CALLS) { self.look_at(call()) } else { Ok(()) }
    }

    /// The same for a configuration access.
    #[inline]
    pub(super) fn pass_config(&self, call: impl FnOnce() -> Call) -> Result<(), HookError> {
        if self.is_on(CONFIG) { self.pass(call) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn look_at(&self, call: Call) -> Result<(), HookError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault(number, &call);
        if self.is_on(RECORD) {
            let mut journal = locked(&self.journal);
            if journal.try_reserve(1).is_ok() {
                journal.push(Call { fault, ..call });
            }
        }
        let Some(fault) = fault else { return Ok(()) };
        self.injected.fetch_add(1, Ordering::Relaxed);
        match fault {
            Fault::Error(error) => Err(error),
            // Not `panic!`: a storm of injected panics must not print a line for each.
            Fault::Panic => std::panic::resume_unwind(Box::new("the test asked this hook to panic")),
            Fault::Hang if cfg!(any(loom, shuttle)) => Err(NO_HANG),
            Fault::Hang => {
                self.hangs.hang();
                Ok(())
            }
        }
    }

    fn fault(&self, number: u64, call: &Call) -> Option<Fault> {
        let planned = if self.is_on(PLAN) { locked(&self.plan).take(number, call.hook) } else { None };
        planned.or_else(|| self.chance(number).then_some(Fault::Error(RANDOM)))
    }

    fn chance(&self, number: u64) -> bool {
        let (seed, permille) = (self.seed.load(Ordering::Relaxed), self.permille.load(Ordering::Relaxed));
        self.is_on(CHANCE) && by_chance(seed, number, permille)
    }
}
