//! From the host to quarantine and back: writes in order, verified links, original drivers and overrides.

use pcidevs::Errno;
use pcidevs::host::fake::{FakeDriver, FakeFunction};
use pcidevs::host::{DriverType, Guarding, HostError, HostState};

use crate::scaffold::{CARD, NIC, OTHER, PORTS, at, check, detach, dump, machine, open, set, state};

fn refused(result: Result<(), HostError>) -> HostError {
    result.expect_err("refused")
}

#[test]
fn detach_overrides_unbinds_probes_and_verifies_in_this_order() {
    let fake = machine();
    let manager = open(&fake);
    fake.take_written();
    detach(&manager, &[CARD]);
    assert_eq!(
        fake.take_written(),
        [
            "write journal.a.new",
            "rename journal.a.new",
            "\"vfio-pci\" > /sys/bus/pci/devices/0000:01:00.0/driver_override",
            "\"0000:01:00.0\" > /sys/bus/pci/drivers/igb/unbind",
            "\"0000:01:00.0\" > /sys/bus/pci/drivers_probe",
            "write journal.b.new",
            "rename journal.b.new",
        ]
    );
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"));
    assert_eq!(state(&manager, CARD), HostState::Quarantine);
    check(&fake, &manager);
}

#[test]
fn reattach_gives_back_driver_and_override_and_leaves_nothing() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    detach(&manager, &[CARD, OTHER]);
    let released = manager.reattach(&set(&[CARD, OTHER])).expect("reattached");
    assert_eq!(released.returned, set(&[CARD, OTHER]));
    assert_eq!(dump(&fake), before);
    assert!(manager.record(at(CARD)).is_none());
}

#[test]
fn somebody_elses_override_is_kept_and_put_back() {
    let fake = machine();
    fake.write_as_somebody(&format!("bus/pci/devices/{CARD}/driver_override"), "igb").expect("written");
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    assert_eq!(fake.driver_override(at(CARD)).as_deref(), Some("vfio-pci"));
    manager.reattach(&set(&[CARD])).expect("reattached");
    assert_eq!(fake.driver_override(at(CARD)).as_deref(), Some("igb"));
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb"));
}

#[test]
fn a_device_without_driver_goes_back_to_none() {
    let fake = machine();
    fake.add(at("0000:05:00.0"), FakeFunction::endpoint((1, 2), 20));
    let manager = open(&fake);
    detach(&manager, &["0000:05:00.0"]);
    assert_eq!(fake.driver(at("0000:05:00.0")).as_deref(), Some("vfio-pci"));
    // A driver that would take it comes meanwhile; it had none, and gets none.
    fake.add_driver("late", FakeDriver::of((1, 2)));
    manager.reattach(&set(&["0000:05:00.0"])).expect("reattached");
    assert_eq!((fake.driver(at("0000:05:00.0")), fake.driver_override(at("0000:05:00.0"))), (None, None));
}

#[test]
fn success_is_not_reported_without_the_link_that_was_asked_for() {
    let fake = machine();
    let before = dump(&fake);
    // Its probe fails, which `drivers_probe` does not say.
    fake.add_driver("vfio-pci", FakeDriver { refuses: Some(Errno::new(71)), ..FakeDriver::vfio() });
    let manager = open(&fake);
    let error = refused(manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On));
    assert_eq!(error.errno(), Errno::new(71), "{error}");
    assert!(error.to_string().contains("drivers/vfio-pci/bind"), "{error}");
    assert_eq!(dump(&fake), before);
    assert_eq!(state(&manager, CARD), HostState::Host);
    assert!(manager.record(at(CARD)).is_none());
}

#[test]
fn a_set_is_detached_whole_or_not_at_all() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    fake.on_write(|_, what| {
        let is_last = what.contains(PORTS[3]) && what.contains("unbind");
        is_last.then_some(pcidevs::host::fake::Mishap::Error(Errno::EBUSY))
    });
    let error = refused(manager.detach(&set(&PORTS), &DriverType::Default, Guarding::On));
    assert_eq!(error.errno(), Errno::EBUSY);
    assert_eq!(dump(&fake), before);
    fake.behave();
    detach(&manager, &PORTS);
    check(&fake, &manager);
}

#[test]
fn requests_that_make_no_sense_are_refused_before_anything_is_written() {
    let fake = machine();
    let manager = open(&fake);
    fake.take_written();
    let default = DriverType::Default;
    let ask = |texts: &[&str]| refused(manager.detach(&set(texts), &default, Guarding::On));
    assert_eq!(ask(&[]), HostError::NoDevices);
    assert_eq!(ask(&[CARD, OTHER, CARD]), HostError::Duplicate(at(CARD)));
    assert_eq!(ask(&[CARD, "0000:77:00.0"]), HostError::NotFound(at("0000:77:00.0")));
    assert_eq!(ask(&["0000:00:01.0"]), HostError::Bridge(at("0000:00:01.0")));
    let many: Vec<_> = (0..100_000).map(|n| pcidevs::Sbdf::from_u32(n | 1 << 20)).collect();
    assert!(matches!(refused(manager.detach(&many, &default, Guarding::On)), HostError::NotFound(_)));
    assert_eq!(fake.take_written(), [""; 0]);
}

#[test]
fn a_device_that_came_later_is_found_and_one_that_has_gone_is_not() {
    let fake = machine();
    let manager = open(&fake);
    fake.add(at("0000:05:00.0"), FakeFunction::endpoint(NIC, 20));
    detach(&manager, &["0000:05:00.0"]);
    fake.unplug(at("0000:05:00.0"));
    assert_eq!(manager.rescan().expect("looked"), [at("0000:05:00.0")]);
    assert!(manager.record(at("0000:05:00.0")).is_none());
    let error = manager.reattach(&set(&["0000:05:00.0"])).expect_err("gone");
    assert_eq!(error, HostError::NotFound(at("0000:05:00.0")));
}

#[test]
fn an_address_is_not_followed_to_another_device() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    fake.unplug(at(CARD));
    fake.add(at(CARD), FakeFunction::endpoint(crate::scaffold::DISK, 10));
    fake.take_written();
    assert_eq!(manager.reattach(&set(&[CARD])).expect_err("another"), HostError::NotFound(at(CARD)));
    assert!(fake.take_written().iter().all(|line| line.contains("journal")), "nothing was written to it");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("nvme"));
    // From now on the address is the new one's.
    detach(&manager, &[CARD]);
    manager.reattach(&set(&[CARD])).expect("reattached");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("nvme"));
}
