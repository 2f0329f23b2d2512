//! What the life of a device costs in bytes asked of the allocator, beside the embedder's state of it.
//!
//! The simulated machine's own memory is not counted: its functions are plugged before.

use pcidevs::Member;
use pcidevs::lifecycle::Lifecycle;
use pcidevs::platform::Simulated;

use crate::machine::{Ids, Machine, State};
use crate::measuring::allocation::bytes_kept;
use crate::measuring::requirement::Bytes;

const ALL: usize = 65536;

/// Bytes for each of so many devices: when added, and what their first assignment adds to that.
fn each(ids: Ids) -> (f64, f64) {
    let machine = Machine::without_devices(ALL, ids);
    let ((), added) = bytes_kept(|| machine.addresses.iter().for_each(|address| machine.add(*address)));
    // One by one, so that the lists and the guest's tables stay as short as they can be.
    let pair = |address| machine.pair(&[Member::new(address)]);
    let ((), assigned) = bytes_kept(|| machine.addresses.iter().copied().for_each(pair));
    let each = |bytes: usize| bytes as f64 / ALL as f64;
    (each(added) - size_of::<State>() as f64, each(assigned))
}

pub(crate) fn count() -> Vec<Bytes> {
    let platform = Simulated::<State>::new();
    let (_, empty) = bytes_kept(|| Lifecycle::new(platform).expect("memory"));
    let mut rows = vec![Bytes::new("a machine without devices", empty as f64, None)];
    for ids in [Ids::One, Ids::Eight] {
        let (added, assigned) = each(ids);
        rows.push(Bytes::new(&format!("a device, {}", ids.name()), added, None));
        rows.push(Bytes::new(&format!("its first assignment, {} (kept)", ids.name()), assigned, None));
    }
    rows
}
