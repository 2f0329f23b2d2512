//! A machine with a few cards, and a manager for it.

use std::sync::Arc;
use std::time::Duration;

use pcidevs::Sbdf;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction};
use pcidevs::host::{
    Attachable, DriverType, Guarding, GuestName, HostManager, HostState, KeptNetwork, NetworkIdentity,
    NetworkSettings, Options, Recovery, Released, Tenure,
};

pub(crate) const NIC: (u16, u16) = (0x8086, 0x1533);
pub(crate) const DISK: (u16, u16) = (0x144d, 0xa808);

/// Two cards alone in their groups, and an adapter whose four ports are one group.
pub(crate) const CARD: &str = "0000:01:00.0";
pub(crate) const OTHER: &str = "0000:02:00.0";
pub(crate) const PORTS: [&str; 4] = ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2", "0000:03:00.3"];
/// A network card with two virtual functions, where `machine_with_virtual` is.
pub(crate) const PF: &str = "0000:06:00.0";
pub(crate) const VF: &str = "0000:06:10.0";
pub(crate) const VF_OTHER: &str = "0000:06:10.1";
/// Nobody ever moves it.
pub(crate) const STAYS: &str = "0000:04:00.0";

pub(crate) fn at(text: &str) -> Sbdf {
    text.parse().expect("an address")
}

pub(crate) fn set(texts: &[&str]) -> Vec<Sbdf> {
    texts.iter().map(|text| at(text)).collect()
}

pub(crate) fn guest(name: &str) -> GuestName {
    GuestName::new("qemu", name).expect("a name")
}

/// The machine, at its start.
pub(crate) fn machine() -> Fake {
    let fake = Fake::new();
    fake.add_driver("igb", FakeDriver::of(NIC));
    fake.add_driver("nvme", FakeDriver::of(DISK));
    fake.add(at("0000:00:01.0"), FakeFunction::bridge((0x8086, 1), 1, 1));
    fake.add(at(CARD), FakeFunction::endpoint(NIC, 10));
    fake.add(at(OTHER), FakeFunction::endpoint(DISK, 11));
    for port in PORTS {
        fake.add(at(port), FakeFunction::endpoint(NIC, 12));
    }
    fake.add(at(STAYS), FakeFunction::endpoint(DISK, 13));
    fake
}

/// The same, with a network card whose virtual functions are in groups of their own.
pub(crate) fn machine_with_virtual() -> Fake {
    let fake = machine();
    let pf = (0x8086, 0x1572);
    fake.add_driver("ixgbe", FakeDriver { makes_vfs: true, ..FakeDriver::of(pf) });
    fake.add_driver("ixgbevf", FakeDriver::of((0x8086, 0x1573)));
    fake.add(at(PF), FakeFunction { total_vfs: 2, ..FakeFunction::endpoint(pf, 15) });
    fake.add_interface(at(PF), "enp6s0");
    fake.write_as_somebody(&format!("bus/pci/devices/{PF}/sriov_numvfs"), "2").expect("switched on");
    fake.keep_network(at(VF), hosts_network());
    fake
}

/// What the host has set for the virtual function.
pub(crate) fn hosts_network() -> KeptNetwork {
    KeptNetwork { mac: "02:00:00:00:00:05".parse().expect("a MAC"), vlan: "7:3".parse().expect("a VLAN") }
}

/// What a guest is to have.
pub(crate) fn guests_network() -> NetworkIdentity {
    let mac = "52:54:00:00:00:01".parse().expect("a MAC");
    NetworkIdentity::new(Some(mac), Some("100".parse().expect("a VLAN"))).expect("assignable")
}

/// Deadlines so short that what hangs is noticed, and so long that nothing else is.
pub(crate) fn options() -> Options {
    Options { write_deadline: Duration::from_secs(20), ..Options::default() }
}

pub(crate) fn open(fake: &Fake) -> HostManager {
    let (manager, recovery) = reopen(fake);
    assert_eq!((recovery.damage, recovery.refused), (None, vec![]));
    manager
}

pub(crate) fn reopen(fake: &Fake) -> (HostManager, Recovery) {
    HostManager::open(Arc::new(fake.clone()), Arc::new(fake.clone()), options()).expect("opened")
}

pub(crate) fn detach(manager: &HostManager, texts: &[&str]) {
    manager.detach(&set(texts), &DriverType::Default, Guarding::On).expect("detached");
}

pub(crate) fn attach_managed(manager: &HostManager, texts: &[&str], name: &str) {
    let wanted: Vec<_> = set(texts).into_iter().map(Attachable::managed).collect();
    manager.attach(&wanted, &guest(name), Guarding::On).expect("attached");
}

pub(crate) fn release(manager: &HostManager, texts: &[&str], name: &str) -> Released {
    manager.release(&set(texts), &guest(name)).expect("released")
}

pub(crate) fn state(manager: &HostManager, text: &str) -> HostState {
    manager.status(at(text)).expect("known").state
}

/// Everything that anybody outside could see of the functions: drivers, overrides, network identities.
pub(crate) fn dump(fake: &Fake) -> Vec<String> {
    let known = ["0000:00:01.0", CARD, OTHER, PORTS[0], PORTS[1], PORTS[2], PORTS[3], STAYS, VF];
    let show = |text| {
        let (driver, only) = (fake.driver(at(text)), fake.driver_override(at(text)));
        let network = fake.kept_network(at(text)).map(|kept| format!("{} {}", kept.mac, kept.vlan));
        format!("{text} {driver:?} {only:?} {network:?}")
    };
    known.into_iter().map(show).collect()
}

/// What the manager says of each device, without what may differ after a restart.
pub(crate) fn states(manager: &HostManager) -> Vec<String> {
    let list = manager.list().expect("listed");
    list.iter().map(|device| format!("{} {:?} {:?}", device.address, device.state, device.driver)).collect()
}

/// What holds whenever nothing is under way and nothing is broken.
pub(crate) fn check(fake: &Fake, manager: &HostManager) {
    for device in manager.list().expect("listed") {
        check_network(fake, manager, device.address);
        let Some(record) = manager.record(device.address) else { continue };
        assert!(!record.intent, "{record:?}");
        if record.broken.is_some() {
            continue;
        }
        assert_ne!(record.tenure, Tenure::Host, "{record:?}");
        assert_eq!(fake.driver(device.address).as_deref(), Some(record.stub.as_str()), "{record:?}");
        assert_eq!(fake.driver_override(device.address).as_deref(), Some(record.stub.as_str()));
        if record.tenure == Tenure::Quarantine && !record.used {
            assert_eq!(fake.command(device.address).expect("there") & 4, 0, "bus mastering of {record:?}");
        }
    }
}

/// A guest has what it was promised, and the host what it had, unless that is known to be due.
fn check_network(fake: &Fake, manager: &HostManager, device: Sbdf) {
    if device != at(VF) {
        return;
    }
    let record = manager.record(device);
    if record.as_ref().is_some_and(|record| record.broken.is_some()) {
        return;
    }
    let kept = fake.kept_network(device).expect("there");
    let kept = NetworkSettings { mac: Some(kept.mac), vlan: Some(kept.vlan) };
    let hosts = NetworkSettings { mac: Some(hosts_network().mac), vlan: Some(hosts_network().vlan) };
    match record.and_then(|record| Some((record.tenure, record.network?))) {
        None => assert_eq!(kept, hosts),
        Some((Tenure::Guest(_), network)) => assert_eq!((kept, network.saved), (network.wanted, hosts)),
        Some((_, network)) => assert_eq!(network.saved, hosts, "what is due is not forgotten"),
    }
}
