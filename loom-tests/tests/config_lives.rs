//! A card with a guest: its vCPUs program it and read it while it is taken away, comes back, is reset and goes.
//!
//! Too long for loom; shuttle runs the number of schedules that is stated.
#![cfg(shuttle)]

use std::sync::Arc;

use pcidevs::Errno;
use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{Fault, Hook, HookError, ResetKind, Width};
use pcidevs_loom::cards::{PLACES, RESET, World};
use pcidevs_loom::{ONE, schedule};
use shuttle::thread;

fn spawn(world: &Arc<World>, step: impl FnOnce(&World) + Send + 'static) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || step(&world))
}

/// Somebody else was faster; nothing has failed.
fn lost_the_race(result: Result<(), TransitionError>) {
    if let Err(error) = result {
        assert!(!matches!(error, TransitionError::Failed(_)), "{error}");
    }
}

#[test]
fn l23_two_vcpus_program_a_card_that_is_taken_away_and_comes_back() {
    schedule(4_000, || {
        let world = World::begin();
        let threads = [
            spawn(&world, |world| world.program(PLACES[0])),
            spawn(&world, |world| world.program(PLACES[1])),
            spawn(&world, World::interrupt),
            spawn(&world, |world| {
                lost_the_race(world.deassign());
                lost_the_race(world.assign());
            }),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.settled();
        lost_the_race(world.deassign());
        world.settled();
    });
}

#[test]
fn l23_a_card_is_reset_by_its_guest_and_by_the_host_and_goes() {
    schedule(4_000, || {
        let world = World::begin();
        let threads = [
            spawn(&world, |world| world.program(PLACES[0])),
            spawn(&world, |world| {
                world.interrupt();
                world.write(RESET, Width::Byte, 1);
            }),
            spawn(&world, |world| lost_the_race(world.machine.reset(ONE, ResetKind::Flr))),
            spawn(&world, |world| {
                lost_the_race(world.machine.report_gone(ONE));
                // Who cleared up after it may have been the transition that had it.
                world.machine.run_deferred();
            }),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.settled();
        assert!(world.machine.get(ONE).is_none());
    });
}

#[test]
fn l23_a_card_is_removed_while_it_is_programmed() {
    schedule(4_000, || {
        let world = World::begin();
        let threads = [
            spawn(&world, |world| world.program(PLACES[0])),
            spawn(&world, World::interrupt),
            spawn(&world, |world| {
                lost_the_race(world.deassign());
                match world.machine.remove_device(ONE) {
                    Ok(()) => assert!(world.machine.get(ONE).is_none()),
                    Err(TransitionError::Busy(..)) => {}
                    Err(error) => panic!("{error}"),
                }
            }),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.settled();
    });
}

#[test]
fn l23_a_card_that_its_guest_resets_is_taken_away_and_given_back_when_that_fails() {
    schedule(4_000, || {
        let world = World::begin();
        let error = HookError::new(Errno::EIO, "told to fail");
        world.machine.platform().fail_next(Hook::Reset, Fault::Error(error));
        let threads = [
            spawn(&world, |world| world.program(PLACES[0])),
            spawn(&world, |world| {
                world.interrupt();
                world.write(RESET, Width::Byte, 1);
                world.write(RESET, Width::Byte, 1);
            }),
            // Fails, or the guest's reset does.
            spawn(&world, |world| drop(world.deassign())),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.settled();
        // Whoever has it, it works.
        world.program(PLACES[1]);
        world.settled();
    });
}
