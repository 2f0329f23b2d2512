//! Long-lived holders by name.

use std::time::Duration;

use pcidevs::{Hold, Holder};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ledger::Note;
use super::statistics::Statistics;
use super::world::{Kept, World};

const NAMES: [&str; 3] = ["vfio fd", "backend", "snapshot writer"];
const REST: Duration = Duration::from_micros(200);

/// A named hold that is written down.
struct Written {
    hold: Option<Hold<Kept>>,
    note: Note,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.note.let_go();
        self.hold.take();
    }
}

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut held: Vec<Written> = Vec::new();
    while world.runs() {
        let name = NAMES[random.random_range(0..NAMES.len())];
        held.extend(hold(world, world.any(&mut random), Holder::Named(name)));
        if held.len() > 1 + world.plan().len() / 8 {
            held.swap_remove(random.random_range(0..held.len()));
        }
        std::thread::sleep(REST);
    }
    Statistics::default()
}

/// Holds a device, unless it is not there or on its way out.
fn hold(world: &World, place: usize, holder: Holder) -> Option<Written> {
    let note = world.books().note(place, holder);
    let hold = world.machine().hold(world.address(place), holder).ok().flatten()?;
    note.have();
    Some(Written { hold: Some(hold), note })
}
