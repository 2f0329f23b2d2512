//! Injecting faults, counting and recording.

use std::sync::atomic::Ordering;

use super::fault::{Fault, Plan};
use super::journal::{Call, Hook};
use super::watch::{CHANCE, CONFIG, COUNT, PLAN, RECORD};
use super::{Simulated, locked};

/// How many calls are recorded without more memory.
const JOURNAL: usize = 1024;

/// # Counting
///
/// Calls have numbers from 0, in the order in which they come. They are counted while counting is
/// [on](Self::count), while calls are [recorded](Self::record), and while faults wait. The clock never counts;
/// configuration accesses do after [`watch_config`](Self::watch_config).
impl<D, L> Simulated<D, L> {
    /// Begins to count calls, from 0, or stops.
    pub fn count(&self, on: bool) {
        if on {
            self.watch.calls.store(0, Ordering::Relaxed);
        }
        self.watch.switch(COUNT, on);
    }

    /// How many calls were counted.
    pub fn calls(&self) -> u64 {
        self.watch.calls.load(Ordering::Relaxed)
    }

    /// From now on configuration accesses are counted, recorded and made to fail like other calls; or not.
    pub fn watch_config(&self, on: bool) {
        self.watch.switch(CONFIG, on);
    }

    /// Lets the `n`-th call from now meet this fault, whichever hook it is of; 0 is the next one.
    pub fn fail_call(&self, n: u64, fault: Fault) {
        self.plan(|plan| plan.numbered.push((self.calls() + n, fault)));
    }

    /// Lets the next call of this hook meet this fault. Several wait for as many calls.
    pub fn fail_next(&self, hook: Hook, fault: Fault) {
        self.plan(|plan| plan.next.push((hook, fault)));
    }

    /// Lets every call of this hook meet this fault, in place of the one given before.
    pub fn fail_every(&self, hook: Hook, fault: Fault) {
        self.plan(|plan| {
            plan.every.retain(|(of, _)| *of != hook);
            plan.every.push((hook, fault));
        });
    }

    /// Lets calls fail with EIO at random, `permille` of a thousand. On one thread the same seed fails the same
    /// calls.
    pub fn fault_rate(&self, seed: u64, permille: u32) {
        self.watch.seed.store(seed, Ordering::Relaxed);
        self.watch.permille.store(permille, Ordering::Relaxed);
        self.watch.switch(CHANCE, true);
    }

    /// Forgets all faults that wait, and the rate. What hangs goes on hanging.
    pub fn clear_faults(&self) {
        *locked(&self.watch.plan) = Plan::default();
        self.watch.switch(PLAN | CHANCE, false);
    }

    /// How many faults were met.
    pub fn injected(&self) -> u64 {
        self.watch.injected.load(Ordering::Relaxed)
    }

    /// How many of [`fail_call`](Self::fail_call) and [`fail_next`](Self::fail_next) still wait for their call.
    pub fn pending_faults(&self) -> usize {
        locked(&self.watch.plan).pending()
    }

    /// Begins to record calls, or stops. What was recorded stays.
    ///
    /// There is room for 1024 calls; for more, memory is taken as long as there is some.
    pub fn record(&self, on: bool) {
        locked(&self.watch.journal).reserve(if on { JOURNAL } else { 0 });
        self.watch.switch(RECORD, on);
    }

    /// What was recorded.
    pub fn journal(&self) -> Vec<Call> {
        locked(&self.watch.journal).clone()
    }

    /// What was recorded; the journal begins again.
    pub fn take_journal(&self) -> Vec<Call> {
        core::mem::take(&mut locked(&self.watch.journal))
    }

    /// Lets every hook that hangs go on, successfully.
    pub fn release_hangs(&self) {
        self.watch.hangs.release();
    }

    /// How many hooks hang.
    pub fn hanging(&self) -> usize {
        self.watch.hangs.count()
    }

    /// Waits until at least `count` hooks hang.
    pub fn wait_for_hangs(&self, count: usize) {
        self.watch.hangs.wait_for(count);
    }

    fn plan(&self, edit: impl FnOnce(&mut Plan)) {
        edit(&mut locked(&self.watch.plan));
        self.watch.switch(PLAN, true);
    }
}
