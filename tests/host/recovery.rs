//! What happened while no manager looked.

use pcidevs::host::fake::{FakeFunction, Mishap};
use pcidevs::host::{HostState, Recovered, Tenure};

use crate::scaffold::{
    CARD, DISK, OTHER, PORTS, at, attach_managed, check, detach, dump, guest, machine, open, release, reopen,
    set, state,
};

#[test]
fn a_device_that_vanished_is_reported_and_forgotten() {
    let fake = machine();
    detach(&open(&fake), &[CARD]);
    fake.unplug(at(CARD));
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Vanished)]);
    assert!(manager.record(at(CARD)).is_none());
}

#[test]
fn another_device_at_the_address_is_not_touched() {
    let fake = machine();
    detach(&open(&fake), &[CARD]);
    fake.unplug(at(CARD));
    fake.add(at(CARD), FakeFunction::endpoint(DISK, 10));
    fake.take_written();
    let (_, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Replaced)]);
    assert!(fake.take_written().iter().all(|line| line.contains("journal")));
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("nvme"));
}

#[test]
fn what_somebody_rebound_behind_our_back_is_reported_and_left_alone() {
    let fake = machine();
    detach(&open(&fake), &[CARD]);
    let place = format!("bus/pci/devices/{CARD}/driver_override");
    for (path, text) in
        [("bus/pci/drivers/vfio-pci/unbind", CARD), (place.as_str(), "\n"), ("bus/pci/drivers_probe", CARD)]
    {
        fake.write_as_somebody(path, text).expect("written");
    }
    let (manager, recovery) = reopen(&fake);
    let [(_, Recovered::Broken(reason))] = &recovery.devices[..] else { panic!("{recovery:?}") };
    assert!(reason.contains("igb behind our back"), "{reason}");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb"), "not rebound by guess");
    manager.repair(at(CARD)).expect("asked for");
    assert_eq!(state(&manager, CARD), HostState::Quarantine);
    check(&fake, &manager);
}

#[test]
fn what_somebody_took_from_its_stub_is_kept_and_put_on_it_again() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    detach(&manager, &[OTHER]);
    attach_managed(&manager, &[CARD], "vm");
    drop(manager);
    for device in [CARD, OTHER] {
        fake.write_as_somebody("bus/pci/drivers/vfio-pci/unbind", device).expect("unbound");
    }
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Unbound), (at(OTHER), Recovered::Unbound)]);
    assert_eq!(state(&manager, CARD), HostState::Guest(guest("vm")));
    assert_eq!(release(&manager, &[CARD], "vm").returned, set(&[CARD]));
    attach_managed(&manager, &[OTHER], "vm");
    check(&fake, &manager);
    release(&manager, &[OTHER], "vm");
    manager.reattach(&set(&[OTHER])).expect("reattached");
    assert_eq!(dump(&fake), before);
}

#[test]
fn a_guest_that_ran_on_keeps_its_devices() {
    let fake = machine();
    attach_managed(&open(&fake), &[CARD], "vm");
    let file = fake.open_device(at(CARD)).expect("on VFIO");
    let command = fake.command(at(CARD));
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Kept)]);
    assert_eq!((fake.command(at(CARD)), fake.resets(at(CARD))), (command, 1), "it notices nothing");
    assert_eq!(state(&manager, CARD), HostState::Guest(guest("vm")));
    assert_eq!(release(&manager, &[CARD], "vm").deferred, set(&[CARD]));
    drop(file);
}

#[test]
fn what_waits_for_its_group_waits_on() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    attach_managed(&manager, &PORTS, "vm");
    release(&manager, &PORTS[..3], "vm");
    drop(manager);
    let (manager, _) = reopen(&fake);
    assert_eq!(state(&manager, PORTS[0]), HostState::Deferred);
    assert_eq!(manager.retry_deferred().expect("tried").deferred, set(&PORTS[..3]));
    release(&manager, &PORTS[3..], "vm");
    assert_eq!(dump(&fake), before);
}

#[test]
fn an_attach_that_was_cut_off_is_not_undone_under_somebody_who_has_it_open() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    // The process ends where "done" would be written.
    let mut journals = 0;
    fake.on_write(move |_, what| {
        journals += u32::from(what.starts_with("write journal"));
        (journals == 2).then_some(Mishap::Crash)
    });
    let wanted = [pcidevs::host::Attachable::managed(at(CARD))];
    manager.attach(&wanted, &guest("vm"), pcidevs::host::Guarding::On).expect_err("killed");
    drop(manager);
    fake.behave();
    let file = fake.open_device(at(CARD)).expect("on VFIO");
    fake.restart();
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Deferred)]);
    assert_eq!(manager.record(at(CARD)).expect("kept").tenure, Tenure::Quarantine);
    drop(file);
    assert_eq!(manager.retry_deferred().expect("tried").returned, set(&[CARD]));
    assert_eq!(dump(&fake), before);
}

#[test]
fn a_group_with_records_of_all_kinds_is_as_it_was() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[PORTS[0], OTHER]);
    attach_managed(&manager, &[PORTS[0], PORTS[1], PORTS[2], PORTS[3]], "vm");
    release(&manager, &[PORTS[0], PORTS[1]], "vm");
    let before = crate::scaffold::states(&manager);
    drop(manager);
    let (manager, recovery) = reopen(&fake);
    assert!(recovery.devices.iter().all(|(_, what)| *what == Recovered::Kept), "{recovery:?}");
    assert_eq!(crate::scaffold::states(&manager), before);
    release(&manager, &PORTS[2..], "vm");
    assert_eq!(state(&manager, PORTS[0]), HostState::Quarantine);
    assert_eq!(state(&manager, PORTS[1]), HostState::Host);
    check(&fake, &manager);
}
