//! A whole machine in memory: functions with registers, an IOMMU, groups, policy, a clock.
//!
//! It serves tests, models, `soak`, benchmarks and examples, so it must be three things at once: *exact* where a
//! transition could be wrong (an entry that was not flushed stays visible, see [`Dma`]), *hostile* on request (any
//! call of any hook fails, panics or hangs, see [`Fault`]), and *fast* when nothing is asked of it (no lock on the
//! path of a hook, one word that says whether anybody watches).
//!
//! | file | what |
//! |---|---|
//! | `config_bytes`, `bar` | builds configuration spaces |
//! | `registers`, `function`, `places` | a configuration space; a function; from an address to its function |
//! | `iommu` | the entry of a requester ID, and what is cached of it |
//! | `policy`, `reset` | rules, and what can be reset; what a reset reaches |
//! | `fault`, `journal`, `watch` | what is done to a call; the record of calls; what stands before each hook |
//! | `setup`, `control`, `inspect` | the test's side: building the machine, injecting, looking |
//! | `hooks` | the core's side: the trait |
//!
//! Everything takes `&self`, and the standard library's atomics and locks, also under loom: there the machine is
//! passive state that no interleaving is decided by. None of its locks is held while anything foreign is called.

mod bar;
mod config_bytes;
mod control;
mod fault;
mod function;
mod hooks;
mod inspect;
mod iommu;
mod journal;
mod places;
mod policy;
mod registers;
mod reset;
mod setup;
mod watch;

use alloc::alloc::{Layout, handle_alloc_error};
use core::fmt;
use core::marker::PhantomData;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

pub use bar::Bar;
pub use config_bytes::{ConfigBytes, VirtualFunctions};
pub use fault::Fault;
pub use inspect::Stopped;
pub use iommu::{Dma, Entry};
pub use journal::{Call, Detail, Hook};
pub use policy::{ResetSupport, Rule};

use super::{Binding, Claimed, GroupId, HookError};
use crate::address::Sbdf;
use crate::memory::NoMemory;
use crate::owner::{DomainId, Owner};
use crate::sync::DefaultLock;
use places::Places;
use watch::Watch;

/// What a machine calls for a new owner.
type OnBind<D> = dyn Fn(&dyn Claimed<D>, Owner) -> Result<Binding<D>, HookError> + Send + Sync;

/// A machine in memory, as a [`Platform`](super::Platform).
///
/// ```
/// use pcidevs::platform::{ConfigBytes, Dma, Platform, Simulated, Width};
/// use pcidevs::{Owner, Sbdf};
///
/// let machine = Simulated::<()>::new();
/// let nic: Sbdf = "03:00.0".parse()?;
/// machine.plug(nic, ConfigBytes::endpoint(0x8086, 0x10fb).express().flr());
///
/// machine.iommu_attach(nic, nic, Owner::Host)?;
/// machine.config_write(nic, 0x04, Width::Word, 0x0006);
/// assert_eq!(machine.dma(nic), Dma::Reaches(Owner::Host));
///
/// machine.iommu_block(nic, nic)?;
/// assert_eq!(machine.dma(nic), Dma::Reaches(Owner::Host), "not flushed");
/// machine.iommu_flush(nic)?;
/// assert_eq!(machine.dma(nic), Dma::Blocked);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Simulated<D, L = DefaultLock> {
    places: Places,
    watch: Watch,
    rules: Mutex<Vec<Rule>>,
    on_bind: Mutex<Option<Arc<OnBind<D>>>>,
    open_groups: Mutex<BTreeSet<GroupId>>,
    /// How many groups are open, so that most questions need no lock.
    open_group_count: AtomicUsize,
    stopped: Mutex<VecDeque<Stopped>>,
    asked: Mutex<VecDeque<(Sbdf, DomainId)>>,
    /// Nanoseconds the clock was advanced.
    advanced: AtomicU64,
    /// Since when the clock also runs by itself.
    running: OnceLock<Instant>,
    lock: PhantomData<fn() -> L>,
}

impl<D, L> Simulated<D, L> {
    /// An empty machine, its clock at 0 and standing.
    ///
    /// Building a machine aborts where there is no memory; hooks answer ENOMEM, and need none that the machine
    /// does not have already once every requester ID was named.
    pub fn new() -> Self {
        Self {
            places: Places::try_new().unwrap_or_else(no_memory),
            watch: Watch::default(),
            rules: Mutex::default(),
            on_bind: Mutex::default(),
            open_groups: Mutex::default(),
            open_group_count: AtomicUsize::new(0),
            stopped: Mutex::new(VecDeque::with_capacity(RECORDED)),
            asked: Mutex::new(VecDeque::with_capacity(RECORDED)),
            advanced: AtomicU64::new(0),
            running: OnceLock::new(),
            lock: PhantomData,
        }
    }
}

impl<D, L> Default for Simulated<D, L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D, L> fmt::Debug for Simulated<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("functions", &self.functions()).finish_non_exhaustive()
    }
}

/// How many of the rarer events are remembered.
const RECORDED: usize = 64;

/// While a machine is being built there is nobody to return an error to.
fn no_memory<T>(_: NoMemory) -> T {
    handle_alloc_error(Layout::new::<T>())
}

/// Locks; a panic of an earlier holder left nothing half done, since only whole values are put in.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
