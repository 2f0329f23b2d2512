//! scan and `set_host`: devices found before there is a host, and their adoption.

use pcidevs::address::Segment;
use pcidevs::lifecycle::{Added, DeviceInfo, TransitionError, Visibility};
use pcidevs::platform::{Entry, Hook};
use pcidevs::{Errno, Owner};

use crate::scaffold::{
    Machine, OUTAGE, at, check, dump, empty, entry, errno, fail, failure, listed, nic, owner, pci_bridge,
    set, while_it_hangs,
};

const ZERO: Segment = Segment::new(0);

/// A machine with functions plugged, of which nobody was told.
fn plugged(addresses: &[&str]) -> Machine {
    let machine = empty();
    for address in addresses {
        machine.platform().plug(at(address), nic().multifunction());
    }
    machine
}

#[test]
fn scan_finds_every_function_as_unowned() {
    let machine = plugged(&["00:03.0", "00:03.7", "ff:1f.0", "0001:00:00.0"]);
    assert_eq!(machine.scan(ZERO, |found| u32::from(found.function())), Ok(3));
    assert_eq!(listed(&machine, Owner::Unowned), ["0000:00:03.0", "0000:00:03.7", "0000:ff:1f.0"]);
    assert_eq!(**machine.lock(at("00:03.7")).expect("known"), 7);
    assert_eq!(entry(&machine, "00:03.0"), Entry::Absent);
    check(&machine);
    assert_eq!(machine.scan(ZERO, |_| 0), Ok(0), "scanning again finds nothing new");
    assert_eq!(machine.scan(Segment::new(1), |_| 0), Ok(1));
    assert_eq!(machine.scan(Segment::new(0xffff_ffff), |_| 0), Ok(0));
}

#[test]
fn scan_asks_further_functions_only_of_multifunction_devices() {
    let machine = empty();
    machine.platform().plug(at("00:03.0"), nic());
    machine.platform().plug(at("00:03.1"), nic());
    machine.platform().plug(at("00:04.1"), nic());
    assert_eq!(machine.scan(ZERO, |_| 0), Ok(1));
}

#[test]
fn scan_that_fails_keeps_what_it_found_and_goes_on_from_there() {
    let machine = plugged(&["00:03.0", "00:04.0"]);
    machine.platform().fail_call(3, pcidevs::platform::Fault::Error(OUTAGE));
    failure(machine.scan(ZERO, |_| 0));
    assert_eq!(listed(&machine, Owner::Unowned), ["0000:00:03.0"]);
    machine.platform().clear_faults();
    assert_eq!(machine.scan(ZERO, |_| 0), Ok(1));
    check(&machine);
}

#[test]
fn set_host_adopts_all_in_one_publication() {
    let machine = plugged(&["00:03.0", "00:04.0", "00:05.0"]);
    machine.scan(ZERO, |_| 0).expect("scanned");
    let adopted = while_it_hangs(
        &machine,
        Hook::IommuFlush,
        || machine.set_host(),
        || {
            assert_eq!(listed(&machine, Owner::Unowned).len(), 3);
            assert!(listed(&machine, Owner::Host).is_empty());
        },
    );
    adopted.expect("adopted");
    assert_eq!(listed(&machine, Owner::Host).len(), 3);
    assert!(listed(&machine, Owner::Unowned).is_empty());
    check(&machine);
    machine.set_host().expect("nothing left to adopt");
}

#[test]
fn set_host_that_fails_adopts_none() {
    for hook in [Hook::Permit, Hook::Bind, Hook::IommuAttach, Hook::IommuFlush] {
        let machine = plugged(&["00:03.0", "00:04.0"]);
        machine.scan(ZERO, |_| 0).expect("scanned");
        let before = dump(&machine);
        fail(&machine, hook);
        machine.set_host().expect_err("a hook failed");
        assert_eq!(dump(&machine), before, "{hook}");
        machine.set_host().expect("adopted");
        check(&machine);
    }
}

#[test]
fn a_scanned_device_is_adopted_when_the_host_reports_it_and_not_added_twice() {
    let machine = plugged(&["00:03.0"]);
    machine.scan(ZERO, |_| 5).expect("scanned");
    let added = machine.add(at("00:03.0"), DeviceInfo::default(), 7).expect("known");
    assert_eq!(added, Added::Again(7));
    assert_eq!(
        (owner(&machine, "00:03.0"), **machine.lock(at("00:03.0")).expect("known")),
        (Some(Owner::Host), 5)
    );
    machine.platform().record(true);
    machine.set_host().expect("nothing left");
    machine.add(at("00:03.0"), DeviceInfo::default(), 7).expect("known");
    let hooks: Vec<_> = machine.platform().take_journal().iter().map(|call| call.hook).collect();
    assert!(!hooks.contains(&Hook::IommuAttach), "enabled once: {hooks:?}");
    check(&machine);
}

#[test]
fn add_again_that_cannot_adopt_leaves_the_device_unowned_and_as_it_was() {
    let machine = plugged(&["00:03.0"]);
    machine.scan(ZERO, |_| 5).expect("scanned");
    let before = dump(&machine);
    machine.platform().set_node(at("00:03.0"), 4);
    fail(&machine, Hook::IommuAttach);
    let info = DeviceInfo { is_extended_function: true, ..DeviceInfo::default() };
    let failed = failure(machine.add(at("00:03.0"), info, 7).map_err(|error| error.reason));
    assert_eq!(failed.error, OUTAGE);
    assert_eq!(dump(&machine), before);
}

#[test]
fn hidden_stays_hidden() {
    let machine = plugged(&["00:03.0", "00:04.0"]);
    machine.scan(ZERO, |_| 0).expect("scanned");
    machine.hide(at("00:03.0"), Visibility::ReadOnly).expect("unused");
    machine.set_host().expect("adopted");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Hidden));
    assert_eq!(machine.add(at("00:03.0"), DeviceInfo::default(), 7).expect("known"), Added::Again(7));
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Hidden));
    assert!(machine.lock(at("00:03.0")).expect("known").is_read_only());
    check(&machine);
}

#[test]
fn unowned_devices_behind_one_bridge_are_adopted_one_by_one_too() {
    let machine = empty();
    machine.platform().plug(at("00:02.0"), pci_bridge(0, 5));
    machine.platform().plug(at("05:01.0"), nic());
    machine.platform().plug(at("05:02.0"), nic());
    machine.scan(ZERO, |_| 0).expect("scanned");
    for address in ["00:02.0", "05:01.0", "05:02.0"] {
        machine.add(at(address), DeviceInfo::default(), 7).expect("adopted");
    }
    check(&machine);
}

#[test]
fn unowned_devices_can_be_quarantined_and_removed() {
    let machine = plugged(&["00:03.0", "00:04.0"]);
    machine.scan(ZERO, |_| 0).expect("scanned");
    machine.remove_device(at("00:04.0")).expect("unused");
    machine.quarantine(&set(&["00:03.0"])).expect("quarantined");
    check(&machine);
    machine.deassign(&set(&["00:03.0"]), Owner::Quarantine).expect("deassigned");
    check(&machine);
}

#[test]
fn assign_of_an_unowned_device_is_ebusy() {
    let machine = plugged(&["00:03.0"]);
    machine.scan(ZERO, |_| 0).expect("scanned");
    let refused = machine.assign(&set(&["00:03.0"]), crate::scaffold::GUEST);
    let expected = TransitionError::Taken { device: at("00:03.0"), owner: Owner::Unowned };
    assert_eq!(refused, Err(expected));
    assert_eq!(errno(refused), Errno::EBUSY);
}
