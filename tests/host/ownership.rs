//! Seed 000: the record on the list is the device. One owner, decided by the record, and nobody else's is touched.

use pcidevs::Errno;
use pcidevs::host::{Attachable, Guarding, GuestName, HostError, HostState};

use crate::scaffold::{
    CARD, OTHER, PORTS, STAYS, at, attach_managed, check, detach, dump, guest, machine, open, release, set,
    state,
};

fn attach(manager: &pcidevs::host::HostManager, wanted: &[Attachable], name: &str) -> Result<(), HostError> {
    manager.attach(wanted, &guest(name), Guarding::On)
}

#[test]
fn managed_comes_from_the_host_and_goes_back_there() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &[CARD, OTHER], "vm");
    assert_eq!(state(&manager, CARD), HostState::Guest(guest("vm")));
    assert_eq!((fake.resets(at(CARD)), fake.resets(at(OTHER))), (1, 1), "reset before a guest has it");
    check(&fake, &manager);
    let released = release(&manager, &[CARD, OTHER], "vm");
    assert_eq!((released.returned, released.failures), (set(&[CARD, OTHER]), vec![]));
    assert_eq!((fake.resets(at(CARD)), fake.resets(at(OTHER))), (2, 2), "and after");
    assert_eq!(dump(&fake), before);
    assert_eq!(state(&manager, CARD), HostState::Host);
}

#[test]
fn unmanaged_stays_detached_after_its_guest() {
    let fake = machine();
    let manager = open(&fake);
    assert_eq!(
        attach(&manager, &[Attachable::detached(at(CARD))], "vm"),
        Err(HostError::NotDetached(at(CARD)))
    );
    detach(&manager, &[CARD]);
    attach(&manager, &[Attachable::detached(at(CARD))], "vm").expect("attached");
    let released = release(&manager, &[CARD], "vm");
    assert_eq!((released.detached, released.returned), (set(&[CARD]), vec![]));
    assert_eq!(state(&manager, CARD), HostState::Quarantine);
    check(&fake, &manager);
}

#[test]
fn what_was_detached_by_hand_stays_detached_though_its_attach_was_managed() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    attach_managed(&manager, &[CARD], "vm");
    assert_eq!(release(&manager, &[CARD], "vm").detached, set(&[CARD]));
    assert_eq!(state(&manager, CARD), HostState::Quarantine, "the record decides");
}

#[test]
fn a_mixed_set_is_taken_apart_by_its_records() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[OTHER]);
    attach_managed(&manager, &[CARD, OTHER], "vm");
    let released = release(&manager, &[CARD, OTHER], "vm");
    assert_eq!((released.returned, released.detached), (set(&[CARD]), set(&[OTHER])));
    assert_eq!((state(&manager, CARD), state(&manager, OTHER)), (HostState::Host, HostState::Quarantine));
    check(&fake, &manager);
}

#[test]
fn the_four_port_adapter_detach_4_attach_1_release_it_4_in_quarantine() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    // One after the other, as an administrator does it: siblings on host drivers are no obstacle to a detach.
    for port in PORTS {
        detach(&manager, &[port]);
    }
    attach_managed(&manager, &[PORTS[2]], "vm");
    assert_eq!(release(&manager, &[PORTS[2]], "vm").detached, set(&[PORTS[2]]));
    for port in PORTS {
        assert_eq!(state(&manager, port), HostState::Quarantine, "{port}");
    }
    let released = manager.reattach(&set(&PORTS)).expect("reattached");
    assert_eq!(released.returned, set(&PORTS));
    assert_eq!(dump(&fake), before);
}

#[test]
fn an_unrelated_detached_device_is_left_alone() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[STAYS]);
    attach_managed(&manager, &[CARD], "vm");
    release(&manager, &[CARD], "vm");
    assert_eq!(state(&manager, STAYS), HostState::Quarantine);
    check(&fake, &manager);
}

#[test]
fn whoever_has_it_is_named_and_keeps_it() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    let record = manager.record(at(CARD));
    fake.take_written();
    let same_name_of_another = GuestName::new("crosvm", "vm").expect("a name");
    let in_use = HostError::InUse { device: at(CARD), owner: guest("vm") };
    assert_eq!(attach(&manager, &[Attachable::managed(at(CARD))], "vm"), Err(in_use.clone()), "again");
    assert_eq!(attach(&manager, &[Attachable::managed(at(CARD))], "other"), Err(in_use.clone()));
    let mixed = [Attachable::managed(at(OTHER)), Attachable::managed(at(CARD))];
    assert_eq!(manager.attach(&mixed, &same_name_of_another, Guarding::On), Err(in_use.clone()));
    let default = pcidevs::host::DriverType::Default;
    assert_eq!(manager.detach(&set(&[CARD]), &default, Guarding::On), Err(in_use.clone()));
    assert_eq!(manager.reattach(&set(&[CARD])), Err(in_use.clone()));
    assert_eq!((manager.reset(at(CARD)), in_use.errno()), (Err(in_use), Errno::EBUSY));
    assert_eq!(fake.take_written(), [""; 0]);
    assert_eq!((manager.record(at(CARD)), state(&manager, OTHER)), (record, HostState::Host));
}

#[test]
fn release_by_anyone_but_the_owner_has_no_effect() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    detach(&manager, &[OTHER]);
    fake.take_written();
    for (text, name) in [(CARD, "other"), (OTHER, "vm"), (STAYS, "vm")] {
        let refused = manager.release(&set(&[text]), &guest(name));
        assert_eq!(refused, Err(HostError::NotOwner { device: at(text), guest: guest(name) }));
    }
    assert_eq!(fake.take_written(), [""; 0]);
    assert_eq!(state(&manager, CARD), HostState::Guest(guest("vm")));
}

#[test]
fn a_removal_event_that_comes_twice_or_for_an_unknown_device_changes_nothing() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD, OTHER], "vm");
    release(&manager, &[CARD], "vm");
    let before = dump(&fake);
    fake.take_written();
    let again = manager.release(&set(&[CARD]), &guest("vm")).expect_err("it came twice");
    assert_eq!(again, HostError::NotOwner { device: at(CARD), guest: guest("vm") });
    let unknown = manager.release(&set(&["0000:77:00.0"]), &guest("vm")).expect_err("unknown");
    assert_eq!(unknown, HostError::NotFound(at("0000:77:00.0")));
    // One of the set is not theirs any more: nothing of it moves.
    manager.release(&set(&[OTHER, CARD]), &guest("vm")).expect_err("not both");
    assert_eq!(state(&manager, OTHER), HostState::Guest(guest("vm")));
    assert_eq!((dump(&fake), fake.take_written()), (before, vec![]));
}

#[test]
fn a_removal_event_that_never_comes_leaves_the_device_with_its_guest_over_restarts() {
    let fake = machine();
    attach_managed(&open(&fake), &[CARD], "vm");
    for _ in 0..2 {
        let manager = open(&fake);
        assert_eq!(manager.retry_deferred().expect("tried").returned, []);
        assert_eq!(state(&manager, CARD), HostState::Guest(guest("vm")));
    }
    release(&open(&fake), &[CARD], "vm");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb"));
}

#[test]
fn two_members_of_a_group_go_to_one_guest_only() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &PORTS);
    attach(&manager, &[Attachable::detached(at(PORTS[0]))], "vm").expect("attached");
    let refused = attach(&manager, &[Attachable::detached(at(PORTS[1]))], "other").expect_err("one group");
    assert_eq!(refused.errno(), Errno::EBUSY, "{refused}");
    assert_eq!(state(&manager, PORTS[1]), HostState::Quarantine);
    attach(&manager, &[Attachable::detached(at(PORTS[1]))], "vm").expect("the same guest");
    check(&fake, &manager);
}

#[test]
fn of_two_guests_that_ask_for_one_group_at_once_one_wins() {
    for _ in 0..50 {
        let fake = machine();
        let manager = open(&fake);
        detach(&manager, &PORTS);
        let won = std::thread::scope(|scope| {
            let ask = |port: &'static str, name: &'static str| {
                let manager = &manager;
                scope.spawn(move || attach(manager, &[Attachable::detached(at(port))], name).is_ok())
            };
            let asked = [ask(PORTS[0], "a"), ask(PORTS[1], "b")];
            asked.map(|thread| thread.join().expect("no panic"))
        });
        // Both may meet at the group and be told to try again; never do both get it.
        assert!(won != [true, true]);
        let guests = PORTS.iter().filter(|port| matches!(state(&manager, port), HostState::Guest(_))).count();
        assert_eq!(guests, won.iter().filter(|won| **won).count());
        check(&fake, &manager);
    }
}

#[test]
fn siblings_on_host_drivers_are_all_listed_before_the_first_write() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[PORTS[0], PORTS[2]]);
    fake.take_written();
    let refused = attach(&manager, &[Attachable::detached(at(PORTS[0]))], "vm").expect_err("not viable");
    assert_eq!(
        refused.to_string(),
        "group 12: 0000:03:00.1 is bound to igb, 0000:03:00.3 is bound to igb: detach them too"
    );
    let refused = attach(&manager, &[Attachable::managed(at(PORTS[1]))], "vm").expect_err("not viable");
    assert_eq!(refused.to_string(), "group 12: 0000:03:00.3 is bound to igb: detach them too");
    assert_eq!(fake.take_written(), [""; 0]);
    // A sibling without driver is fine.
    fake.write_as_somebody("bus/pci/drivers/igb/unbind", PORTS[1]).expect("unbound");
    fake.write_as_somebody("bus/pci/drivers/igb/unbind", PORTS[3]).expect("unbound");
    attach(&manager, &[Attachable::detached(at(PORTS[0]))], "vm").expect("viable");
}

#[test]
fn a_foreign_device_is_nobodys_until_it_is_adopted() {
    let fake = machine();
    let place = format!("bus/pci/devices/{CARD}/driver_override");
    fake.write_as_somebody(&place, "vfio-pci").expect("written");
    fake.write_as_somebody("bus/pci/drivers/igb/unbind", CARD).expect("unbound");
    fake.write_as_somebody("bus/pci/drivers_probe", CARD).expect("probed");
    let (manager, recovery) = crate::scaffold::reopen(&fake);
    assert_eq!(recovery.foreign, set(&[CARD]));
    assert_eq!(state(&manager, CARD), HostState::Foreign);
    let default = pcidevs::host::DriverType::Default;
    for refused in [
        manager.detach(&set(&[CARD]), &default, Guarding::On).expect_err("foreign"),
        attach(&manager, &[Attachable::managed(at(CARD))], "vm").expect_err("foreign"),
        manager.reattach(&set(&[CARD])).expect_err("foreign"),
    ] {
        assert!(matches!(refused, HostError::Foreign { .. }), "{refused}");
    }
    assert_eq!(manager.adopt(&set(&[OTHER])), Err(HostError::NotForeign(at(OTHER))));
    let user = fake.open_device(at(CARD)).expect("on VFIO");
    assert!(matches!(manager.adopt(&set(&[CARD])), Err(HostError::GroupOpen(_))), "somebody uses it");
    drop(user);
    fake.take_written();
    manager.adopt(&set(&[CARD])).expect("adopted");
    assert_eq!(state(&manager, CARD), HostState::Quarantine);
    let written = fake.take_written();
    assert!(written.iter().all(|line| line.contains("journal") || line.contains("config")), "{written:?}");
    check(&fake, &manager);
    // What it had is unknown: it gets what the kernel takes for it.
    manager.reattach(&set(&[CARD])).expect("reattached");
    assert_eq!((fake.driver(at(CARD)).as_deref(), fake.driver_override(at(CARD))), (Some("igb"), None));
}
