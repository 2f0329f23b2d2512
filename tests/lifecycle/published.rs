//! Published registers through the life of a device: nobody reads them while its owner is not certain.

use pcidevs::Sbdf;
use pcidevs::platform::Hook;

use crate::scaffold::{GUEST, Machine, at, fail, machine, set, while_it_hangs};

fn publish(machine: &Machine, device: Sbdf) {
    machine.lock(device).expect("known").publish(&[7]).expect("memory");
}

#[test]
fn l8_while_the_steps_of_an_assignment_run_nobody_reads_them() {
    let machine = machine(&["00:03.0"]);
    publish(&machine, at("00:03.0"));
    let guest = machine.domain(GUEST).expect("known");
    while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.assign(&set(&["00:03.0"]), GUEST),
        || {
            assert_eq!(machine.read_published(at("00:03.0"), 0), None);
        },
    )
    .expect("assigned");
    let seen = machine.lock(at("00:03.0")).expect("known").guest_address().expect("a guest's");
    assert_eq!(guest.read_published(seen, 0), Some(7));
}

#[test]
fn r9_a_device_whose_teardown_failed_shows_them_again() {
    let machine = machine(&["00:03.0"]);
    publish(&machine, at("00:03.0"));
    fail(&machine, Hook::IommuDetach);
    machine.remove_device(at("00:03.0")).expect_err("asked to fail");
    assert_eq!(machine.read_published(at("00:03.0"), 0), Some(7));
}
