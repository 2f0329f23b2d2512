//! Devices that depend on each other, and what comes between them: virtual functions, groups, bridges, guests that end.
//!
//! Too long for loom; shuttle runs the number of schedules that is stated at each model.
#![cfg(shuttle)]

use pcidevs::lifecycle::{TransitionError, Unplug};
use pcidevs::platform::{AttachmentKind, Fault, Hook, HookError};
use pcidevs::{DomainId, Errno, Holder, Member, Owner, Sbdf, TicketError};
use pcidevs_loom::machine::{owner, reaches, settled_at};
use pcidevs_loom::world::{ALL, BEHIND, BEHIND_TWO, BRIDGE, PF, TWIN, TWIN_TWO, VF, VF_TWO, World};
use pcidevs_loom::{GUEST, OTHER, schedule};
use shuttle::thread;

fn set(devices: &[Sbdf]) -> Vec<Member> {
    devices.iter().map(|at| Member::new(*at)).collect()
}

fn assign(world: &World, devices: &[Sbdf], guest: DomainId) -> Result<(), TransitionError> {
    world.machine.assign(&set(devices), guest)
}

fn deassign(world: &World, devices: &[Sbdf], guest: DomainId) -> Result<(), TransitionError> {
    world.machine.deassign(&set(devices), Owner::Guest(guest))
}

/// Somebody else was faster; nothing has failed.
fn lost_the_race<T>(result: Result<T, TransitionError>) {
    if let Err(error) = result {
        assert!(!matches!(error, TransitionError::Failed(_)), "{error}");
    }
}

/// The virtual functions come again while their function is removed, or goes, and one of them is to go to a guest.
#[test]
fn l9_l21_virtual_functions_come_while_their_function_leaves() {
    schedule(5_000, || {
        let world = World::begin();
        for vf in [VF, VF_TWO] {
            world.machine.remove_device(vf).expect("unused");
        }
        let adders = [VF, VF_TWO].map(|vf| world.spawn(move |world| world.add(vf)));
        let assigner = world.spawn(|world| assign(world, &[VF], GUEST));
        let remover = world.spawn(|world| world.machine.remove_device(PF));
        let reporter = world.spawn(|world| world.machine.report_gone(PF));
        for (vf, adder) in [VF, VF_TWO].into_iter().zip(adders) {
            match adder.join().unwrap() {
                Ok(new) => assert!(new, "{vf} was not known"),
                Err(TransitionError::NoPf { .. } | TransitionError::Gone(_)) => {}
                Err(error) => panic!("{vf}: {error}"),
            }
        }
        lost_the_race(assigner.join().unwrap());
        let left =
            [remover.join().unwrap(), reporter.join().unwrap()].iter().filter(|left| left.is_ok()).count();
        assert!(left >= 1, "the hardware is not there any more");
        for function in [PF, VF, VF_TWO] {
            assert_eq!(owner(&world.machine, function), None, "{function}");
        }
        world.end();
    });
}

/// Some of a card have closed when the rest turns out to be gone.
#[test]
fn l21_a_card_is_removed_while_its_physical_function_goes() {
    schedule(5_000, || {
        let world = World::begin();
        let remover = world.spawn(|world| world.machine.remove_slot(PF));
        world
            .machine
            .report_gone(PF)
            .or_else(|error| match error {
                TransitionError::NotFound(_) => Ok(()),
                error => Err(error),
            })
            .expect("known, or removed");
        lost_the_race(remover.join().unwrap());
        for function in [PF, VF, VF_TWO] {
            assert_eq!(owner(&world.machine, function), None, "{function}");
        }
        world.end();
    });
}

/// A group goes to a guest, a set that overlaps it to another one, and somebody looks; then it goes back one by one.
#[test]
fn l16_l20_a_group_moves_whole_and_goes_back_whole() {
    schedule(5_000, || {
        let world = World::begin();
        let rivals: [(&[Sbdf], _); 2] = [(&[TWIN, TWIN_TWO], GUEST), (&[PF, TWIN_TWO], OTHER)];
        let movers = rivals.map(|(set, guest)| world.spawn(move |world| assign(world, set, guest).is_ok()));
        let observers = rivals.map(|(set, guest)| {
            world.spawn(move |world| {
                let owner = Owner::Guest(guest);
                let devices = world.machine.devices_of(owner).expect("memory").expect("exists");
                let listed: Vec<_> = devices.iter().map(|device| device.address()).collect();
                assert!(listed.is_empty() || listed == set, "{guest} sees {listed:?} of {set:?}");
                let seen = world.machine.lock(set[0]).expect("known").owner() == owner;
                assert!(
                    !seen || world.machine.lock(set[1]).expect("known").owner() == owner,
                    "half of {set:?}"
                );
            })
        });
        let moved = movers.map(|mover| mover.join().unwrap());
        for observer in observers {
            observer.join().unwrap();
        }
        assert!(moved[0] != moved[1], "one of them has it: {moved:?}");
        let (set, guest) = if moved[0] { rivals[0] } else { rivals[1] };
        let backs = [set[0], set[1]].map(|at| world.spawn(move |world| deassign(world, &[at], guest)));
        let given = backs.map(|back| back.join().unwrap().is_ok());
        for (at, _) in set.iter().zip(given).filter(|(_, given)| !given) {
            deassign(&world, &[*at], guest).expect("nobody else is left");
        }
        assert_eq!(world.machine.run_deferred(), 0);
        for at in set {
            assert_eq!(owner(&world.machine, *at), Some(Owner::Host), "{at}");
        }
        world.end();
    });
}

/// A guest ends, for two who end it, while others give it devices and take them.
#[test]
fn l12_a_guest_ends_while_devices_come_to_it() {
    schedule(5_000, || {
        let world = World::begin();
        assign(&world, &[PF], GUEST).expect("assigned");
        let ends = [(); 2].map(|()| world.spawn(|world| world.release(GUEST)));
        let sets: [&[Sbdf]; 2] = [&[TWIN, TWIN_TWO], &[BEHIND, BEHIND_TWO]];
        let givers = sets.map(|set| world.spawn(move |world| assign(world, set, GUEST).map(|()| set)));
        let ended = ends.map(|end| end.join().unwrap().is_ok());
        let given = givers.map(|giver| giver.join().unwrap().unwrap_or_default());
        if ended == [false; 2] {
            // What came in between is still there, or was taken back before the rest could be.
            world.release(GUEST).expect("nobody else is left");
        }
        for at in given.into_iter().flatten() {
            let owner = owner(&world.machine, *at).expect("known");
            assert!([Owner::Host, Owner::Guest(GUEST)].contains(&owner), "{at} is with {owner}");
        }
        settled_at(&world.machine, &ALL);
        world.end();
    });
}

/// The removal of a guest's device, which the guest uses, gives back, and loses.
#[test]
fn l17_l19_a_ticket_and_whatever_else_happens_to_its_device() {
    schedule(5_000, || {
        let world = World::begin();
        assign(&world, &[VF], GUEST).expect("assigned");
        let backend = world.spawn(|world| {
            let hold = world.machine.hold(VF, Holder::Named("backend")).expect("memory");
            if let Some(mut device) = hold.as_ref().and_then(|hold| hold.lock().ok()) {
                device.register ^= 0x100;
                device.register ^= 0x100;
            }
        });
        let guest = world.spawn(|world| {
            world.machine.request_unplug(VF).and_then(|()| world.machine.unplug_answered(VF, Unplug::Acked))
        });
        let reporter = world.spawn(|world| {
            thread::yield_now();
            world.machine.report_gone(VF)
        });
        let ticket = match world.machine.begin_removal(VF) {
            Ok(ticket) => Some(shuttle::future::block_on(ticket)),
            Err(error) => {
                lost_the_race::<()>(Err(error));
                None
            }
        };
        backend.join().unwrap();
        lost_the_race(guest.join().unwrap());
        let gone = reporter.join().unwrap();
        match ticket {
            Some(Ok(())) => {}
            Some(Err(TransitionError::Ticket(TicketError::Gone) | TransitionError::Gone(_))) | None => {
                gone.expect("it left in one of two ways");
            }
            Some(Err(error)) => panic!("{error}"),
        }
        assert_eq!(owner(&world.machine, VF), None);
        world.end();
    });
}

/// A bridge goes with all that is behind it, which is on its way to a guest, and back.
#[test]
fn l18_a_bridge_goes_while_what_is_behind_it_moves() {
    schedule(5_000, || {
        let world = World::begin();
        let mover = world.spawn(|world| {
            let moved = assign(world, &[BEHIND, BEHIND_TWO], GUEST);
            moved.and_then(|()| deassign(world, &[BEHIND, BEHIND_TWO], GUEST))
        });
        let remover = world.spawn(|world| world.machine.remove_subtree(BRIDGE));
        let ender = world.spawn(|world| world.release(GUEST));
        let gone = world.machine.report_gone(BRIDGE);
        lost_the_race(mover.join().unwrap());
        lost_the_race(ender.join().unwrap());
        if remover.join().unwrap().is_err() {
            gone.expect("it left in one of two ways");
        }
        for at in [BRIDGE, BEHIND, BEHIND_TWO] {
            assert_eq!(owner(&world.machine, at), None, "{at}");
        }
        world.end();
    });
}

/// Vectors, the MSI-X table, translations that time out: of a device that changes hands, and leaves.
#[test]
fn l10_l11_interrupts_and_translations_of_a_device_that_changes_hands() {
    schedule(5_000, || {
        let world = World::begin();
        let mover = world.spawn(|world| {
            lost_the_race(assign(world, &[PF], GUEST));
            lost_the_race(deassign(world, &[PF], GUEST));
        });
        let host = world.spawn(|world| {
            lost_the_race(world.machine.msi_prepare(PF));
            lost_the_race(world.machine.msi_release(PF));
        });
        let guest = world.spawn(|world| {
            let domain = world.machine.domain(GUEST).expect("exists");
            if let Ok(mut device) = domain.lock(Sbdf::from_u32(0)) {
                assert_eq!(reaches(&world.machine, PF), Some(Owner::Guest(GUEST)), "seen, so attached");
                let vector = world.vectors.attachment(AttachmentKind::MsiVector);
                if device.attach(vector).is_err() {
                    world.vectors.give_back();
                }
            }
        });
        let iommu = world.spawn(|world| lost_the_race(world.machine.report_flush_timeout(PF)));
        lost_the_race(world.machine.remove_slot(PF));
        mover.join().unwrap();
        host.join().unwrap();
        guest.join().unwrap();
        iommu.join().unwrap();
        world.end();
    });
}

/// The undo of an assignment fails while its guest ends: its memory is not free before the DMA is blocked.
#[test]
fn r11_a_guest_does_not_end_while_a_broken_device_may_reach_it() {
    const FAILS: Fault = Fault::Error(HookError::new(Errno::EIO, "as the test asked"));
    schedule(5_000, || {
        let world = World::begin();
        let platform = world.machine.platform();
        // What comes after the attachment fails, and so does blocking again.
        platform.fail_next(Hook::Bind, FAILS);
        let giver = world.spawn(|world| assign(world, &[VF], GUEST));
        let clumsy = world.spawn(|world| world.machine.platform().fail_every(Hook::IommuBlock, FAILS));
        let doctor = world.spawn(|world| world.machine.repair(VF));
        let ended = world.release(GUEST);
        giver.join().unwrap().expect_err("it cannot be seen");
        clumsy.join().unwrap();
        let repaired = doctor.join().unwrap();
        assert!(repaired.is_err(), "nobody has blocked its DMA");
        let guest = Owner::Guest(GUEST);
        if reaches(&world.machine, VF) == Some(guest) {
            assert_eq!(owner(&world.machine, VF), Some(guest), "its DMA keeps the guest");
            ended.and_then(|()| world.machine.release_domain(GUEST)).expect_err("not before it is blocked");
        }
        world.end();
    });
}
