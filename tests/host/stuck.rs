//! A kernel write that does not return hangs its device, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeDriver, Release};
use pcidevs::host::{DriverType, Guarding, HostError, HostManager, HostState, Options};

use crate::scaffold::{CARD, NIC, OTHER, PORTS, at, check, detach, dump, machine, set, state};

/// Its manager gives up on a write soon.
fn impatient(fake: &Fake) -> HostManager {
    let options = Options { write_deadline: Duration::from_millis(200), ..Options::default() };
    HostManager::open(Arc::new(fake.clone()), Arc::new(fake.clone()), options).expect("opened").0
}

fn hang(fake: &Fake, hangs_in_unbind: bool) {
    fake.add_driver("igb", FakeDriver { hangs_in_unbind, ..FakeDriver::of(NIC) });
}

fn detached(manager: &HostManager, text: &str) -> Result<(), HostError> {
    manager.detach(&set(&[text]), &DriverType::Default, Guarding::On)
}

/// Waits for the late end; the test fails by running for ever.
fn late_end(manager: &HostManager) -> pcidevs::host::LateEnd {
    loop {
        let mut ends = manager.late_ends();
        assert!(ends.len() < 2, "one call a device");
        match ends.pop() {
            Some(end) => return end,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[test]
fn an_unbind_that_hangs_makes_its_device_stuck_and_broken() {
    for release in [Release::V6_1, Release::V6_12] {
        let fake = machine();
        fake.set_release(release);
        let before = dump(&fake);
        let manager = impatient(&fake);
        hang(&fake, true);
        let error = detached(&manager, CARD).expect_err("hangs");
        assert_eq!(error.errno(), Errno::ETIMEDOUT, "{error}");
        let status = manager.status(at(CARD)).expect("known");
        assert!(matches!(status.state, HostState::Broken { .. }), "{status:?}");
        let stuck = status.stuck.expect("stuck");
        assert!(stuck.contains("igb/unbind"), "{stuck}");
        // The original driver is not forgotten, and nobody gets the device.
        let record = manager.record(at(CARD)).expect("kept");
        assert!(format!("{:?}", record.original).contains("igb"));
        assert!(matches!(detached(&manager, CARD), Err(HostError::Stuck { .. })));
        assert!(matches!(manager.repair(at(CARD)), Err(HostError::Stuck { .. })));
        // Others are served.
        detach(&manager, &[OTHER]);
        manager.reattach(&set(&[OTHER])).expect("reattached");
        assert_eq!(manager.list().expect("listed").len(), 8);
        // The late end is delivered once, and then it can be repaired.
        hang(&fake, false);
        let end = late_end(&manager);
        assert_eq!((end.device, end.result), (at(CARD), Ok(())));
        assert_eq!(manager.late_ends(), []);
        assert_eq!(manager.status(at(CARD)).expect("known").stuck, None);
        manager.repair(at(CARD)).expect("repaired");
        assert_eq!(state(&manager, CARD), HostState::Quarantine);
        check(&fake, &manager);
        assert_eq!(manager.reattach(&set(&[CARD])).expect("reattached").returned, set(&[CARD]));
        assert_eq!(dump(&fake), before);
    }
}

#[test]
fn siblings_in_a_set_with_a_stuck_device_are_as_before() {
    let fake = machine();
    let before = dump(&fake);
    let manager = impatient(&fake);
    hang(&fake, true);
    let wanted = set(&[OTHER, PORTS[0]]);
    manager.detach(&wanted, &DriverType::Default, Guarding::On).expect_err("one hangs");
    assert_eq!(state(&manager, OTHER), HostState::Host);
    assert_eq!(fake.driver(at(OTHER)).as_deref(), Some("nvme"));
    hang(&fake, false);
    late_end(&manager);
    manager.repair(at(PORTS[0])).expect("repaired");
    manager.reattach(&set(&[PORTS[0]])).expect("reattached");
    assert_eq!(dump(&fake), before);
}

#[test]
fn what_is_broken_stays_refused_after_a_restart_and_can_be_repaired_then() {
    let fake = machine();
    let before = dump(&fake);
    let manager = impatient(&fake);
    hang(&fake, true);
    detached(&manager, CARD).expect_err("hangs");
    hang(&fake, false);
    late_end(&manager);
    drop(manager);
    let manager = impatient(&fake);
    assert!(matches!(detached(&manager, CARD), Err(HostError::Broken { .. })));
    manager.repair(at(CARD)).expect("repaired");
    manager.reattach(&set(&[CARD])).expect("reattached");
    assert_eq!(dump(&fake), before);
    assert_eq!(manager.repair(at(CARD)), Err(HostError::NotBroken(at(CARD))));
}
