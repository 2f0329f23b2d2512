//! Published registers: read without the lock, by whom a locked access would let in (R3, R6, R7).

use pcidevs::{Member, Owner};

use crate::{DISK, GPU, GUEST, Machine, NIC, OTHER, at};

#[test]
fn what_is_published_is_read_and_nothing_else() {
    let machine = Machine::with(&[NIC, DISK]);
    assert_eq!(machine.registry.read_published(NIC, 0), None, "nothing yet");
    machine.registry.lock(NIC).unwrap().publish(&[0x8086, 7]).unwrap();
    let read = |register| machine.registry.read_published(NIC, register);
    assert_eq!([read(0), read(1), read(2), read(usize::MAX)], [Some(0x8086), Some(7), None, None]);
    assert_eq!(machine.registry.read_published(DISK, 0), None);
    assert_eq!(machine.registry.read_published(GPU, 0), None, "never added");
}

#[test]
fn a_register_is_set_one_by_one_and_all_are_replaced() {
    let machine = Machine::with(&[NIC]);
    let mut device = machine.registry.lock(NIC).unwrap();
    assert!(!device.set_published(0, 1), "not published");
    device.publish(&[1, 2]).unwrap();
    assert!(device.set_published(1, 3) && !device.set_published(2, 3));
    let read = |register| machine.registry.read_published(NIC, register);
    assert_eq!([read(0), read(1)], [Some(1), Some(3)], "also while the device is locked");
    device.publish(&[4]).unwrap();
    assert_eq!([read(0), read(1)], [Some(4), None]);
    assert!(!device.set_published(1, 3), "there is room, but it is not published");
    device.publish(&[5; 1024]).unwrap();
    assert_eq!(read(1023), Some(5));
    device.publish(&[]).unwrap();
    assert_eq!(read(0), None);
    device.publish(&[6]).unwrap();
    device.unpublish();
    assert_eq!(read(0), None);
}

#[test]
fn r6_only_the_guest_that_has_the_device_reads_it_and_where_it_sees_it() {
    let machine = Machine::with(&[NIC, DISK]);
    let [guest, other] = [GUEST, OTHER].map(|id| machine.registry.create_domain(id).unwrap());
    machine.registry.lock(NIC).unwrap().publish(&[9]).unwrap();
    let seen = at("00:04.0");
    machine.registry.move_devices(&[Member::at(NIC, seen)], Owner::Guest(GUEST)).unwrap();
    let read = || [guest.read_published(seen, 0), other.read_published(seen, 0)];
    assert_eq!(read(), [Some(9), None]);
    assert_eq!(guest.read_published(NIC, 0), None, "the host's address means nothing to it");
    assert_eq!(machine.registry.read_published(NIC, 0), Some(9), "the host reads any");
    machine.registry.move_devices(&[Member::at(NIC, seen)], Owner::Guest(OTHER)).unwrap();
    assert_eq!(read(), [None, Some(9)]);
    machine.registry.move_devices(&[NIC.into()], Owner::Host).unwrap();
    assert_eq!(read(), [None, None]);
}

#[test]
fn r6_the_next_guest_of_a_number_reads_nothing_of_the_last_ones() {
    let machine = Machine::with(&[NIC]);
    let last = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.destroy_domain(GUEST).unwrap();
    let next = machine.registry.create_domain(GUEST).unwrap();
    let seen = at("00:00.0");
    machine.registry.lock(NIC).unwrap().publish(&[1]).unwrap();
    machine.registry.move_devices(&[Member::at(NIC, seen)], Owner::Guest(GUEST)).unwrap();
    assert_eq!((last.read_published(seen, 0), next.read_published(seen, 0)), (None, Some(1)));
}

#[test]
fn r3_after_remove_nothing_is_read_and_the_next_device_starts_with_nothing() {
    let machine = Machine::with(&[NIC]);
    machine.registry.lock(NIC).unwrap().publish(&[1]).unwrap();
    machine.registry.remove_device(NIC).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), None);
    machine.registry.add(NIC, machine.device(2)).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), None);
    machine.registry.lock(NIC).unwrap().publish(&[2]).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), Some(2));
}

#[test]
fn r3_a_removal_that_is_refused_or_pending_takes_nothing_away() {
    let machine = Machine::with(&[NIC]);
    machine.registry.lock(NIC).unwrap().publish(&[1]).unwrap();
    let handle = machine.registry.get(NIC).unwrap();
    machine.registry.remove_device(NIC).unwrap_err();
    assert_eq!(machine.registry.read_published(NIC, 0), Some(1));
    let mut ticket = machine.registry.begin_removal(NIC).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), Some(1), "as a locked access");
    drop(handle);
    assert!(ticket.try_complete().unwrap());
    assert_eq!(machine.registry.read_published(NIC, 0), None);
}

#[test]
fn r7_after_gone_nothing_is_read_while_somebody_still_holds_the_device() {
    let machine = Machine::with(&[NIC]);
    machine.registry.lock(NIC).unwrap().publish(&[1]).unwrap();
    let _held = machine.registry.get(NIC).unwrap();
    machine.registry.report_gone(NIC).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), None);
    machine.registry.add(NIC, machine.device(2)).unwrap();
    assert_eq!(machine.registry.read_published(NIC, 0), None, "the new device's slot is another one");
}

#[test]
fn a_move_that_does_not_happen_shows_it_where_it_was() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    let seen = at("00:00.0");
    for device in [NIC, DISK] {
        machine.registry.lock(device).unwrap().publish(&[1]).unwrap();
    }
    machine.registry.move_devices(&[Member::at(NIC, seen)], Owner::Guest(GUEST)).unwrap();
    machine.registry.move_devices(&[Member::at(DISK, seen)], Owner::Guest(GUEST)).unwrap_err();
    assert_eq!(guest.read_published(seen, 0), Some(1));
    assert_eq!(machine.registry.read_published(DISK, 0), Some(1));
}
