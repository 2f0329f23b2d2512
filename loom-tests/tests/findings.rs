//! What the schedules found and what is not mended yet.
#![cfg(shuttle)]

use pcidevs::platform::{Entry, Fault, Hook, HookError};
use pcidevs::{Errno, Member, Owner};
use pcidevs_loom::machine::settled_at;
use pcidevs_loom::world::{ALL, BEHIND, BEHIND_TWO, BRIDGE, PF, World};
use pcidevs_loom::{GUEST, schedule};

/// Each leaves the entry of the ID that both have to the other.
#[test]
fn one_of_two_sharers_is_removed_and_the_other_one_goes() {
    schedule(20_000, || {
        let world = World::begin();
        let remover = world.spawn(|world| world.machine.remove_device(BEHIND_TWO));
        world.machine.report_gone(BEHIND).expect("known");
        remover.join().unwrap().expect("unused");
        world.machine.run_deferred();
        settled_at(&world.machine, &ALL);
    });
}

/// A removal finds its sharer closed, clears the entry of both, and the sharer is opened again.
#[test]
fn one_of_two_sharers_is_removed_and_the_other_one_closes_and_opens() {
    schedule(20_000, || {
        let world = World::begin();
        let subtree = world.spawn(|world| world.machine.remove_subtree(BRIDGE).is_ok());
        let _removed = world.machine.remove_device(BEHIND);
        subtree.join().unwrap();
        settled_at(&world.machine, &ALL);
    });
}

/// Sequential: the guest is forgotten, its memory free, and the IOMMU still names its tables.
#[test]
fn a_guest_is_released_while_the_entry_of_what_is_gone_names_it() {
    schedule(2, || {
        let world = World::begin();
        world.machine.assign(&[Member::new(PF)], GUEST).expect("assigned");
        let fault = Fault::Error(HookError::new(Errno::EIO, "as the test asked"));
        world.machine.platform().fail_every(Hook::IommuDetach, fault);
        world.machine.report_gone(PF).expect("known");
        // Any schedule.
        world.spawn(|world| world.machine.run_deferred()).join().unwrap();
        if world.machine.release_domain(GUEST).is_ok() {
            assert_ne!(world.machine.platform().entry(PF), Entry::Attached(Owner::Guest(GUEST)));
        }
    });
}
