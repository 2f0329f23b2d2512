//! Seed 002: the host gets a device back when its whole group is out of guests and nobody has it open.

use std::time::Duration;

use pcidevs::Errno;
use pcidevs::host::fake::{FakeDriver, Mishap};
use pcidevs::host::{Attachable, Guarding, HostError, HostState, Options, ResetPolicy};

use crate::scaffold::{
    CARD, NIC, OTHER, PORTS, at, attach_managed, check, detach, dump, guest, machine, open, release, set,
    state,
};

#[test]
fn problem_1_no_member_goes_back_while_another_is_in_a_guest() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &PORTS, "vm");
    for (place, port) in PORTS.iter().enumerate() {
        fake.take_written();
        let released = release(&manager, &[port], "vm");
        if place < 3 {
            let waiting = set(&PORTS[..=place]);
            assert_eq!(
                (released.deferred, released.returned),
                (waiting, vec![]),
                "all that waits in the group"
            );
            assert_eq!(state(&manager, port), HostState::Deferred);
            assert_eq!(fake.driver(at(port)).as_deref(), Some("vfio-pci"), "the group stays viable");
            check(&fake, &manager);
        } else {
            assert_eq!((released.deferred, released.returned), (vec![], set(&PORTS)));
        }
    }
    // The last one takes all of them along, in one transition: no driver before all are off VFIO.
    let written = fake.take_written();
    let last_off = written.iter().rposition(|line| line.contains("vfio-pci/unbind")).expect("off");
    let first_on = written.iter().position(|line| line.contains("igb/bind")).expect("on");
    assert!(last_off < first_on, "{written:#?}");
    assert_eq!(dump(&fake), before);
    assert!(PORTS.iter().all(|port| manager.record(at(port)).is_none()));
}

#[test]
fn problem_2_no_host_driver_while_the_file_is_open() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    let file = fake.open_device(at(CARD)).expect("on VFIO");
    let released = release(&manager, &[CARD], "vm");
    assert_eq!((released.deferred, released.failed), (set(&[CARD]), vec![]));
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"));
    assert_eq!(fake.resets(at(CARD)), 1, "nobody resets what is open");
    assert!(manager.status(at(CARD)).expect("known").needs_reset);
    // Asking does not help, and blocks nobody.
    assert_eq!(manager.retry_deferred().expect("tried").deferred, set(&[CARD]));
    assert_eq!(manager.wait_for_deferred(Duration::ZERO).expect("tried").deferred, set(&[CARD]));
    drop(file);
    assert_eq!(manager.retry_deferred().expect("tried").returned, set(&[CARD]));
    assert_eq!(fake.resets(at(CARD)), 2, "the reset that was due");
    assert_eq!(dump(&fake), before);
}

#[test]
fn where_nobody_can_tell_whether_it_is_open_it_stays() {
    // A kernel with files for devices only: the group has none.
    let fake = machine();
    fake.hide_groups(true);
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    assert_eq!(manager.reattach(&set(&[CARD])).expect("tried").deferred, set(&[CARD]));
    fake.hide_groups(false);
    assert_eq!(manager.retry_deferred().expect("tried").returned, set(&[CARD]));
}

#[test]
fn it_goes_back_by_itself_within_the_patience_of_whoever_waits() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    let file = fake.open_device(at(CARD)).expect("on VFIO");
    release(&manager, &[CARD], "vm");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(file);
        });
        let released = manager.wait_for_deferred(Duration::from_secs(20)).expect("waited");
        assert_eq!(released.deferred, []);
    });
    assert_eq!(dump(&fake), before);
}

#[test]
fn members_that_were_detached_by_hand_do_not_go_along() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &PORTS[..2]);
    attach_managed(&manager, &PORTS, "vm");
    release(&manager, &PORTS, "vm");
    for (place, port) in PORTS.iter().enumerate() {
        let expected = if place < 2 { HostState::Quarantine } else { HostState::Host };
        assert_eq!(state(&manager, port), expected, "{port}");
    }
    check(&fake, &manager);
}

#[test]
fn a_deferred_device_may_go_to_a_guest_or_be_kept_instead() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &PORTS, "vm");
    release(&manager, &PORTS[..2], "vm");
    attach_managed(&manager, &PORTS[..1], "vm");
    assert_eq!(state(&manager, PORTS[0]), HostState::Guest(guest("vm")));
    detach(&manager, &PORTS[1..2]);
    assert_eq!(state(&manager, PORTS[1]), HostState::Quarantine);
    let gone = [PORTS[0], PORTS[2], PORTS[3]];
    release(&manager, &gone, "vm");
    assert_eq!(state(&manager, PORTS[1]), HostState::Quarantine, "kept by hand");
    assert!(gone.iter().all(|port| state(&manager, port) == HostState::Host));
}

#[test]
fn a_guest_that_has_a_member_open_gets_more_members_and_others_get_none() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &PORTS);
    attach_managed(&manager, &PORTS[..1], "vm");
    let file = fake.open_device(at(PORTS[0])).expect("on VFIO");
    attach_managed(&manager, &PORTS[1..2], "vm");
    release(&manager, &PORTS[..2], "vm");
    let wanted = [Attachable::detached(at(PORTS[2]))];
    let refused = manager.attach(&wanted, &guest("other"), Guarding::On).expect_err("still open");
    assert!(matches!(refused, HostError::GroupOpen(_)), "{refused}");
    drop(file);
    manager.attach(&wanted, &guest("other"), Guarding::On).expect("closed");
}

#[test]
fn a_host_driver_that_fails_leaves_it_in_quarantine_to_be_tried_again() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    fake.add_driver("igb", FakeDriver { refuses: Some(Errno::EIO), ..FakeDriver::of(NIC) });
    let released = release(&manager, &[CARD], "vm");
    let [(device, error)] = &released.failed[..] else { panic!("{released:?}") };
    assert_eq!((*device, error.errno()), (at(CARD), Errno::EIO));
    assert!(error.to_string().contains("drivers/igb/bind"), "{error}");
    assert_eq!(state(&manager, CARD), HostState::Deferred);
    check(&fake, &manager);
    fake.add_driver("igb", FakeDriver::of(NIC));
    assert_eq!(manager.retry_deferred().expect("tried").returned, set(&[CARD]));
    assert_eq!(dump(&fake), before);
}

#[test]
fn what_could_not_be_reset_after_a_guest_goes_neither_to_the_host_nor_to_a_guest() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    fake.on_write(|_, what| what.ends_with("/reset").then_some(Mishap::Error(Errno::EIO)));
    let released = release(&manager, &[CARD], "vm");
    assert_eq!(released.failures[0].what, "reset", "the report has it");
    assert_eq!(state(&manager, CARD), HostState::Deferred, "the guest is rid of it all the same");
    assert!(manager.status(at(CARD)).expect("known").needs_reset);
    let again = manager.attach(&[Attachable::managed(at(CARD))], &guest("other"), Guarding::On);
    assert_eq!(again.expect_err("not reset").errno(), Errno::EIO);
    assert_eq!(manager.retry_deferred().expect("tried").failed.len(), 1);
    check(&fake, &manager);
    fake.behave();
    assert_eq!(manager.retry_deferred().expect("tried").returned, set(&[CARD]));
}

#[test]
fn a_device_without_reset_goes_to_a_guest_only_if_policy_says_so() {
    let fake = machine();
    let no_reset = pcidevs::host::fake::FakeFunction {
        reset_method: None,
        ..pcidevs::host::fake::FakeFunction::endpoint(NIC, 20)
    };
    fake.add(at("0000:05:00.0"), no_reset);
    let before = dump(&fake);
    let wanted = [Attachable::managed(at("0000:05:00.0"))];
    let manager = open(&fake);
    fake.take_written();
    let refused = manager.attach(&wanted, &guest("vm"), Guarding::On).expect_err("no reset");
    assert_eq!((refused.errno(), fake.take_written()), (Errno::EOPNOTSUPP, vec![]));
    drop(manager);
    let options = Options { reset: ResetPolicy::Allow, ..Options::default() };
    let kernel = std::sync::Arc::new(fake.clone());
    let (manager, _) = pcidevs::host::HostManager::open(kernel.clone(), kernel, options).expect("opened");
    manager.attach(&wanted, &guest("vm"), Guarding::On).expect("attached");
    assert_eq!(release(&manager, &["0000:05:00.0"], "vm").returned, set(&["0000:05:00.0"]));
    assert_eq!(dump(&fake), before);
}

#[test]
fn a_set_over_several_groups_goes_back_group_by_group() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD, OTHER], "vm");
    let file = fake.open_device(at(CARD)).expect("on VFIO");
    let released = release(&manager, &[CARD, OTHER], "vm");
    assert_eq!((released.deferred, released.returned), (set(&[CARD]), set(&[OTHER])));
    drop(file);
    check(&fake, &manager);
}
