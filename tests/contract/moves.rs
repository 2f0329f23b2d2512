//! Moving devices between owners: one list, one instant, all or none.

use pcidevs::address::DevFn;
use pcidevs::{CreateDomainError, DestroyDomainError, Holder, Member, MoveError, Owner, Sbdf, Transition};

use crate::{DISK, GPU, GUEST, Machine, NIC, OTHER, at};

fn set() -> [Member; 3] {
    [NIC, DISK, GPU].map(Member::new)
}

#[test]
fn a_set_moves_whole_and_every_device_is_on_one_list() {
    let machine = Machine::with(&[NIC, DISK, GPU]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    for to in [Owner::Guest(GUEST), Owner::Quarantine, Owner::Host, Owner::Guest(GUEST), Owner::Host] {
        machine.registry.move_devices(&set(), to).unwrap();
        assert!([NIC, DISK, GPU].iter().all(|address| machine.lists(*address) == [to]), "{to}");
        let at_guest = matches!(to, Owner::Guest(_));
        assert_eq!(guest.devices().unwrap().len(), if at_guest { 3 } else { 0 });
        for (slot, register) in ["00:00.0", "00:01.0", "00:02.0"].into_iter().zip(0..) {
            assert_eq!(guest.lock(at(slot)).ok().map(|device| device.register), at_guest.then_some(register));
        }
    }
}

#[test]
fn one_member_in_the_way_and_nothing_moves() {
    let machine = Machine::with(&[NIC, DISK, GPU]);
    machine.registry.create_domain(GUEST).unwrap();
    let ticket = machine.registry.begin_removal(GPU).unwrap();
    let moved = machine.registry.move_devices(&set(), Owner::Guest(GUEST));
    let removal = Holder::Transition(Transition::Remove);
    assert!(matches!(moved, Err(MoveError::Busy(GPU, busy)) if busy.holders == [removal]));
    assert!([NIC, DISK, GPU].iter().all(|address| machine.lists(*address) == [Owner::Host]));
    assert!([NIC, DISK].iter().all(|address| machine.registry.status(*address).unwrap().uses == 0));
    drop(ticket);
    machine.registry.move_devices(&set(), Owner::Guest(GUEST)).unwrap();
}

#[test]
fn bad_sets_are_refused_with_the_reason() {
    let machine = Machine::with(&[NIC, DISK]);
    let registry = &machine.registry;
    let guest = Owner::Guest(GUEST);
    assert_eq!(registry.move_devices(&[NIC.into()], guest), Err(MoveError::NoDomain(GUEST)));
    registry.create_domain(GUEST).unwrap();
    assert_eq!(registry.move_devices(&[], guest), Ok(()));
    assert_eq!(registry.move_devices(&[NIC.into(), NIC.into()], guest), Err(MoveError::Duplicate(NIC)));
    assert_eq!(registry.move_devices(&[NIC.into(), GPU.into()], guest), Err(MoveError::NotFound(GPU)));
    let slot = at("00:05.0");
    let same = [Member::at(NIC, slot), Member::at(DISK, slot)];
    assert_eq!(registry.move_devices(&same, guest), Err(MoveError::SlotTaken(slot)));
    assert!(registry.domain(GUEST).unwrap().lock(slot).is_err());
    registry.move_devices(&[Member::at(NIC, slot)], guest).unwrap();
    assert_eq!(registry.move_devices(&[Member::at(DISK, slot)], guest), Err(MoveError::SlotTaken(slot)));
    assert_eq!(machine.lists(NIC), [guest]);
    assert_eq!(machine.lists(DISK), [Owner::Host]);
}

#[test]
fn members_already_there_stay_and_an_address_can_be_changed() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    let to = Owner::Guest(GUEST);
    machine.registry.move_devices(&[NIC.into()], to).unwrap();
    machine.registry.move_devices(&[NIC.into(), DISK.into()], to).unwrap();
    assert_eq!(guest.lock(at("00:00.0")).unwrap().register, 0);
    machine.registry.move_devices(&[Member::at(NIC, at("02:1f.7"))], to).unwrap();
    assert_eq!(guest.lock(at("02:1f.7")).unwrap().register, 0);
    assert!(guest.lock(at("00:00.0")).is_err(), "the old address is free");
    assert_eq!(machine.registry.status(NIC).unwrap().uses, 1);
    assert_eq!(guest.devices().unwrap().len(), 2);
}

#[test]
fn the_lowest_free_guest_slot_is_used_first() {
    let machine = Machine::with(&[NIC, DISK, GPU]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    let to = Owner::Guest(GUEST);
    machine.registry.move_devices(&set(), to).unwrap();
    machine.registry.move_devices(&[DISK.into()], Owner::Host).unwrap();
    machine.registry.move_devices(&[DISK.into()], to).unwrap();
    assert_eq!(guest.lock(at("00:01.0")).unwrap().register, 1);
}

#[test]
fn a_guest_with_8192_devices_has_no_slot_left_but_those_asked_for() {
    let addresses: Vec<_> = (0..8193).map(|bdf| pcidevs::Sbdf::from_u32(bdf * 8)).collect();
    let machine = Machine::with(&addresses);
    machine.registry.create_domain(GUEST).unwrap();
    let members: Vec<_> = addresses.iter().copied().map(Member::new).collect();
    let to = Owner::Guest(GUEST);
    assert_eq!(machine.registry.move_devices(&members, to), Err(MoveError::NoFreeSlot));
    assert_eq!(machine.registry.domain(GUEST).unwrap().devices().unwrap().len(), 0);
    machine.registry.move_devices(&members[..8192], to).unwrap();
    assert_eq!(machine.registry.move_devices(&members[8192..], to), Err(MoveError::NoFreeSlot));
    machine.registry.move_devices(&[Member::at(addresses[8192], at("00:00.1"))], to).unwrap();
}

#[test]
fn every_guest_address_of_a_bus_is_a_place_of_its_own() {
    let buses = ["0000:00:00.0", "0000:01:00.0", "0000:10:00.0", "0007:00:00.0"].map(at);
    let seen: Vec<_> =
        buses.iter().flat_map(|bus| (0..=255).map(|bits| bus.with_devfn(DevFn::from_bits(bits)))).collect();
    let addresses: Vec<_> = (0..1024).map(Sbdf::from_u32).collect();
    let machine = Machine::with(&addresses);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    let members: Vec<_> = addresses.iter().zip(&seen).map(|(device, at)| Member::at(*device, *at)).collect();
    machine.registry.move_devices(&members, Owner::Guest(GUEST)).unwrap();
    for (register, at) in (0..).zip(&seen) {
        assert_eq!(guest.lock(*at).unwrap().register, register, "{at}");
    }
}

#[test]
fn hidden_devices_are_unused_and_stay_hidden() {
    let machine = Machine::with(&[NIC, DISK]);
    let user = machine.registry.get(NIC).unwrap();
    assert!(matches!(
        machine.registry.move_devices(&[NIC.into()], Owner::Hidden),
        Err(MoveError::Busy(NIC, busy)) if busy.uses == 1
    ));
    drop(user);
    machine.registry.move_devices(&[NIC.into()], Owner::Hidden).unwrap();
    assert_eq!(machine.registry.move_devices(&[NIC.into()], Owner::Host), Err(MoveError::Denied(NIC)));
}

#[test]
fn domains_are_made_once_and_forgotten_when_empty() {
    let machine = Machine::with(&[NIC]);
    machine.registry.create_domain(GUEST).unwrap();
    assert_eq!(machine.registry.create_domain(GUEST).err(), Some(CreateDomainError::Exists(GUEST)));
    let stale = machine.registry.create_domain(OTHER).unwrap();
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(GUEST)).unwrap();
    let not_empty = DestroyDomainError::NotEmpty { domain: GUEST, devices: 1 };
    assert_eq!(machine.registry.destroy_domain(GUEST), Err(not_empty));
    machine.registry.destroy_domain(OTHER).unwrap();
    assert_eq!(machine.registry.destroy_domain(OTHER), Err(DestroyDomainError::NotFound(OTHER)));
    assert!(machine.registry.domain(OTHER).is_none() && stale.devices().unwrap().is_empty());
    let extreme = pcidevs::DomainId::new(u32::MAX);
    machine.registry.create_domain(extreme).unwrap();
    machine.registry.move_devices(&[NIC.into()], Owner::Guest(extreme)).unwrap();
}

#[test]
fn l16_an_iteration_by_another_thread_sees_all_or_none() {
    let machine = Machine::with(&[NIC, DISK, GPU]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0_usize; 4];
            for _ in 0..20_000 {
                seen[guest.devices().unwrap().len()] += 1;
            }
            seen
        });
        while !reader.is_finished() {
            machine.registry.move_devices(&set(), Owner::Guest(GUEST)).unwrap();
            machine.registry.move_devices(&set(), Owner::Host).unwrap();
        }
        let seen = reader.join().unwrap();
        assert_eq!((seen[1], seen[2]), (0, 0), "{seen:?}");
    });
}

#[test]
fn a_handle_of_a_guest_that_is_gone_does_not_reach_the_next_guest_of_its_number() {
    let machine = Machine::with(&[NIC, DISK]);
    let slot = at("00:00.0");
    let old = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[Member::at(NIC, slot)], Owner::Guest(GUEST)).unwrap();
    // Lost, and never acknowledged: the old guest's address still points at the slot.
    machine.registry.report_gone(NIC).unwrap();
    machine.registry.destroy_domain(GUEST).unwrap();
    machine.registry.add(NIC, machine.device(7)).unwrap();
    let new = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[Member::at(NIC, slot)], Owner::Guest(GUEST)).unwrap();
    assert_eq!(new.lock(slot).unwrap().register, 7);
    assert!(old.lock(slot).is_err(), "the same slot, address and number, another guest");
}
