//! A simulated machine with a few functions, and short names for what every test does.

use pcidevs::lifecycle::{Added, DeviceInfo, Lifecycle};
use pcidevs::platform::{ConfigBytes, Simulated};
use pcidevs::{DomainId, Member, Owner, Sbdf};

pub(crate) type Machine = Lifecycle<Simulated<u32>>;

pub(crate) const GUEST: DomainId = DomainId::new(1);
pub(crate) const OTHER: DomainId = DomainId::new(2);

pub(crate) fn at(address: &str) -> Sbdf {
    address.parse().expect("an address")
}

pub(crate) fn set(addresses: &[&str]) -> Vec<Member> {
    addresses.iter().map(|address| Member::new(at(address))).collect()
}

/// An endpoint with everything a transition touches.
pub(crate) fn nic() -> ConfigBytes {
    ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats()
}

/// A machine with endpoints at these addresses, with the host, and two guests.
pub(crate) fn machine(addresses: &[&str]) -> Machine {
    let machine = Lifecycle::new(Simulated::new()).expect("memory");
    for address in addresses {
        plug(&machine, address, nic());
    }
    machine.create_domain(GUEST).expect("created");
    machine.create_domain(OTHER).expect("created");
    machine
}

/// Plugs a function and reports it.
pub(crate) fn plug(machine: &Machine, address: &str, config: ConfigBytes) {
    machine.platform().plug(at(address), config);
    let added = machine.add(at(address), DeviceInfo::default(), 7).expect("added");
    assert_eq!(added, Added::New);
}

pub(crate) fn owner(machine: &Machine, address: &str) -> Option<Owner> {
    machine.lock(at(address)).ok().map(|device| device.owner())
}

pub(crate) fn listed(machine: &Machine, owner: Owner) -> Vec<String> {
    let devices = machine.devices_of(owner).expect("memory").expect("exists");
    devices.iter().map(|device| device.address().to_string()).collect()
}
