//! The manager's operations on real functions, or on those in memory.

use std::time::Duration;

use pcidevs::Errno;
use pcidevs::host::{
    Attachable, DriverType, Guarding, HostError, HostManager, HostState, LockRefused, Options, Recovered,
};

use super::rig::{Card, Rig, driver_file};
use crate::scaffold::guest;

fn detach(manager: &HostManager, cards: &[&Card]) -> Result<(), HostError> {
    let set: Vec<_> = cards.iter().map(|card| card.at()).collect();
    manager.detach(&set, &DriverType::Default, Guarding::On)
}

fn attach(manager: &HostManager, cards: &[&Card], name: &str) -> Result<(), HostError> {
    let set: Vec<_> = cards.iter().map(|card| Attachable::managed(card.at())).collect();
    manager.attach(&set, &guest(name), Guarding::On)
}

fn state(manager: &HostManager, card: &Card) -> HostState {
    manager.status(card.at()).expect("known").state
}

fn is_on_vfio(card: &Card) -> bool {
    card.bound_to().as_deref() == Some("vfio-pci") && card.driver_override() == "vfio-pci"
}

#[test]
fn a_detached_function_is_on_vfio_and_quiet_and_goes_back_as_it_was() {
    for rig in Rig::each() {
        let before = rig.dump();
        let manager = rig.open();
        let set = [&rig.card, &rig.other, &rig.pf];
        detach(&manager, &set).expect("detached");
        for card in set {
            assert!(is_on_vfio(card), "{}", card.address);
            assert!(!card.is_master(), "{}", card.address);
            assert_eq!(state(&manager, card), HostState::Quarantine);
        }
        let released = manager.reattach(&set.map(Card::at)).expect("reattached");
        assert_eq!((released.returned, released.failures), (set.map(Card::at).to_vec(), vec![]));
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn somebody_elses_override_is_put_back() {
    for rig in Rig::each() {
        rig.card.write("driver_override", &rig.card.driver).expect("written");
        let before = rig.dump();
        let manager = rig.open();
        detach(&manager, &[&rig.card]).expect("detached");
        assert!(is_on_vfio(&rig.card));
        manager.reattach(&[rig.card.at()]).expect("reattached");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn a_function_without_driver_goes_back_to_none() {
    for rig in Rig::each() {
        rig.card.write_driver(&rig.card.driver, "unbind").expect("unbound");
        let before = rig.dump();
        let manager = rig.open();
        detach(&manager, &[&rig.card]).expect("detached");
        manager.reattach(&[rig.card.at()]).expect("reattached");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn a_guest_opens_what_it_was_given_and_the_host_waits_until_it_is_closed() {
    for rig in Rig::each() {
        let before = rig.dump();
        let manager = rig.open();
        attach(&manager, &[&rig.card], "vm").expect("attached");
        let opened = rig.hold(&rig.card).expect("opened");
        let released = manager.release(&[rig.card.at()], &guest("vm")).expect("released");
        assert_eq!((released.deferred, released.returned), (vec![rig.card.at()], vec![]));
        assert!(is_on_vfio(&rig.card));
        assert_eq!(state(&manager, &rig.card), HostState::Deferred);
        assert_eq!(manager.retry_deferred().expect("tried").deferred, [rig.card.at()]);
        drop(opened);
        let waited = manager.wait_for_deferred(Duration::from_secs(60)).expect("waited");
        assert_eq!((waited.deferred, waited.failed), (vec![], vec![]));
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn a_group_goes_back_when_its_last_member_is_out() {
    for rig in Rig::each() {
        let before = rig.dump();
        let [first, second] = &rig.ports;
        let manager = rig.open();
        attach(&manager, &[first, second], "vm").expect("attached");
        let opened = rig.hold(second).expect("opened");
        let released = manager.release(&[first.at()], &guest("vm")).expect("released");
        assert_eq!(released.deferred, [first.at()]);
        assert!(is_on_vfio(first));
        drop(opened);
        let released = manager.release(&[second.at()], &guest("vm")).expect("released");
        assert_eq!((released.deferred, released.returned), (vec![], vec![first.at(), second.at()]));
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn a_sibling_on_a_host_driver_is_named_before_anything_is_written() {
    for rig in Rig::each() {
        let before = rig.dump();
        let [first, second] = &rig.ports;
        let manager = rig.open();
        let refused = attach(&manager, &[first], "vm").expect_err("the host uses its sibling");
        assert!(matches!(refused, HostError::Siblings { .. }), "{refused}");
        let named = format!("{} is bound to {}", second.address, second.driver);
        assert!(refused.to_string().contains(&named), "{refused}");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn bridges_are_refused() {
    for rig in Rig::each() {
        let manager = rig.open();
        let refused = detach(&manager, &[&rig.bridge]).expect_err("a bridge");
        assert_eq!(refused, HostError::Bridge(rig.bridge.at()));
    }
}

#[test]
fn a_physical_function_keeps_its_driver_while_it_has_virtual_ones() {
    for rig in Rig::each() {
        let manager = rig.open();
        rig.pf.write("sriov_drivers_autoprobe", "0").expect("written");
        rig.pf.write("sriov_numvfs", "2").expect("made");
        let before = rig.dump();
        let expected = HostError::HasVirtualFunctions { device: rig.pf.at(), count: 2 };
        assert_eq!(detach(&manager, &[&rig.pf]), Err(expected.clone()));
        assert_eq!(attach(&manager, &[&rig.pf], "vm"), Err(expected));
        assert_eq!(rig.dump(), before);
        // One of them may go.
        let vf = rig.pf.virtual_function(1);
        attach(&manager, &[&vf], "vm").expect("attached");
        let opened = rig.hold(&vf).expect("opened");
        drop(opened);
        let released = manager.release(&[vf.at()], &guest("vm")).expect("released");
        assert_eq!((released.returned, vf.bound_to()), (vec![vf.at()], None));
        rig.pf.write("sriov_numvfs", "0").expect("gone");
        detach(&manager, &[&rig.pf]).expect("detached");
        manager.reattach(&[rig.pf.at()]).expect("reattached");
    }
}

#[test]
fn an_unbind_of_somebody_else_that_is_stuck_keeps_nobody_from_looking_and_others_are_served() {
    for rig in Rig::each() {
        let before = rig.dump();
        let manager = rig.open();
        attach(&manager, &[&rig.card], "vm").expect("attached");
        let opened = rig.hold(&rig.card).expect("opened");
        let (kernel, address) = (rig.kernel.clone(), rig.card.address.clone());
        let unbind =
            std::thread::spawn(move || kernel.write(&driver_file("vfio-pci", "unbind"), address.as_bytes()));
        while rig.card.bound_to().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(state(&manager, &rig.card), HostState::Guest(guest("vm")));
        assert!(manager.list().expect("listed").len() >= 8);
        let (observer, _) =
            HostManager::observe(rig.kernel.clone(), rig.store.clone()).expect("looks without a lock");
        assert_eq!(state(&observer, &rig.card), HostState::Guest(guest("vm")));
        detach(&manager, &[&rig.other]).expect("others are served");
        manager.reattach(&[rig.other.at()]).expect("and back");
        // The guest is rid of it; the host does not get what is open.
        let released = manager.release(&[rig.card.at()], &guest("vm")).expect("released");
        assert_eq!(released.deferred, [rig.card.at()]);
        drop(opened);
        assert_eq!(unbind.join().expect("it has returned"), Ok(()));
        let waited = manager.wait_for_deferred(Duration::from_secs(60)).expect("waited");
        assert_eq!((waited.deferred, waited.failed), (vec![], vec![]));
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn one_manager_at_a_time() {
    for rig in Rig::each() {
        let manager = rig.open();
        let options = Options::default();
        let second = HostManager::open(rig.kernel.clone(), rig.store.clone(), options).expect_err("taken");
        assert!(matches!(second, HostError::Locked(LockRefused::Taken(_))), "{second}");
        drop(manager);
        rig.open();
    }
}

#[test]
fn what_a_rescan_gave_to_the_host_is_not_taken_from_it_by_guess() {
    for rig in Rig::each() {
        let before = rig.dump();
        let manager = rig.open();
        detach(&manager, &[&rig.card]).expect("detached");
        rig.card.write("remove", "1").expect("removed");
        rig.rescan();
        let refused = attach(&manager, &[&rig.card], "vm").expect_err("the host has it");
        assert!(refused.to_string().contains(&rig.card.driver), "{refused}");
        drop(manager);
        let (manager, recovery) = rig.reopen();
        let [(_, Recovered::Broken(reason))] = &recovery.devices[..] else { panic!("{recovery:?}") };
        assert!(reason.contains("behind our back"), "{reason}");
        assert_eq!(rig.dump(), before);
        manager.repair(rig.card.at()).expect("asked for");
        assert!(is_on_vfio(&rig.card));
        manager.reattach(&[rig.card.at()]).expect("reattached");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn what_somebody_else_put_on_vfio_is_foreign_until_it_is_adopted() {
    for rig in Rig::each() {
        let before = rig.dump();
        rig.card.to_vfio();
        let manager = rig.open();
        assert_eq!(state(&manager, &rig.card), HostState::Foreign);
        assert!(matches!(attach(&manager, &[&rig.card], "vm"), Err(HostError::Foreign { .. })));
        let opened = rig.hold(&rig.card).expect("opened");
        assert_eq!(manager.adopt(&[rig.card.at()]), Err(HostError::GroupOpen(rig.card.group_id())));
        drop(opened);
        manager.adopt(&[rig.card.at()]).expect("adopted");
        assert_eq!(state(&manager, &rig.card), HostState::Quarantine);
        manager.reattach(&[rig.card.at()]).expect("reattached");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn functions_that_only_their_bus_resets_go_to_one_guest_together() {
    for rig in Rig::each() {
        let before = rig.dump();
        let manager = rig.open();
        for [first, second] in [&rig.pair, &rig.old] {
            attach(&manager, &[first, second], "vm").expect("attached");
            let opened = rig.hold(first).expect("opened");
            drop(opened);
            let set = [first.at(), second.at()];
            let released = manager.release(&set, &guest("vm")).expect("released");
            assert_eq!((released.returned, released.failures), (set.to_vec(), vec![]));
        }
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn functions_that_share_a_requester_id_are_refused_one_by_one() {
    for rig in Rig::each() {
        let [first, second] = &rig.old;
        let manager = rig.open();
        detach(&manager, &[first, second]).expect("detached");
        let refused = attach(&manager, &[first], "vm").expect_err("its sibling would go along");
        assert!(refused.to_string().contains(&second.address), "{refused}");
        manager.reattach(&[first.at(), second.at()]).expect("reattached");
    }
}

#[test]
fn a_bus_is_reset_with_a_sibling_in_quarantine_and_stays_due_under_another_ones_hands() {
    for rig in Rig::each() {
        let before = rig.dump();
        let [first, second] = &rig.pair;
        let manager = rig.open();
        detach(&manager, &[first, second]).expect("detached");
        attach(&manager, &[second], "vm").expect("its sibling is in nobody's way");
        let refused = attach(&manager, &[first], "vm").expect_err("its bus is in use");
        assert_eq!(refused.errno(), Errno::EBUSY, "{refused}");
        let released = manager.release(&[second.at()], &guest("vm")).expect("released");
        assert_eq!((released.detached, released.failures), (vec![second.at()], vec![]));
        assert!(!manager.status(second.at()).expect("known").needs_reset);
        attach(&manager, &[first, second], "vm").expect("together");
        // The first to go cannot be reset yet; the second takes both along.
        let released = manager.release(&[first.at()], &guest("vm")).expect("released");
        assert_eq!(released.detached, [first.at()]);
        assert!(manager.status(first.at()).expect("known").needs_reset);
        manager.release(&[second.at()], &guest("vm")).expect("released");
        let returned = manager.reattach(&[first.at(), second.at()]).expect("reattached");
        assert_eq!(returned.returned, [first.at(), second.at()], "{returned:?}");
        assert_eq!(rig.dump(), before);
    }
}

#[test]
fn a_reset_by_hand_is_the_kernels_or_the_buss() {
    for rig in Rig::each() {
        let before = rig.dump();
        let [first, second] = &rig.pair;
        let manager = rig.open();
        detach(&manager, &[&rig.card, first]).expect("detached");
        manager.reset(rig.card.at()).expect("reset");
        assert_eq!(manager.reset(first.at()).expect_err("the host uses its sibling").errno(), Errno::EBUSY);
        detach(&manager, &[second]).expect("detached");
        manager.reset(first.at()).expect("the bus is ours");
        manager.reset(second.at()).expect("the bus is ours");
        let set = [rig.card.at(), first.at(), second.at()];
        assert_eq!(manager.reattach(&set).expect("reattached").returned, set);
        assert_eq!(rig.dump(), before);
    }
}
