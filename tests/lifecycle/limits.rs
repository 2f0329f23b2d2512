//! Domain ids, segments and addresses at their limits.

use pcidevs::address::Segment;
use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{Dma, Entry};
use pcidevs::{CreateDomainError, DomainId, Errno, Member, Owner};

use crate::scaffold::{at, dump, empty, errno, machine, nic, plug, set};

#[test]
fn every_domain_id_is_a_domain() {
    for number in [0, 1 << 16, 0x7ff0, u32::MAX - 1, u32::MAX] {
        let machine = machine(&["00:03.0"]);
        let id = DomainId::new(number);
        let guest = machine.create_domain(id).expect("any number");
        machine.assign(&set(&["00:03.0"]), id).expect("assigned");
        assert_eq!(machine.platform().entry(at("00:03.0")), Entry::Attached(Owner::Guest(id)));
        assert_eq!(machine.platform().dma_raw(at("00:03.0")), Dma::Reaches(Owner::Guest(id)));
        assert_eq!(guest.lock(at("00:00.0")).expect("there").address(), at("00:03.0"));
        machine.release_domain(id).expect("released");
        assert!(machine.domain(id).is_none());
    }
}

#[test]
fn a_domain_is_created_once() {
    let machine = empty();
    let id = DomainId::new(u32::MAX);
    machine.create_domain(id).expect("created");
    let again = machine.create_domain(id).expect_err("it exists");
    assert_eq!((again, again.errno()), (CreateDomainError::Exists(id), Errno::EEXIST));
}

#[test]
fn segments_up_to_32_bits_are_never_truncated() {
    let addresses = ["0000:e1:00.0", "10000:e1:00.0", "ffff0000:e1:00.0", "ffffffff:ff:1f.7"];
    let machine = empty();
    for address in addresses {
        plug(&machine, address, nic());
    }
    machine.assign(&set(&addresses[1..]), crate::scaffold::GUEST).expect("assigned");
    assert_eq!(crate::scaffold::listed(&machine, Owner::Host), ["0000:e1:00.0"]);
    assert_eq!(crate::scaffold::listed(&machine, crate::scaffold::TO_GUEST), addresses[1..]);
    crate::scaffold::check(&machine);
    machine.report_gone(at(addresses[3])).expect("known");
    plug(&machine, addresses[3], nic());
    machine.remove_slot(at(addresses[3])).expect("the last slot there is");
    assert_eq!(machine.scan(Segment::new(u32::MAX), |_| 1), Ok(0));
    machine.reset(at(addresses[2]), pcidevs::platform::ResetKind::Flr).expect("known");
}

#[test]
fn the_last_address_has_a_bus_reset_too() {
    let machine = empty();
    plug(&machine, "ffffffff:ff:1f.7", nic());
    machine.platform().set_reset(at("ffffffff:ff:1f.7"), pcidevs::platform::ResetSupport::Bus);
    machine.assign(&set(&["ffffffff:ff:1f.7"]), crate::scaffold::GUEST).expect("alone there");
    crate::scaffold::check(&machine);
}

#[test]
fn a_guest_may_see_a_device_at_any_address() {
    let machine = machine(&["00:03.0"]);
    let guest = machine.domain(crate::scaffold::GUEST).expect("known");
    for address in ["ffffffff:ff:1f.7", "0000:00:00.0", "10000:00:00.1"] {
        let member = Member::at(at("00:03.0"), at(address));
        machine.assign(&[member], crate::scaffold::GUEST).expect("free");
        assert_eq!(guest.lock(at(address)).expect("there").guest_address(), Some(at(address)));
        machine.deassign(&[member], crate::scaffold::TO_GUEST).expect("deassigned");
    }
}

#[test]
fn two_members_for_one_slot_are_eexist_and_nobody_moves() {
    let machine = machine(&["00:03.0", "00:04.0"]);
    let before = dump(&machine);
    let both = ["00:03.0", "00:04.0"].map(|address| Member::at(at(address), at("00:05.0")));
    let refused = machine.assign(&both, crate::scaffold::GUEST);
    assert_eq!(refused, Err(TransitionError::SlotTaken(at("00:05.0"))));
    assert_eq!(errno(refused), Errno::EEXIST);
    assert_eq!(dump(&machine), before);
}

#[test]
fn operations_on_unknown_devices_create_nothing() {
    let machine = machine(&["00:03.0"]);
    let before = dump(&machine);
    let unknown = at("00ff00ff:12:05.3");
    let kind = pcidevs::platform::ResetKind::Flr;
    let refused = [
        machine.can_assign(unknown, crate::scaffold::GUEST),
        machine.assign(&[unknown.into()], crate::scaffold::GUEST),
        machine.assign_group(unknown, crate::scaffold::GUEST),
        machine.deassign(&[unknown.into()], crate::scaffold::TO_GUEST),
        machine.quarantine(&[unknown.into()]),
        machine.hide(unknown, pcidevs::lifecycle::Visibility::None),
        machine.reset(unknown, kind),
        machine.report_reset(unknown, kind),
        machine.repair(unknown),
        machine.msi_prepare(unknown),
        machine.msi_release(unknown),
        machine.remove_device(unknown),
        machine.remove_slot(unknown),
        machine.remove_subtree(unknown),
        machine.begin_removal(unknown).map(drop),
        machine.report_gone(unknown),
        machine.report_flush_timeout(unknown),
        machine.request_unplug(unknown),
        machine.unplug_answered(unknown, crate::scaffold::GUEST, pcidevs::lifecycle::Unplug::Acked),
        machine.group_of(unknown).map(drop),
    ];
    for (place, result) in refused.into_iter().enumerate() {
        assert_eq!(result, Err(TransitionError::NotFound(unknown)), "operation {place}");
    }
    assert_eq!(machine.report_fault(unknown), None);
    assert!(machine.status(unknown).is_none() && machine.get(unknown).is_none());
    assert_eq!(dump(&machine), before);
}
