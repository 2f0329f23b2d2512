//! The workloads: each fills tables with figures for every strategy.
//!
//! | file | what |
//! |---|---|
//! | `access` | lookup + get + put; a locked read by address and by guest address; a plain read |
//! | `mixed` | reads and writes |
//! | `churn` | accesses, some of them an add or a remove |
//! | `storm` | devices assigned and released as fast as it goes |
//! | `domains` | many domains, each with a few devices |
//! | `hook` | reads of other devices beside an assign storm, and beside a transition that is in a slow hook |
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
pub(crate) use churn::{CHURN, share};
pub(crate) use domains::DOMAINS;
pub(crate) use hook::HOOK;
pub(crate) use memory::MEMORY;
pub(crate) use storm::STORM;
pub(crate) use tail::{SHARES as TAIL_SHARES, TAIL};

use crate::asked::Asked;
use crate::device::Device;
use crate::measured::Measured;
use crate::measuring::rounds::Effort;
use crate::strategy::Strategy;

/// The column of one thread.
pub(crate) const ALONE: &str = "1 thread";

/// Each workload's name and what its tables show.
pub(crate) const EXPLAINED: [(&str, &str); 12] = [
    (BY_ADDRESS, "A register read under the device's lock; the device is found by the host's address."),
    (
        BY_GUEST_ADDRESS,
        "The same by the address under which a guest has the device. One guest has all of them.",
    ),
    (access::GET_PUT, "The device is found, a use of it is counted and given back."),
    (access::HOLD_PUT, "The same under a name, where the strategy keeps names."),
    (PLAIN, "A register whose reading has no side effect, on one device."),
    (mixed::MIXED, "Locked reads and writes by the host's address."),
    (
        CHURN,
        "Locked reads, some of them replaced by an add or a remove of another device. Means, not medians.",
    ),
    (
        STORM,
        "A device given to a guest and taken back: both together are one operation. The hooks do nothing.",
    ),
    (DOMAINS, "Locked reads by guest address, of any device of any domain, in random order."),
    (
        HOOK,
        "Locked reads of other devices while one device's transition is in a hook. The clock is in every sample.",
    ),
    (
        TAIL,
        "Single locked reads, timed one by one, while neighbours come and go. The clock is in every sample.",
    ),
    (MEMORY, "Bytes asked of the allocator, divided by the devices."),
];

/// What every workload is given.
pub(crate) struct Run<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) processors: usize,
    pub(crate) measured: &'a mut Measured,
}

impl Run<'_> {
    /// For a table of so many columns: where many processors make many columns, fewer rounds, so that a full run
    /// stays a matter of minutes.
    fn effort(&self, columns: usize) -> Effort {
        let effort = self.asked.effort();
        let rounds =
            if columns > COLUMNS { (effort.rounds * COLUMNS / columns).max(5) } else { effort.rounds };
        Effort { rounds, ..effort }
    }
}

/// The columns of most tables on two processors.
const COLUMNS: usize = 4;

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
