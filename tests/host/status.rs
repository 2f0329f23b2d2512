//! What is shown, and that showing it waits for nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction, Release};
use pcidevs::host::{DriverType, Guarding, HostManager, HostState, Options};
use pcidevs::{Sbdf, address};

use crate::scaffold::{CARD, NIC, at, attach_managed, detach, guest, machine, open};

fn function(n: u16) -> Sbdf {
    Sbdf::from_bdf(address::Segment::new(0), 0x1000 + n)
}

fn crowd(count: u16, probe_takes: Duration) -> Fake {
    let fake = Fake::new();
    fake.add_driver("igb", FakeDriver { probe_takes, ..FakeDriver::of(NIC) });
    for n in 0..count {
        fake.add(function(n), FakeFunction::endpoint(NIC, u32::from(n)));
    }
    fake
}

#[test]
fn a_status_says_with_whom_on_what_and_in_which_group() {
    let fake = machine();
    let manager = open(&fake);
    attach_managed(&manager, &[CARD], "vm");
    let status = manager.status(at(CARD)).expect("known");
    assert_eq!(status.state, HostState::Guest(guest("vm")));
    assert_eq!(status.driver.expect("bound").as_str(), "vfio-pci");
    assert_eq!(status.group.expect("grouped").0, 10);
    assert!(status.needs_reset && status.managed && status.stuck.is_none());
    assert_eq!(manager.status(at("0000:77:00.0")), None);
    assert_eq!(manager.list().expect("listed").len(), 8);
}

#[test]
fn with_500_functions_and_one_stuck_it_answers_while_the_write_hangs() {
    let fake = crowd(500, Duration::ZERO);
    fake.set_release(Release::V6_1);
    let options = Options { write_deadline: Duration::from_millis(50), ..Options::default() };
    let (manager, _) =
        HostManager::open(Arc::new(fake.clone()), Arc::new(fake.clone()), options).expect("opened");
    fake.add_driver("igb", FakeDriver { hangs_in_unbind: true, ..FakeDriver::of(NIC) });
    let refused = manager.detach(&[function(7)], &DriverType::Default, Guarding::On);
    refused.expect_err("hangs");
    let began = Instant::now();
    let list = manager.list().expect("listed");
    let took = began.elapsed();
    assert_eq!(list.len(), 500);
    assert_eq!(list.iter().filter(|device| device.stuck.is_some()).count(), 1);
    eprintln!("500 functions, one stuck: listed in {took:?}");
    fake.add_driver("igb", FakeDriver::of(NIC));
}

#[test]
fn sixty_four_devices_that_bind_slowly_are_detached_side_by_side() {
    let fake = crowd(64, Duration::ZERO);
    let slow = FakeDriver { probe_takes: Duration::from_millis(50), ..FakeDriver::vfio() };
    fake.add_driver("vfio-pci", slow);
    let manager = open(&fake);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..64 {
            let manager = &manager;
            scope.spawn(move || {
                manager.detach(&[function(n)], &DriverType::Default, Guarding::On).expect("detached");
            });
        }
    });
    let (together, one_by_one) = (began.elapsed(), Duration::from_millis(50) * 64);
    eprintln!("64 detached in {together:?}; their probes alone take {one_by_one:?} one by one");
    assert!((0..64).all(|n| fake.driver(function(n)).as_deref() == Some("vfio-pci")));
}

#[test]
fn two_operations_at_one_device_are_not_both_carried_out() {
    for _ in 0..50 {
        let fake = machine();
        let manager = open(&fake);
        detach(&manager, &[CARD]);
        std::thread::scope(|scope| {
            let manager = &manager;
            scope.spawn(move || manager.reattach(&[at(CARD)]));
            let wanted = [pcidevs::host::Attachable::detached(at(CARD))];
            scope.spawn(move || manager.attach(&wanted, &guest("vm"), Guarding::On));
        });
        crate::scaffold::check(&fake, &manager);
    }
}
