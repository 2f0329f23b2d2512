//! What must hold when no operation is under way, whatever has happened before.

use pcidevs::platform::{Dma, Entry};
use pcidevs::{Holder, Owner, Sbdf};

use crate::machine::{Machine, owner};
use crate::{GUEST, ONE, OTHER, TWO};

const OWNERS: [Owner; 6] =
    [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden, Owner::Guest(GUEST), Owner::Guest(OTHER)];

/// What must hold of both devices of a small machine; see [`settled_at`].
pub fn settled(machine: &Machine) {
    settled_at(machine, &[ONE, TWO]);
}

/// What must hold of these addresses, which are all that a device was ever at:
///
/// - a device is on exactly one list, its owner's, and claimed by nobody; what is not known is on none;
/// - its uses are the named ones, and a guest's device is used by its assignment, once;
/// - the IOMMU sends its requests, under each of its IDs, to its owner, or blocks them, and nothing waits to be flushed;
/// - broken or not, a guest that it reaches has it, or has what shares that ID: so that guest is not forgotten;
/// - under an ID that no device has, the IOMMU has nothing.
pub fn settled_at(machine: &Machine, addresses: &[Sbdf]) {
    let known: Vec<_> = addresses.iter().filter_map(|at| device(machine, *at)).collect();
    for id in addresses {
        reached(machine, *id, &known);
    }
}

/// A device that is known.
struct Known {
    at: Sbdf,
    owner: Owner,
    requesters: Vec<Sbdf>,
    is_broken: bool,
}

/// Looks at one address: its lists, its uses.
fn device(machine: &Machine, at: Sbdf) -> Option<Known> {
    let is_listed = |owner: &Owner| {
        let devices = machine.devices_of(*owner).expect("memory");
        devices.is_some_and(|devices| devices.iter().any(|device| device.address() == at))
    };
    let lists: Vec<_> = OWNERS.into_iter().filter(is_listed).collect();
    let Some(owner) = owner(machine, at) else {
        assert_eq!(lists, [], "{at} is not known");
        return None;
    };
    assert_eq!(lists, [owner], "lists with {at}");
    let status = machine.status(at).expect("known");
    let is_broken = status.broken.is_some();
    let status = status.status;
    assert_eq!((status.uses as usize, status.unnamed), (status.holders.len(), 0), "{at}: {status:?}");
    if let Owner::Guest(guest) = owner {
        let assigned = |holder: &&Holder| [Holder::Domain(guest), Holder::DmaOf(guest)].contains(holder);
        assert_eq!(status.holders.iter().filter(assigned).count(), 1, "{at}: {status:?}");
    }
    let device = machine.lock(at).expect("known");
    assert!(!device.is_claimed(), "{at} is left claimed");
    Some(Known { at, owner, requesters: device.requesters().to_vec(), is_broken })
}

/// Looks at one requester ID: whom it reaches, and whether those who have it agree on that.
fn reached(machine: &Machine, id: Sbdf, known: &[Known]) {
    let sharers: Vec<_> = known.iter().filter(|device| device.requesters.contains(&id)).collect();
    let entry = machine.platform().entry(id);
    let cached = machine.platform().cached_entry(id);
    for owner in [Dma::reaches(machine.platform().dma_raw(id)), attached(entry)].into_iter().flatten() {
        if owner.guest().is_some() {
            let has_it = sharers.iter().any(|device| device.owner == owner);
            assert!(has_it, "{id} reaches {owner}, who has nothing with that ID");
        }
    }
    if sharers.iter().any(|device| device.is_broken) {
        return;
    }
    assert_eq!(cached, None, "{id}");
    if sharers.is_empty() {
        assert_eq!(entry, Entry::Absent, "nobody has {id}");
    }
    for Known { at, owner, .. } in sharers {
        let fits = match owner {
            Owner::Unowned => entry == Entry::Absent,
            // Absent where a removal had failed after it had cleared the entry, and the device was repaired.
            Owner::Quarantine | Owner::Hidden => matches!(entry, Entry::Blocked | Entry::Absent),
            owner => entry == Entry::Attached(*owner),
        };
        assert!(fits, "{at} is with {owner}, and the entry of {id} is {entry:?}");
    }
}

fn attached(entry: Entry) -> Option<Owner> {
    match entry {
        Entry::Attached(owner) => Some(owner),
        Entry::Absent | Entry::Blocked => None,
    }
}
