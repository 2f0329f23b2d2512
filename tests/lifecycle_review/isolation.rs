//! Nobody's requests reach anybody else's memory, whoever shares a requester ID or a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::address::Bus;
use pcidevs::device::{BusRange, PortType};
use pcidevs::lifecycle::{DeviceInfo, TransitionError};
use pcidevs::platform::{ConfigBytes, Entry, Fault, GroupId, Hook};
use pcidevs::{Owner, Sbdf};

use crate::machine::{Data, EIO, GUEST, Machine, OTHER, add, at, empty, machine, nic, owner, set, sim};

/// Two endpoints behind a PCIe-to-PCI bridge, which sends their requests as (secondary bus, 00.0).
fn behind_a_bridge(devices: &[&str]) -> (Machine, Sbdf) {
    let machine = empty();
    let buses = BusRange { primary: Bus::new(0), secondary: Bus::new(5), subordinate: Bus::new(5) };
    let bridge = ConfigBytes::bridge(0x8086, 0x244e, buses).express_port(PortType::PcieToPci);
    sim(&machine).plug(at("00:1e.0"), bridge);
    add(&machine, "00:1e.0");
    for device in devices {
        sim(&machine).plug(at(device), nic());
        add(&machine, device);
    }
    (machine, at("05:00.0"))
}

#[test]
fn removing_one_device_leaves_the_shared_requester_id_to_the_others() {
    let (machine, alias) = behind_a_bridge(&["05:01.0", "05:02.0"]);
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Host));
    machine.remove_device(at("05:01.0")).expect("unused");
    assert_eq!(sim(&machine).entry(at("05:01.0")), Entry::Absent);
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Host), "05:02.0 needs it");
    machine.remove_device(at("05:02.0")).expect("unused");
    assert_eq!(sim(&machine).entry(alias), Entry::Absent, "nobody needs it");
}

#[test]
fn a_removal_that_fails_leaves_the_shared_requester_id_as_it_was() {
    let (machine, alias) = behind_a_bridge(&["05:01.0"]);
    sim(&machine).fail_next(Hook::IommuFlush, Fault::Error(EIO));
    machine.remove_device(at("05:01.0")).expect_err("the flush fails");
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Host));
    machine.remove_device(at("05:01.0")).expect("unused");
    assert_eq!(sim(&machine).entry(alias), Entry::Absent);
}

#[test]
fn a_device_that_is_gone_leaves_the_shared_requester_id_to_the_others() {
    let (machine, alias) = behind_a_bridge(&["05:01.0", "05:02.0"]);
    machine.report_gone(at("05:01.0")).expect("known");
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Host), "05:02.0 needs it");
    machine.report_gone(at("05:02.0")).expect("known");
    assert_eq!(sim(&machine).entry(alias), Entry::Absent);
}

#[test]
fn a_newcomer_does_not_take_a_guests_requester_id_to_the_host() {
    let (machine, alias) = behind_a_bridge(&["05:01.0"]);
    machine.assign(&set(&["05:01.0"]), GUEST).expect("alone behind its bridge");
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Guest(GUEST)));
    sim(&machine).plug(at("05:02.0"), nic());
    let refused = machine.add(at("05:02.0"), DeviceInfo::default(), Data::default()).expect_err("shared");
    assert!(matches!(refused.reason, TransitionError::Inseparable { .. }), "{:?}", refused.reason);
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Guest(GUEST)));
    assert_eq!(owner(&machine, "05:02.0"), None);
    // And nothing of the refused one is left in the way.
    machine.deassign(&set(&["05:01.0"]), Owner::Guest(GUEST)).expect("deassigned");
    add(&machine, "05:02.0");
}

#[test]
fn adopting_one_device_does_not_take_a_guests_requester_id_to_the_host() {
    let (machine, alias) = behind_a_bridge(&["05:01.0"]);
    sim(&machine).plug(at("05:02.0"), nic());
    sim(&machine).plug(at("05:00.0"), ConfigBytes::endpoint(0, 0));
    machine.scan(at("05:02.0").segment(), |_| Data::default()).expect("scanned");
    assert_eq!(owner(&machine, "05:02.0"), Some(Owner::Unowned));
    machine.assign(&set(&["05:01.0"]), GUEST).expect_err("05:02.0 shares its requester ID");
    machine.set_host().expect("adopted");
    machine.assign(&set(&["05:01.0", "05:02.0"]), GUEST).expect("both");
    assert_eq!(sim(&machine).entry(alias), Entry::Attached(Owner::Guest(GUEST)));
}

#[test]
fn devices_that_share_a_quirk_are_inseparable_whoever_names_it() {
    // 03:00.1 sends requests as 03:00.0 as well, which is a device of its own.
    let machine = empty();
    sim(&machine).plug(at("03:00.0"), nic());
    sim(&machine).plug(at("03:00.1"), nic());
    sim(&machine).add_alias(at("03:00.1"), at("03:00.0"));
    add(&machine, "03:00.0");
    add(&machine, "03:00.1");
    for alone in ["03:00.0", "03:00.1"] {
        let refused = machine.assign(&set(&[alone]), GUEST).expect_err("shared");
        assert!(matches!(refused, TransitionError::Inseparable { .. }), "{refused:?}");
    }
    machine.assign(&set(&["03:00.0", "03:00.1"]), GUEST).expect("together");
    machine.release_domain(GUEST).expect("together as well");
}

#[test]
fn a_guest_that_was_never_reached_is_neither_stopped_nor_blamed() {
    let machine = machine(&["00:03.0"]);
    sim(&machine).fail_next(Hook::Reset, Fault::Error(EIO));
    // The first flush is that of blocking; the second that of giving the entry back.
    sim(&machine).fail_every(Hook::IommuFlush, Fault::Error(EIO));
    let calls = Arc::new(AtomicBool::new(false));
    let seen = calls.clone();
    machine.platform().before_hooks(move |hook, _| {
        seen.fetch_or(hook == Some(Hook::StopGuest), Ordering::Relaxed);
    });
    sim(&machine).clear_faults();
    sim(&machine).fail_next(Hook::Reset, Fault::Error(EIO));
    let machine = Arc::new(machine);
    let inner = Arc::downgrade(&machine);
    let first = AtomicBool::new(true);
    machine.platform().before_hooks(move |hook, _| {
        if hook == Some(Hook::Reset)
            && first.swap(false, Ordering::Relaxed)
            && let Some(machine) = inner.upgrade()
        {
            sim(&machine).fail_every(Hook::IommuFlush, Fault::Error(EIO));
        }
    });
    machine.assign(&set(&["00:03.0"]), GUEST).expect_err("the reset fails");
    assert_eq!(sim(&machine).stopped(), [], "its memory was never reached");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Host));
    assert!(machine.lock(at("00:03.0")).expect("known").broken().is_some());
}

#[test]
fn a_group_is_not_given_back_while_a_member_has_gone_to_a_guest() {
    let machine = empty();
    for device in ["04:00.0", "04:00.1"] {
        sim(&machine).plug(at(device), nic());
        sim(&machine).set_group(at(device), GroupId(7));
        add(&machine, device);
    }
    let pair = set(&["04:00.0", "04:00.1"]);
    machine.assign(&pair, GUEST).expect("a whole group");
    sim(&machine).set_group_in_use(GroupId(7), true);
    machine.deassign(&pair, Owner::Guest(GUEST)).expect("deassigned");
    assert_eq!(owner(&machine, "04:00.0"), Some(Owner::Quarantine), "the group is open");
    // One of them is detached by hand: it stays in quarantine when the group goes back.
    machine.quarantine(&set(&["04:00.1"])).expect("stays");
    sim(&machine).set_group_in_use(GroupId(7), false);

    // Between the look at the group and the claims, the other one goes to a guest.
    let _watching = machine.subscribe(Arc::new(|_| ())).expect("memory");
    let machine = Arc::new(machine);
    let (inner, asked, once) = (Arc::downgrade(&machine), AtomicBool::new(false), AtomicBool::new(true));
    machine.platform().before_hooks(move |hook, _| {
        if hook == Some(Hook::GroupInUse) {
            asked.store(true, Ordering::Relaxed);
        }
        if hook.is_none()
            && asked.load(Ordering::Relaxed)
            && once.swap(false, Ordering::Relaxed)
            && let Some(machine) = inner.upgrade()
        {
            machine.assign(&set(&["04:00.1"]), OTHER).expect("a viable group");
        }
    });
    machine.run_deferred();
    assert_eq!(owner(&machine, "04:00.1"), Some(Owner::Guest(OTHER)));
    assert_eq!(owner(&machine, "04:00.0"), Some(Owner::Quarantine), "its group is in a guest");
    assert!(machine.lock(at("04:00.0")).expect("known").is_deferred());
}
