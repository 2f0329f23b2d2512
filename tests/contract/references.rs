//! References and handles: R1 to R8 and R10.

use std::ptr::NonNull;

use pcidevs::{AccessError, Handle, Holder, Owner, Phase, RemoveError, Sbdf};

use crate::{DISK, Device, GUEST, Machine, NIC, at};

#[test]
fn r1_a_device_is_born_with_its_creation_reference_only() {
    let machine = Machine::with(&[NIC]);
    let status = machine.registry.status(NIC).unwrap();
    assert_eq!((status.uses, status.unnamed, status.phase), (0, 0, Phase::Live));
    assert_eq!(status.owner, Some(Owner::Host));
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn r2_every_use_is_counted_and_long_lived_ones_are_named() {
    let machine = Machine::with(&[NIC]);
    let plain = machine.registry.get(NIC).unwrap();
    let backend = machine.registry.hold(NIC, Holder::Named("backend")).unwrap().unwrap();
    let vf = machine.registry.hold(NIC, Holder::Vf(DISK)).unwrap().unwrap();
    let Err(RemoveError::Busy(mut busy)) = machine.registry.remove_device(NIC) else { panic!("in use") };
    busy.holders.sort_by_key(ToString::to_string);
    assert_eq!((busy.uses, busy.unnamed, busy.truncated), (3, 1, false));
    assert_eq!(busy.holders, [Holder::Vf(DISK), Holder::Named("backend")]);
    assert_eq!(busy.to_string(), "in use: 3 references, held by VF 0000:04:00.0, backend, 1 unnamed");
    drop((plain, backend, vf));
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn r2_the_assignment_is_a_use_that_moves_with_the_owner() {
    let machine = Machine::with(&[NIC]);
    for domain in [GUEST, crate::OTHER] {
        machine.registry.create_domain(domain).unwrap();
        machine.registry.move_devices(&[NIC.into()], Owner::Guest(domain)).unwrap();
        let status = machine.registry.status(NIC).unwrap();
        assert_eq!((status.uses, status.holders), (1, vec![Holder::Domain(domain)]));
    }
    machine.registry.move_devices(&[NIC.into()], Owner::Host).unwrap();
    assert_eq!(machine.registry.status(NIC).unwrap().uses, 0);
}

#[test]
fn r3_get_is_refused_once_removal_has_begun_and_leaves_no_trace() {
    let machine = Machine::with(&[NIC]);
    let ticket = machine.registry.begin_removal(NIC).unwrap();
    for _ in 0..1000 {
        assert!(machine.registry.get(NIC).is_none());
        assert!(machine.registry.hold(NIC, Holder::Named("late")).unwrap().is_none());
    }
    ticket.cancel().unwrap();
    assert_eq!(machine.registry.status(NIC).unwrap().uses, 0);
    machine.registry.remove_device(NIC).unwrap();
    for _ in 0..1000 {
        assert!(machine.registry.get(NIC).is_none());
    }
    machine.registry.add(NIC, machine.device(1)).unwrap();
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn r5_clone_is_a_get_and_drop_is_a_put_by_either_name() {
    let machine = Machine::with(&[NIC]);
    let uses = || machine.registry.status(NIC).unwrap().uses;
    let first = machine.registry.get(NIC).unwrap();
    let second = first.clone();
    let third = second.get();
    assert_eq!(uses(), 3);
    third.put();
    drop(second);
    assert_eq!(uses(), 1);
    let ticket = machine.registry.begin_removal(NIC).unwrap();
    let cloned_while_removing = first.clone();
    assert_eq!(ticket.busy().unwrap().uses, 2);
    drop((first, cloned_while_removing));
    assert!(ticket.busy().is_none());
}

#[test]
#[expect(unsafe_code, reason = "the raw pair is for C callers")]
fn r5_a_raw_pair_carries_the_count_through_c() {
    let machine = Machine::with(&[NIC]);
    let raw: NonNull<()> = machine.registry.get(NIC).unwrap().into_raw();
    assert_eq!(machine.registry.status(NIC).unwrap().uses, 1);
    // SAFETY: from `into_raw` above, taken back once.
    let handle: Handle<Device> = unsafe { Handle::from_raw(raw) };
    assert_eq!(handle.address(), NIC);
    drop(handle);
    machine.registry.remove_device(NIC).unwrap();
}

#[test]
fn r6_a_guest_needs_no_reference_but_the_device_and_its_address() {
    let machine = Machine::with(&[NIC, DISK]);
    let guest = machine.registry.create_domain(GUEST).unwrap();
    machine.registry.move_devices(&[DISK.into()], Owner::Guest(GUEST)).unwrap();
    assert_eq!(guest.lock(at("00:00.0")).unwrap().register, 1);
    assert_eq!(machine.registry.status(DISK).unwrap().uses, 1, "the assignment, no more");
    for elsewhere in ["00:01.0", "00:00.1", "01:00.0", "0001:00:00.0", "03:00.0", "04:00.0"] {
        assert_eq!(guest.lock(at(elsewhere)).err(), Some(AccessError::NotFound), "{elsewhere}");
    }
}

#[test]
fn r7_a_weak_handle_keeps_nothing_and_never_names_the_next_device() {
    let machine = Machine::with(&[NIC]);
    let weak = machine.registry.get(NIC).unwrap().downgrade();
    let listed = machine.registry.devices_of(Owner::Host).unwrap().unwrap();
    assert!(weak.upgrade().is_some());
    machine.registry.remove_device(NIC).unwrap();
    assert!(weak.upgrade().is_none());
    machine.registry.add(NIC, machine.device(7)).unwrap();
    assert!(weak.upgrade().is_none(), "another device at the same address");
    assert!(listed.iter().all(|device| device.upgrade().is_none()));
    assert_eq!(weak.address(), NIC);
}

#[test]
fn r8_handles_are_send_and_sync() {
    fn everywhere<T: Send + Sync>() {}
    everywhere::<pcidevs::Handle<Device>>();
    everywhere::<pcidevs::Hold<Device>>();
    everywhere::<pcidevs::Weak<Device>>();
    everywhere::<pcidevs::Devices<Device>>();
    everywhere::<pcidevs::Domain<Device>>();
    everywhere::<pcidevs::Registry<Device>>();
    everywhere::<pcidevs::RemovalTicket<Device>>();
    // A cell may be sent, not shared: under its own lock that is enough.
    everywhere::<pcidevs::Handle<std::cell::Cell<u32>>>();
}

#[test]
fn r8_a_guard_of_the_device_lock_is_not_send() {
    // Ambiguous, and so a compile error, if `Locked` were `Send`.
    trait NotSend<A> {
        fn check() {}
    }
    struct IfSend;
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<IfSend> for T {}
    <pcidevs::Locked<'_, u32> as NotSend<_>>::check();
}

#[test]
fn r10_a_dump_shows_count_holders_and_owner() {
    let machine = Machine::with(&[NIC, DISK]);
    let _held = machine.registry.hold(DISK, Holder::Named("snapshot")).unwrap().unwrap();
    let shown: Vec<_> = machine
        .registry
        .devices()
        .map(|status| (status.address, status.uses, status.unnamed, status.holders, status.owner))
        .collect();
    let host = Some(Owner::Host);
    assert_eq!(shown, [(NIC, 0, 0, vec![], host), (DISK, 1, 0, vec![Holder::Named("snapshot")], host)]);
}

#[test]
fn holders_are_displayed_in_the_words_of_the_contract() {
    use pcidevs::Transition;
    let shown = |holder: Holder| holder.to_string();
    assert_eq!(shown(Holder::Domain(GUEST)), "assigned to domain 1");
    assert_eq!(shown(Holder::DmaOf(GUEST)), "DMA of domain 1");
    assert_eq!(shown(Holder::DmaTeardown), "dma teardown");
    assert_eq!(shown(Holder::Transition(Transition::Assign)), "transition: assign");
    assert_eq!(shown(Holder::Named("vfio fd")), "vfio fd");
}

#[test]
fn segments_of_32_bits_are_told_apart() {
    let addresses: Vec<Sbdf> = [0, 1, 0xf, 0x10, 0xffff, 0x1_0000, 0x1_0001, u32::MAX]
        .map(|s| at(&format!("{s:04x}:e1:00.0")))
        .to_vec();
    let machine = Machine::with(&addresses);
    for (address, register) in addresses.iter().zip(0..) {
        assert_eq!(machine.registry.lock(*address).unwrap().register, register);
    }
    assert!(machine.registry.devices().map(|status| status.address).eq(addresses.iter().copied()));
    assert!(machine.registry.lock(at("0002:e1:00.0")).is_err());
}
