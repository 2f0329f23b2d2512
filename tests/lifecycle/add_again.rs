//! add again: the same object; node and information are updated only after all checks passed.

use pcidevs::lifecycle::{Added, DeviceInfo, TransitionError};
use pcidevs::platform::{Hook, Refusal, Rule};
use pcidevs::{Errno, Owner, Transition};

use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, assigned, at, check, dump, empty, errno, fail, failure, listed,
    machine, nic, owner, plug_vf, set,
};

fn again(machine: &Machine, address: &str, info: DeviceInfo) -> Result<Added<u32>, TransitionError> {
    machine.add(at(address), info, 9).map_err(|error| {
        assert_eq!(error.data, 9);
        error.reason
    })
}

const EXTENDED: DeviceInfo = DeviceInfo { physical_function: None, is_extended_function: true };

#[test]
fn add_again_finds_the_same_object_and_gives_the_new_data_back() {
    let machine = machine(&["00:03.0"]);
    let handle = machine.get(at("00:03.0")).expect("known");
    assert_eq!(again(&machine, "00:03.0", DeviceInfo::default()), Ok(Added::Again(9)));
    assert_eq!(**handle.lock().expect("the same"), 7);
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:03.0"]);
    check(&machine);
}

#[test]
fn add_again_updates_node_and_information() {
    let machine = machine(&["00:03.0"]);
    machine.platform().set_node(at("00:03.0"), 3);
    again(&machine, "00:03.0", EXTENDED).expect("known");
    let device = machine.lock(at("00:03.0")).expect("known");
    assert_eq!((device.node(), device.is_extended_function()), (Some(3), true));
}

#[test]
fn add_again_changes_nothing_unless_all_checks_pass() {
    let machine = machine(&["00:03.0"]);
    let before = dump(&machine);
    machine.platform().set_node(at("00:03.0"), 3);

    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Add));
    assert_eq!(errno(again(&machine, "00:03.0", EXTENDED)), Errno::EPERM);
    assert_eq!(dump(&machine), before);
    machine.platform().permit_all();

    fail(&machine, Hook::Facts);
    assert_eq!(failure(again(&machine, "00:03.0", EXTENDED)).error, OUTAGE);
    assert_eq!(dump(&machine), before);

    let vf = DeviceInfo { physical_function: Some(at("00:1e.0")), is_extended_function: true };
    let refused = again(&machine, "00:03.0", vf);
    assert_eq!(refused, Err(TransitionError::NoPf { vf: at("00:03.0"), pf: at("00:1e.0") }));
    assert_eq!(errno(refused), Errno::ENODEV);
    assert_eq!(dump(&machine), before);
}

#[test]
fn add_again_does_not_overwrite_what_a_vf_inherited() {
    let machine = empty();
    machine.platform().plug(at("00:03.0"), nic());
    machine.add(at("00:03.0"), EXTENDED, 7).expect("added");
    plug_vf(&machine, "00:03.1", "00:03.0");
    again(&machine, "00:03.0", DeviceInfo::default()).expect("known");
    for is_extended_function in [false, true] {
        let info = DeviceInfo { physical_function: Some(at("00:03.0")), is_extended_function };
        again(&machine, "00:03.1", info).expect("known");
        assert!(machine.lock(at("00:03.1")).expect("known").is_extended_function());
    }
}

#[test]
fn add_again_leaves_the_owner_alone() {
    let machine = assigned(&["00:03.0"]);
    again(&machine, "00:03.0", DeviceInfo::default()).expect("known");
    assert_eq!(owner(&machine, "00:03.0"), Some(TO_GUEST));
    machine.deassign(&set(&["00:03.0"]), TO_GUEST).expect("deassigned");
    machine.quarantine(&set(&["00:03.0"])).expect("quarantined");
    again(&machine, "00:03.0", DeviceInfo::default()).expect("known");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Quarantine));
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    check(&machine);
}

#[test]
fn remove_and_add_is_a_new_object() {
    let machine = machine(&["00:03.0"]);
    let weak = machine.get(at("00:03.0")).expect("known").downgrade();
    machine.remove_device(at("00:03.0")).expect("unused");
    assert_eq!(again(&machine, "00:03.0", DeviceInfo::default()), Ok(Added::New));
    assert!(weak.upgrade().is_none());
    assert_eq!(**machine.lock(at("00:03.0")).expect("known"), 9);
    check(&machine);
}
