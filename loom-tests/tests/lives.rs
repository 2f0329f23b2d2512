//! Whole lives at once: threads that do what comes to their minds, on devices that depend on each other.
//!
//! Too long for loom. shuttle runs the number of schedules that is stated at each model. Afterwards nothing may be half
//! done, and everything can be brought to its end: see `settled_at` and `World::end`.
#![cfg(shuttle)]

use pcidevs_loom::deeds::{ANYTHING, HOTPLUG, MOVES, TRAFFIC};
use pcidevs_loom::schedule;
use pcidevs_loom::world::World;
use shuttle::rand::{Rng, thread_rng};

#[test]
fn l5_l6_l7_l9_l12_l20_anything_by_three() {
    schedule(10_000, || World::begin().live(4, &[ANYTHING; 3]));
}

#[test]
fn l2_l8_l10_l11_guests_at_work_while_devices_move_and_go() {
    schedule(10_000, || World::begin().live(4, &[MOVES, MOVES, HOTPLUG, TRAFFIC]));
}

#[test]
fn l18_l19_l21_anything_by_four_with_hooks_that_fail() {
    schedule(10_000, || {
        let world = World::begin();
        world.machine.platform().fault_rate(thread_rng().r#gen(), 60);
        world.live(4, &[ANYTHING; 4]);
    });
}
