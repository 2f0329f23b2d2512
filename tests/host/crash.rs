//! `kill -9` at every write of every operation, and at every write of the recovery after it.

use std::sync::Arc;

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, Mishap};
use pcidevs::host::{Attachable, DriverType, Guarding, HostManager, HostState, Options};

use crate::scaffold::{
    CARD, OTHER, PORTS, VF, at, attach_managed, check, detach, dump, guest, guests_network, machine,
    machine_with_virtual, reopen, set, states,
};

/// One operation that is cut off.
struct Case {
    name: &'static str,
    machine: fn() -> Fake,
    /// What was there before.
    prepare: fn(&Fake, &HostManager),
    /// What is cut off.
    act: fn(&HostManager),
}

fn wanted(texts: &[&str]) -> Vec<Attachable> {
    set(texts).into_iter().map(Attachable::managed).collect()
}

/// A virtual function that is to be somebody on the network.
fn named() -> [Attachable; 1] {
    [Attachable::managed(at(VF)).with_network(guests_network())]
}

/// Whether it succeeds shows in what it leaves; a process that is killed reports nothing.
fn ignore<T, E>(_: Result<T, E>) {}

const CASES: &[Case] = &[
    Case {
        name: "detach",
        machine,
        prepare: |_, _| {},
        act: |manager| ignore(manager.detach(&set(&[CARD, OTHER]), &DriverType::Default, Guarding::On)),
    },
    Case {
        name: "managed attach",
        machine,
        prepare: |_, _| {},
        act: |manager| ignore(manager.attach(&wanted(&PORTS), &guest("vm"), Guarding::On)),
    },
    Case {
        name: "attach of a detached and a managed one",
        machine,
        prepare: |_, manager| detach(manager, &[OTHER]),
        act: |manager| ignore(manager.attach(&wanted(&[CARD, OTHER]), &guest("vm"), Guarding::On)),
    },
    Case {
        name: "release of managed ones",
        machine,
        prepare: |_, manager| attach_managed(manager, &PORTS, "vm"),
        act: |manager| ignore(manager.release(&set(&PORTS), &guest("vm"))),
    },
    Case {
        name: "release of one of a group",
        machine,
        prepare: |_, manager| attach_managed(manager, &PORTS, "vm"),
        act: |manager| ignore(manager.release(&set(&PORTS[..1]), &guest("vm"))),
    },
    Case {
        name: "reattach",
        machine,
        prepare: |_, manager| detach(manager, &[CARD, PORTS[0], PORTS[1]]),
        act: |manager| ignore(manager.reattach(&set(&[CARD, PORTS[0], PORTS[1]]))),
    },
    Case {
        name: "adopt",
        machine,
        prepare: |fake, _| {
            let place = format!("bus/pci/devices/{CARD}/driver_override");
            fake.write_as_somebody(&place, "vfio-pci").expect("written");
            fake.write_as_somebody("bus/pci/drivers/igb/unbind", CARD).expect("unbound");
            fake.write_as_somebody("bus/pci/drivers_probe", CARD).expect("probed");
        },
        act: |manager| ignore(manager.adopt(&set(&[CARD]))),
    },
    Case {
        name: "repair",
        machine,
        prepare: |fake, manager| {
            // Its probe and its undo fail.
            let binds = |what: &str| what.contains("drivers_probe") || what.contains("/bind");
            fake.on_write(move |_, what| binds(what).then_some(Mishap::Error(Errno::EIO)));
            manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On).expect_err("nothing binds");
            fake.behave();
            assert!(matches!(manager.status(at(CARD)).expect("known").state, HostState::Broken { .. }));
        },
        act: |manager| ignore(manager.repair(at(CARD))),
    },
    Case {
        name: "reset",
        machine,
        prepare: |_, manager| detach(manager, &[CARD]),
        act: |manager| ignore(manager.reset(at(CARD))),
    },
    Case {
        name: "managed attach with a network identity",
        machine: machine_with_virtual,
        prepare: |_, _| {},
        act: |manager| ignore(manager.attach(&named(), &guest("vm"), Guarding::On)),
    },
    Case {
        name: "attach of a detached one with a network identity",
        machine: machine_with_virtual,
        prepare: |_, manager| detach(manager, &[VF]),
        act: |manager| ignore(manager.attach(&named(), &guest("vm"), Guarding::On)),
    },
    Case {
        name: "release of one with a network identity",
        machine: machine_with_virtual,
        prepare: |_, manager| manager.attach(&named(), &guest("vm"), Guarding::On).expect("attached"),
        act: |manager| ignore(manager.release(&set(&[VF]), &guest("vm"))),
    },
];

fn crash_at(fake: &Fake, write: u64) {
    fake.on_write(move |number, _| (number == write).then_some(Mishap::Crash));
}

/// A process that is killed at a write, if it gets that far. Whether it did.
fn live_until(fake: &Fake, write: u64, life: impl FnOnce(&Fake)) -> bool {
    crash_at(fake, write);
    life(fake);
    let was_killed = fake.is_dead();
    fake.behave();
    fake.restart();
    was_killed
}

/// Opens a manager and nothing else; killed on the way it may not get that far.
fn recover(fake: &Fake) {
    ignore(HostManager::open(Arc::new(fake.clone()), Arc::new(fake.clone()), Options::default()));
}

/// The machine before the operation, and what there is to see of it.
fn prepared(case: &Case) -> (Fake, Vec<String>, Vec<String>) {
    let fake = (case.machine)();
    let (manager, _) = reopen(&fake);
    (case.prepare)(&fake, &manager);
    let before = (dump(&fake), states(&manager));
    drop(manager);
    (fake, before.0, before.1)
}

/// Every state that is safe to find: as before, as after, or, for what goes through quarantine, in it.
fn is_safe(now: &[String], before: &[String], after: &[String]) -> bool {
    let is_between = |line: &String| line.contains("Quarantine") || line.contains("Deferred");
    let lines = now.iter().zip(before.iter().zip(after));
    // What was broken may stay so, on whatever driver.
    let is_broken = |line: &String| line.contains("Broken");
    lines.into_iter().all(|(now, (before, after))| {
        now == before || now == after || is_between(now) || is_broken(now) && is_broken(before)
    })
}

/// Whatever there is now, everything can be brought back to the host, and nothing is left over.
fn ends_well(fake: &Fake, manager: &HostManager, original: &[String], context: &str) {
    for device in manager.list().expect("listed") {
        let again = match device.state {
            HostState::Guest(guest) => manager.release(&[device.address], &guest).map(drop),
            HostState::Foreign => manager.adopt(&[device.address]),
            HostState::Broken { .. } => manager.repair(device.address),
            _ => Ok(()),
        };
        again.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let left: Vec<_> = manager.list().expect("listed").into_iter().map(|device| device.address).collect();
    let left: Vec<_> = left.into_iter().filter(|device| manager.record(*device).is_some()).collect();
    if !left.is_empty() {
        let released = manager.reattach(&left).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(released.failed.is_empty() && released.deferred.is_empty(), "{context}: {released:?}");
    }
    assert_eq!(dump(fake), original, "{context}");
    check(fake, manager);
}

/// What the machine looks like when nothing is cut off.
fn after(case: &Case) -> Vec<String> {
    let (fake, ..) = prepared(case);
    let (manager, _) = reopen(&fake);
    (case.act)(&manager);
    states(&manager)
}

#[test]
fn a_kill_at_any_write_ends_in_a_safe_state() {
    let mut kills = 0;
    for case in CASES {
        let original = dump(&(case.machine)());
        let after = after(case);
        for write in 1.. {
            let (fake, _, before) = prepared(case);
            let (manager, _) = reopen(&fake);
            let was_killed = live_until(&fake, write, |_| (case.act)(&manager));
            drop(manager);
            let context = format!("{}, killed at write {write}", case.name);
            let (manager, recovery) = reopen(&fake);
            assert_eq!((recovery.damage, recovery.unsaved), (None, None), "{context}");
            check(&fake, &manager);
            let now = states(&manager);
            assert!(is_safe(&now, &before, &after), "{context}: {now:#?}");
            ends_well(&fake, &manager, &original, &context);
            if !was_killed {
                assert_eq!(now, after, "{context}");
                break;
            }
            kills += 1;
        }
    }
    eprintln!("{kills} kills");
}

#[test]
fn a_kill_in_the_recovery_after_a_kill_ends_in_a_safe_state() {
    let mut kills = 0;
    for case in CASES {
        let original = dump(&(case.machine)());
        let after = after(case);
        for write in 1.. {
            let mut is_first = true;
            let mut was_killed = true;
            for second in 1.. {
                let (fake, _, before) = prepared(case);
                let (manager, _) = reopen(&fake);
                was_killed = live_until(&fake, write, |_| (case.act)(&manager));
                drop(manager);
                let again = live_until(&fake, second, recover);
                let context = format!("{}, killed at write {write}, recovery at {second}", case.name);
                let (manager, recovery) = reopen(&fake);
                assert_eq!((recovery.damage, recovery.unsaved), (None, None), "{context}");
                check(&fake, &manager);
                let now = states(&manager);
                assert!(is_safe(&now, &before, &after), "{context}: {now:#?}");
                if is_first || !again {
                    ends_well(&fake, &manager, &original, &context);
                }
                is_first = false;
                if !again {
                    break;
                }
                kills += 1;
            }
            if !was_killed {
                break;
            }
        }
    }
    eprintln!("{kills} kills in recoveries");
}
