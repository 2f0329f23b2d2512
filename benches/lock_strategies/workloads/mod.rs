//! The workloads: each fills tables with figures for every strategy.
//!
//! | file | what |
//! |---|---|
//! | `access` | lookup + get + put; a locked read by address and by guest address; a plain read |
//! | `mixed` | reads and writes |
//! | `churn` | accesses, some of them an add or a remove |
//! | `storm` | devices assigned and released as fast as it goes |
//! | `domains` | many domains, each with a few devices |
//! | `hook` | reads of other devices while a transition is stuck in a hook |
//! | `tail` | how long single reads take while neighbours come and go |
//! | `memory` | bytes for a device over its own |

mod access;
mod churn;
mod domains;
mod hook;
mod memory;
mod mixed;
mod storm;
mod tail;

use std::sync::Arc;

use pcidevs::Sbdf;

pub(crate) use access::{BY_ADDRESS, BY_GUEST_ADDRESS, PLAIN};
pub(crate) use churn::CHURN;
pub(crate) use domains::DOMAINS;
pub(crate) use hook::HOOK;
pub(crate) use memory::MEMORY;
pub(crate) use tail::{SHARES as TAIL_SHARES, TAIL};

use crate::asked::Asked;
use crate::device::Device;
use crate::measured::Measured;
use crate::strategy::Strategy;

/// What every workload is given.
pub(crate) struct Run<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) processors: usize,
    pub(crate) measured: &'a mut Measured,
}

/// Runs all workloads.
pub(crate) fn measure(run: &mut Run<'_>) {
    access::measure(run);
    mixed::measure(run);
    churn::measure(run);
    storm::measure(run);
    domains::measure(run);
    hook::measure(run);
    tail::measure(run);
    memory::measure(run);
}

/// A registry with these devices.
fn filled<S: Strategy>(addresses: &[Sbdf]) -> Arc<S> {
    let strategy = S::new();
    strategy.fill(addresses.iter().map(|at| (*at, Device::at(*at))));
    Arc::new(strategy)
}

/// A registry with these devices and a guest that has them all, each at the host's address.
fn all_with_a_guest<S: Strategy>(addresses: &[Sbdf]) -> (Arc<S>, Arc<S::Guest>) {
    let strategy = filled::<S>(addresses);
    let guest = strategy.create_guest(1);
    // From the end, where lists that grow at the front are looked through from.
    for at in addresses.iter().rev() {
        strategy.assign(&guest, *at, *at, || ()).expect("unused");
    }
    (strategy, Arc::new(guest))
}
