//! Devices go to guests and come back.

use pcidevs::Owner;
use pcidevs::platform::Entry;

use crate::scaffold::{GUEST, at, listed, machine, owner, set};

#[test]
fn assign_gives_a_guest_the_device_and_its_requests() {
    let machine = machine(&["00:03.0"]);
    assert_eq!(machine.platform().entry(at("00:03.0")), Entry::Attached(Owner::Host));
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Guest(GUEST)));
    assert_eq!(machine.platform().entry(at("00:03.0")), Entry::Attached(Owner::Guest(GUEST)));
    assert_eq!(listed(&machine, Owner::Guest(GUEST)), ["0000:00:03.0"]);
    machine.deassign(&set(&["00:03.0"]), Owner::Guest(GUEST)).expect("deassigned");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Host));
    assert_eq!(machine.platform().entry(at("00:03.0")), Entry::Attached(Owner::Host));
    machine.remove_device(at("00:03.0")).expect("unused");
    assert_eq!(machine.platform().entry(at("00:03.0")), Entry::Absent);
}
