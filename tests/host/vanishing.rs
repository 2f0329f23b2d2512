//! Devices that are pulled out, or replaced, between any two steps; virtual functions that are switched off.

use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction};
use pcidevs::host::{Attachable, DriverType, Guarding, HostManager, HostState};

use crate::scaffold::{
    CARD, DISK, NIC, OTHER, PORTS, at, attach_managed, check, detach, dump, guest, machine, open, reopen,
    set, state,
};

struct Case {
    name: &'static str,
    prepare: fn(&HostManager),
    act: fn(&HostManager),
    /// Who vanishes.
    victim: &'static str,
}

/// That it fails is likely; what it leaves is what counts.
fn ignore<T, E>(_: Result<T, E>) {}

const CASES: &[Case] = &[
    Case {
        name: "detach",
        prepare: |_| {},
        act: |manager| ignore(manager.detach(&set(&[CARD, OTHER]), &DriverType::Default, Guarding::On)),
        victim: CARD,
    },
    Case {
        name: "attach",
        prepare: |_| {},
        act: |manager| {
            let wanted: Vec<_> = set(&PORTS).into_iter().map(Attachable::managed).collect();
            ignore(manager.attach(&wanted, &guest("vm"), Guarding::On));
        },
        victim: PORTS[1],
    },
    Case {
        name: "release",
        prepare: |manager| attach_managed(manager, &PORTS, "vm"),
        act: |manager| ignore(manager.release(&set(&PORTS), &guest("vm"))),
        victim: PORTS[2],
    },
    Case {
        name: "reattach",
        prepare: |manager| detach(manager, &PORTS),
        act: |manager| ignore(manager.reattach(&set(&PORTS))),
        victim: PORTS[0],
    },
];

/// The device is away from before this write on, if there are so many. Whether there were.
fn pull_at(fake: &Fake, write: u64, victim: &'static str, replace: bool) {
    let puller = fake.clone();
    fake.on_write(move |number, _| {
        if number == write {
            puller.unplug(at(victim));
            if replace {
                let group = if victim == CARD { 10 } else { 12 };
                puller.add(at(victim), FakeFunction::endpoint(DISK, group));
            }
        }
        None
    });
}

#[test]
fn a_device_that_vanishes_between_two_steps_is_reported_and_the_others_are_in_order() {
    let original = dump(&machine());
    let mut pulled = 0;
    for case in CASES {
        for write in 1.. {
            let fake = machine();
            let manager = open(&fake);
            (case.prepare)(&manager);
            pull_at(&fake, write, case.victim, false);
            (case.act)(&manager);
            fake.behave();
            let context = format!("{}, pulled at write {write}", case.name);
            let was_pulled = fake.command(at(case.victim)).is_none();
            assert_eq!(manager.rescan().expect("looked").is_empty(), !was_pulled, "{context}");
            check(&fake, &manager);
            assert!(manager.record(at(case.victim)).is_none() || !was_pulled, "{context}");
            // It comes back, and belongs to the host; so does all else in the end.
            if was_pulled {
                let group = if case.victim == CARD { 10 } else { 12 };
                fake.add(at(case.victim), FakeFunction::endpoint(NIC, group));
            }
            bring_back(&manager, &context);
            assert_eq!(dump(&fake), original, "{context}");
            if !was_pulled {
                break;
            }
            pulled += 1;
        }
    }
    eprintln!("{pulled} pulled");
}

fn bring_back(manager: &HostManager, context: &str) {
    for device in manager.list().expect("listed") {
        match device.state {
            HostState::Guest(guest) => drop(manager.release(&[device.address], &guest).expect(context)),
            HostState::Broken { .. } => manager.repair(device.address).expect(context),
            _ => {}
        }
    }
    let ours: Vec<_> = manager.list().expect("listed").into_iter().map(|device| device.address).collect();
    let ours: Vec<_> = ours.into_iter().filter(|device| manager.record(*device).is_some()).collect();
    if !ours.is_empty() {
        let released = manager.reattach(&ours).expect(context);
        assert!(released.failed.is_empty() && released.deferred.is_empty(), "{context}: {released:?}");
    }
}

#[test]
fn a_device_that_is_replaced_between_two_steps_panics_nobody_and_is_nobodys_in_the_end() {
    for case in CASES {
        for write in 1..40 {
            let fake = machine();
            let manager = open(&fake);
            (case.prepare)(&manager);
            pull_at(&fake, write, case.victim, true);
            (case.act)(&manager);
            fake.behave();
            let context = format!("{}, replaced at write {write}", case.name);
            drop(manager);
            let (manager, _) = reopen(&fake);
            // What the journal knew was another device: it is not this one's record.
            if let Some(record) = manager.record(at(case.victim)) {
                let is = pcidevs::host::fake::FakeFunction::endpoint(DISK, 0).id;
                assert!((record.identity.vendor, record.identity.device) == NIC || is == DISK, "{context}");
                assert_eq!(fake.driver(at(case.victim)).as_deref(), Some("vfio-pci"), "{context}");
            }
            manager.list().expect("listed");
        }
    }
}

#[test]
fn virtual_functions_that_are_switched_off_under_a_guest_are_gone() {
    let fake = machine();
    fake.add_driver("igb", FakeDriver { makes_vfs: true, ..FakeDriver::of(NIC) });
    fake.add(at("0000:05:00.0"), FakeFunction { total_vfs: 4, ..FakeFunction::endpoint(NIC, 20) });
    fake.write_as_somebody("bus/pci/devices/0000:05:00.0/sriov_numvfs", "2").expect("made");
    let manager = open(&fake);
    let vfs = ["0000:05:10.0", "0000:05:10.1"];
    attach_managed(&manager, &vfs, "vm");
    assert_eq!(manager.uses(), 1 + 2 + 2, "the bridge, twice the physical function, and each by its guest");
    fake.write_as_somebody("bus/pci/devices/0000:05:00.0/sriov_numvfs", "0").expect("gone");
    let refused = manager.release(&set(&vfs[..1]), &guest("vm")).expect_err("gone");
    assert!(refused.to_string().contains("there is no device 0000:05:10.0"), "{refused}");
    assert_eq!(manager.rescan().expect("looked"), set(&vfs[1..]));
    assert_eq!(manager.uses(), 1);
    assert!(vfs.iter().all(|vf| manager.record(at(vf)).is_none()));
    assert_eq!(state(&manager, "0000:05:00.0"), HostState::Host);
}
