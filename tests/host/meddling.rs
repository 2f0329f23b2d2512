//! Somebody else rebinds devices behind our back: driverctl, udev, an administrator with a shell.

use pcidevs::host::fake::Fake;
use pcidevs::host::{DriverType, Guarding, HostManager, HostState};

use crate::scaffold::{CARD, PORTS, at, attach_managed, detach, dump, guest, machine, open, set, state};

/// What somebody does before one of our writes.
struct Deed {
    name: &'static str,
    does: fn(&Fake),
}

fn file(name: &str) -> String {
    format!("bus/pci/devices/{CARD}/{name}")
}

/// What a shell that gets an error does: nothing.
fn ignore<T, E>(_: Result<T, E>) {}

const DEEDS: &[Deed] = &[
    Deed {
        name: "binds the host driver",
        does: |fake| {
            ignore(fake.write_as_somebody(&file("driver_override"), "igb\n"));
            ignore(fake.write_as_somebody("bus/pci/drivers_probe", CARD));
        },
    },
    Deed {
        name: "clears the override",
        does: |fake| ignore(fake.write_as_somebody(&file("driver_override"), "\n")),
    },
    Deed {
        name: "unbinds the host driver",
        does: |fake| ignore(fake.write_as_somebody("bus/pci/drivers/igb/unbind", CARD)),
    },
    Deed {
        name: "unbinds the stub",
        does: |fake| ignore(fake.write_as_somebody("bus/pci/drivers/vfio-pci/unbind", CARD)),
    },
    Deed { name: "probes", does: |fake| ignore(fake.write_as_somebody("bus/pci/drivers_probe", CARD)) },
];

fn meddle_at(fake: &Fake, write: u64, deed: &'static Deed) {
    let theirs = fake.clone();
    fake.on_write(move |number, _| {
        if number == write {
            (deed.does)(&theirs);
        }
        None
    });
}

/// Whether it says that it succeeded, and whether that is so.
fn is_honest(fake: &Fake, succeeded: bool, driver: &str) -> bool {
    !succeeded || fake.driver(at(CARD)).as_deref() == Some(driver)
}

fn bring_back(manager: &HostManager) {
    match state(manager, CARD) {
        HostState::Guest(guest) => ignore(manager.release(&set(&[CARD]), &guest)),
        HostState::Broken { .. } => manager.repair(at(CARD)).expect("repaired"),
        _ => {}
    }
    if manager.record(at(CARD)).is_some() {
        let released = manager.reattach(&set(&[CARD])).expect("reattached");
        assert!(released.failed.is_empty(), "{released:?}");
    }
}

#[test]
fn success_is_never_claimed_for_a_link_that_somebody_else_has_changed_before_the_last_look() {
    for deed in DEEDS {
        // The last two writes are the journal's: what somebody does after the last look, nobody can see.
        for write in 1..=5 {
            let fake = machine();
            let original = dump(&fake);
            let manager = open(&fake);
            meddle_at(&fake, write, deed);
            let detached = manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On).is_ok();
            fake.behave();
            let context = format!("somebody {} before write {write} of a detach", deed.name);
            assert!(is_honest(&fake, detached, "vfio-pci"), "{context}");
            if !detached {
                let is_known = state(&manager, CARD);
                assert!(
                    matches!(is_known, HostState::Host | HostState::Broken { .. }),
                    "{context}: {is_known:?}"
                );
            }
            bring_back(&manager);
            // Whose override it is at the end is somebody's; the driver is the one it had.
            let drivers = |lines: &[String]| {
                lines.iter().filter(|line| !line.contains(CARD)).cloned().collect::<Vec<_>>()
            };
            assert_eq!(drivers(&dump(&fake)), drivers(&original), "{context}");
        }
    }
}

#[test]
fn a_reattach_is_honest_too() {
    for deed in DEEDS {
        for write in 1..=7 {
            let fake = machine();
            let manager = open(&fake);
            detach(&manager, &[CARD]);
            meddle_at(&fake, write, deed);
            let released = manager.reattach(&set(&[CARD])).expect("tried");
            let is_last_look_over = fake.take_written().len() >= 7 && write >= 6;
            fake.behave();
            let returned = released.returned == set(&[CARD]);
            let context = format!("somebody {} before write {write} of a reattach", deed.name);
            assert!(is_last_look_over || is_honest(&fake, returned, "igb"), "{context}: {released:?}");
            assert_eq!(returned, manager.record(at(CARD)).is_none(), "{context}");
            bring_back(&manager);
        }
    }
}

#[test]
fn a_stale_override_on_a_sibling_is_nobodys_obstacle() {
    let fake = machine();
    fake.write_as_somebody(&format!("bus/pci/devices/{}/driver_override", PORTS[1]), "vfio-pci")
        .expect("written");
    let manager = open(&fake);
    attach_managed(&manager, &PORTS, "vm");
    let released = manager.release(&set(&PORTS), &guest("vm")).expect("released");
    assert_eq!(released.returned, set(&PORTS));
    assert_eq!(fake.driver(at(PORTS[1])).as_deref(), Some("igb"));
    assert_eq!(fake.driver_override(at(PORTS[1])).as_deref(), Some("vfio-pci"), "as it was found");
}

#[test]
fn a_detached_device_that_somebody_took_to_the_host_is_not_given_to_a_guest_silently() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    fake.write_as_somebody("bus/pci/drivers/vfio-pci/unbind", CARD).expect("unbound");
    fake.write_as_somebody(&file("driver_override"), "\n").expect("cleared");
    fake.write_as_somebody("bus/pci/drivers_probe", CARD).expect("probed");
    let wanted = [pcidevs::host::Attachable::detached(at(CARD))];
    let refused = manager.attach(&wanted, &guest("vm"), Guarding::On).expect_err("somebody uses it");
    assert!(refused.to_string().contains("igb"), "{refused}");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb"), "not rebound by guess");
    // Asking for it by name puts it in order again.
    assert_eq!(manager.reattach(&set(&[CARD])).expect("reattached").returned, set(&[CARD]));
}
