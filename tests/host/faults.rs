//! Every write of every operation fails once, with every error; then its undo fails too.

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, Mishap};
use pcidevs::host::{Attachable, DriverType, Guarding, HostError, HostManager, HostState};

use crate::scaffold::{
    CARD, OTHER, PORTS, VF, VF_OTHER, at, attach_managed, check, detach, dump, guest, guests_network,
    machine, machine_with_virtual, open, set, states,
};

const ERRORS: [Errno; 5] = [Errno::EBUSY, Errno::EIO, Errno::EACCES, Errno::ENODEV, Errno::ENOSPC];

struct Case {
    name: &'static str,
    machine: fn() -> Fake,
    prepare: fn(&HostManager),
    act: fn(&HostManager) -> Result<(), HostError>,
}

fn wanted(texts: &[&str]) -> Vec<Attachable> {
    set(texts).into_iter().map(Attachable::managed).collect()
}

/// A virtual function that is to be somebody on the network, and another one that comes after it.
fn named() -> [Attachable; 2] {
    [Attachable::managed(at(VF)).with_network(guests_network()), Attachable::managed(at(VF_OTHER))]
}

const CASES: &[Case] = &[
    Case {
        name: "detach",
        machine,
        prepare: |_| {},
        act: |manager| manager.detach(&set(&[CARD, OTHER]), &DriverType::Default, Guarding::On),
    },
    Case {
        name: "managed attach",
        machine,
        prepare: |_| {},
        act: |manager| manager.attach(&wanted(&PORTS), &guest("vm"), Guarding::On),
    },
    Case {
        name: "attach",
        machine,
        prepare: |manager| detach(manager, &[CARD, OTHER]),
        act: |manager| manager.attach(&wanted(&[CARD, OTHER]), &guest("vm"), Guarding::On),
    },
    Case {
        name: "release",
        machine,
        prepare: |manager| attach_managed(manager, &PORTS, "vm"),
        act: |manager| {
            let released = manager.release(&set(&PORTS), &guest("vm"))?;
            released.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        },
    },
    Case {
        name: "reattach",
        machine,
        prepare: |manager| detach(manager, &PORTS),
        act: |manager| {
            let released = manager.reattach(&set(&PORTS))?;
            released.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        },
    },
    Case {
        name: "reset",
        machine,
        prepare: |manager| detach(manager, &[CARD]),
        act: |manager| manager.reset(at(CARD)),
    },
    Case {
        name: "attach with a network identity",
        machine: machine_with_virtual,
        prepare: |_| {},
        act: |manager| manager.attach(&named(), &guest("vm"), Guarding::On),
    },
    Case {
        name: "release of one with a network identity",
        machine: machine_with_virtual,
        prepare: |manager| manager.attach(&named(), &guest("vm"), Guarding::On).expect("attached"),
        act: |manager| {
            let released = manager.release(&set(&[VF]), &guest("vm"))?;
            released.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        },
    },
];

/// The machine before the operation, whose writes from this number on, so many of them, fail.
fn failing(case: &Case, from: u64, count: u64, errno: Errno) -> (Fake, HostManager, Vec<String>) {
    let fake = (case.machine)();
    let manager = open(&fake);
    (case.prepare)(&manager);
    let before = states(&manager);
    fake.take_written();
    fake.on_write(move |write, _| (from..from + count).contains(&write).then_some(Mishap::Error(errno)));
    (fake, manager, before)
}

/// Everything can be brought back to the host, and nothing is left over.
fn ends_well(fake: &Fake, manager: &HostManager, original: &[String], context: &str) {
    fake.behave();
    for device in manager.list().expect("listed") {
        let again = match device.state {
            HostState::Guest(guest) => manager.release(&[device.address], &guest).map(drop),
            HostState::Broken { .. } => manager.repair(device.address),
            _ => Ok(()),
        };
        again.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let all: Vec<_> = manager.list().expect("listed").into_iter().map(|device| device.address).collect();
    let released = manager.reattach(&all).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(released.failed.is_empty() && released.deferred.is_empty(), "{context}: {released:?}");
    assert_eq!(dump(fake), original, "{context}");
    check(fake, manager);
}

#[test]
fn a_write_that_fails_leaves_everything_as_before_or_in_quarantine() {
    let mut faults = 0;
    for case in CASES {
        let original = dump(&(case.machine)());
        for errno in ERRORS {
            for write in 1.. {
                let (fake, manager, before) = failing(case, write, 1, errno);
                let result = (case.act)(&manager);
                let struck = fake.take_written().iter().any(|line| line.contains(": Error"));
                let context = format!("{}, write {write}: {errno}", case.name);
                check(&fake, &manager);
                let now = states(&manager);
                for (now, before) in now.iter().zip(&before) {
                    assert!(!now.contains("Broken"), "{context}: one fault, and its undo works: {now}");
                    let rested = case.name.starts_with("release") && now.contains("Deferred");
                    let left = case.name == "reattach" && now.contains("Deferred");
                    assert!(result.is_ok() || now == before || rested || left, "{context}: {now}, {before}");
                }
                ends_well(&fake, &manager, &original, &context);
                if !struck {
                    result.unwrap_or_else(|error| panic!("{context}: {error}"));
                    break;
                }
                faults += 1;
            }
        }
    }
    eprintln!("{faults} faults");
}

#[test]
fn an_undo_that_fails_too_breaks_exactly_what_says_so() {
    let (mut faults, mut broken) = (0, 0);
    for case in CASES {
        let original = dump(&(case.machine)());
        for count in [2, 3, 5, 1000] {
            for write in 1.. {
                let (fake, manager, before) = failing(case, write, count, Errno::EIO);
                let result = (case.act)(&manager);
                let struck = fake.take_written().iter().any(|line| line.contains(": Error"));
                let context = format!("{}, writes {write} to {}", case.name, write + count - 1);
                check(&fake, &manager);
                for (device, before) in manager.list().expect("listed").iter().zip(&before) {
                    let now = format!("{} {:?} {:?}", device.address, device.state, device.driver);
                    let is_broken = matches!(device.state, HostState::Broken { .. });
                    // A group goes back without its broken member.
                    let goes_back = case.name.starts_with("release") || case.name == "reattach";
                    let waits = goes_back && matches!(device.state, HostState::Deferred | HostState::Host);
                    broken += u32::from(is_broken);
                    assert!(
                        result.is_ok() || is_broken || waits || now == *before,
                        "{context}: {now}, {before}"
                    );
                    if is_broken {
                        let original = manager.record(device.address).expect("kept").original;
                        assert!(format!("{original:?}").contains("driver: Some"), "{context}: {original:?}");
                    }
                }
                ends_well(&fake, &manager, &original, &context);
                if !struck {
                    break;
                }
                faults += 1;
            }
        }
    }
    assert!(broken > 0, "else nothing was tried");
    eprintln!("{faults} faults, {broken} devices broken and repaired");
}

#[test]
fn what_is_broken_survives_a_restart_with_its_reason_and_its_original_driver() {
    let original = dump(&machine());
    for write in 3..8 {
        let (fake, manager, _) = failing(&CASES[0], write, 1000, Errno::EIO);
        (CASES[0].act)(&manager).expect_err("nothing can be written");
        fake.behave();
        // The journal could not be written: whatever comes next writes it.
        detach(&manager, &[PORTS[0]]);
        let before = states(&manager);
        drop(manager);
        fake.restart();
        let manager = open(&fake);
        assert_eq!(states(&manager), before);
        ends_well(&fake, &manager, &original, &format!("write {write}"));
    }
}
