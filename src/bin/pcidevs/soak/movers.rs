//! Those who use and move devices: the devices themselves, the administrator, the backends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pcidevs::{DomainId, Holder, Member, MoveError, Owner, Transition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ledger::Ticket;
use super::model::Link;
use super::statistics::Statistics;
use super::world::World;

/// How long those rest who would otherwise take the processors from the vCPUs.
const REST: Duration = Duration::from_micros(50);

/// Devices act: a reference, the owner under the device lock, then the DMA or the interrupt.
pub(crate) fn device(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        for _ in 0..32 {
            let what = if random.random() { "a DMA" } else { "an interrupt" };
            statistics.acts += u64::from(act(world, what, &mut random));
        }
        std::thread::sleep(REST);
    }
    statistics
}

fn act(world: &World, what: &str, random: &mut SmallRng) -> bool {
    let Some(handle) = world.machine().get(world.address(world.any(random))) else { return false };
    let Ok(device) = handle.lock() else { return false };
    let life = std::sync::Arc::clone(&device.life);
    // From here on the handle certainly exists, until the subtraction below.
    life.handles.fetch_add(1, Ordering::SeqCst);
    world.check_inside(what, &device, device.owner());
    drop(device);
    if random.random_ratio(1, 16) {
        std::thread::yield_now();
    }
    life.handles.fetch_sub(1, Ordering::SeqCst);
    drop(handle);
    true
}

/// Long-lived holders by name.
pub(crate) fn backend(world: &World, seed: u64) -> Statistics {
    const NAMES: [&str; 3] = ["vfio fd", "backend", "snapshot writer"];
    let mut random = SmallRng::seed_from_u64(seed);
    let mut held: Vec<Link> = Vec::new();
    while world.runs() {
        let name = NAMES[random.random_range(0..NAMES.len())];
        held.extend(Link::new(world, world.any(&mut random), Holder::Named(name)));
        if held.len() > 1 + world.functions() / 8 {
            held.swap_remove(random.random_range(0..held.len()));
        }
        std::thread::sleep(REST * 4);
    }
    Statistics::default()
}

/// Moves devices, and the set that belongs together, between owners.
pub(crate) fn administrator(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    let bundle = world.bundle();
    while world.runs() {
        let to = owner(world, &mut random);
        if !bundle.is_empty() && random.random_ratio(1, 8) {
            relocate(world, &bundle, to, &mut statistics);
        } else {
            let mut set: Vec<_> = (0..random.random_range(1..=3)).map(|_| world.any(&mut random)).collect();
            set.retain(|place| !world.is_bundled(*place));
            set.sort_unstable();
            set.dedup();
            relocate(world, &set, to, &mut statistics);
        }
        std::thread::sleep(REST);
    }
    statistics
}

fn owner(world: &World, random: &mut SmallRng) -> Owner {
    match random.random_range(0..8) {
        0 => Owner::Host,
        1 => Owner::Quarantine,
        _ => Owner::Guest(world.guests()[random.random_range(0..world.guests().len())].id()),
    }
}

fn relocate(world: &World, set: &[usize], to: Owner, statistics: &mut Statistics) {
    let books = world.books();
    let mut notes = Vec::new();
    for place in set {
        world.intend(*place, to);
        for holder in stands_in_the_way(to) {
            notes.push((*place, books.ledger(*place).ask(&books.clock, holder)));
        }
    }
    let members: Vec<_> = set.iter().map(|place| Member::new(world.address(*place))).collect();
    let moved = world.machine().move_devices(&members, to);
    for place in set {
        world.arrived(*place, moved.is_ok().then_some(to));
    }
    settle_notes(world, &notes, set, to, moved.is_ok());
    match moved {
        Ok(()) => statistics.moves += 1,
        Err(MoveError::Busy(..) | MoveError::NotFound(_) | MoveError::Gone(_) | MoveError::NoFreeSlot) => {
            statistics.moves_refused += 1;
        }
        Err(error) => world.violation(format_args!("a move to {to}: {error}")),
    }
}

/// The names under which a move to this owner may keep a device from being removed.
fn stands_in_the_way(to: Owner) -> Vec<Holder> {
    let kind = match to {
        Owner::Host => Transition::Deassign,
        Owner::Quarantine => Transition::Quarantine,
        _ => Transition::Assign,
    };
    let assignment = match to {
        Owner::Guest(id) => Some(Holder::Domain(id)),
        _ => None,
    };
    [Some(Holder::Transition(kind)), assignment].into_iter().flatten().collect()
}

/// After a move: the transition is over, and so are the assignments to everyone but the owner. After one that
/// failed only its own notes are.
fn settle_notes(world: &World, notes: &[(usize, Ticket)], set: &[usize], to: Owner, moved: bool) {
    let books = world.books();
    if !moved {
        for (place, ticket) in notes {
            books.ledger(*place).rid(&books.clock, *ticket);
        }
        return;
    }
    for place in set {
        for kind in [Transition::Assign, Transition::Quarantine, Transition::Deassign] {
            books.ledger(*place).rid_of(&books.clock, Holder::Transition(kind));
        }
        for id in
            world.guests().iter().map(pcidevs::Domain::id).filter(|id: &DomainId| to != Owner::Guest(*id))
        {
            books.ledger(*place).rid_of(&books.clock, Holder::Domain(id));
        }
    }
}
