//! Looks after what is broken, waits, or is at its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{Entry, Platform};
use pcidevs::{DomainId, Holder, Member, Owner, Sbdf, Transition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::statistics::Statistics;
use super::transition::Outcome;
use super::world::{Domain, World};

const REST: Duration = Duration::from_micros(500);
/// One look in so many is a guest's last.
const DEATHS: u32 = 64;

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        run_deferred(world);
        mend(world, &mut statistics);
        acknowledge(world, &mut random);
        if random.random_ratio(1, DEATHS) {
            world.guests().condemn(world.any_guest(&mut random));
        }
        for id in world.guests().ids().filter(|id| world.guests().is_dying(*id)) {
            bury(world, id, &mut statistics);
        }
        std::thread::sleep(REST);
    }
    statistics
}

/// Everything that a transition of no particular device may claim.
fn everywhere(world: &World) -> Vec<usize> {
    (0..world.plan().len()).collect()
}

pub(crate) fn run_deferred(world: &World) -> usize {
    let notes = world.note(everywhere(world), &[Holder::Transition(Transition::Deassign)]);
    let left = world.machine().run_deferred();
    drop(notes);
    left
}

/// Repairs what is broken.
pub(crate) fn mend(world: &World, statistics: &mut Statistics) {
    let broken: Vec<_> = world.machine().devices().filter(|device| device.broken.is_some()).collect();
    for address in broken.iter().map(|device| device.status.address) {
        let Some(place) = world.plan().find(address) else { continue };
        if world.plan().at(place).bundled {
            world.split_bundle();
        }
        // A group that waited for the device goes back with it.
        let holders = [Transition::Repair, Transition::Deassign].map(Holder::Transition);
        let near = world.plan().near(&[place]);
        let repaired =
            world.transition(statistics, "repair", (&near, &holders), || world.machine().repair(address));
        if repaired == Outcome::Refused {
            block(world, address, statistics);
        }
    }
}

/// What the embedder does of its own to be certain that nothing of a broken device reaches memory.
fn block(world: &World, address: Sbdf, statistics: &mut Statistics) {
    // Whose entries must stay as they are. What is broken stays so: only this thread repairs.
    let whole: Vec<_> = (0..world.plan().len()).filter(|place| !is_broken(world, *place)).collect();
    let Ok(device) = world.machine().lock(address) else { return };
    // Nobody moves it or takes it away while its lock is held.
    if device.broken().is_none() || device.is_claimed() {
        return;
    }
    let (shared, own): (Vec<_>, Vec<_>) = device
        .requesters()
        .iter()
        .partition(|id| sharing(world, address, **id).any(|place| whole.contains(&place)));
    let platform = world.platform();
    // One that fails is tried again, with the repair.
    let _again = catch_unwind(AssertUnwindSafe(|| {
        own.iter().try_for_each(|requester| platform.iommu_block(address, *requester))?;
        platform.iommu_flush(address)
    }));
    drop(device);
    let mut siblings: Vec<_> = shared.iter().flat_map(|id| sharing(world, address, *id)).collect();
    siblings.sort_unstable();
    siblings.dedup();
    take_away(world, &siblings, statistics);
}

fn is_broken(world: &World, place: usize) -> bool {
    world.machine().status(world.address(place)).is_some_and(|status| status.broken.is_some())
}

/// Other devices that have this requester ID. Bridges only forward, and their own ID may be the alias.
fn sharing(world: &World, address: Sbdf, requester: Sbdf) -> impl Iterator<Item = usize> {
    (0..world.plan().len()).filter(move |place| {
        let life = world.life(*place).filter(|life| life.address != address);
        let life = life.filter(|_| !world.plan().at(*place).bridge);
        life.is_some_and(|life| life.requesters.get().is_some_and(|ids| ids.contains(&requester)))
    })
}

/// Blocks what is shared with a broken device by moving the others, which move together, out of everybody's reach.
fn take_away(world: &World, places: &[usize], statistics: &mut Statistics) {
    let owner = |place: usize| {
        let device = world.machine().lock(world.address(place)).ok()?;
        device.broken().is_none().then(|| device.owner())
    };
    let Some(from) = places.iter().find_map(|place| owner(*place)) else { return };
    let theirs = places.iter().copied().filter(|place| owner(*place) == Some(from));
    let set: Vec<_> = theirs.map(|place| Member::new(world.address(place))).collect();
    let near = world.plan().near(places);
    let holders = [Holder::Transition(Transition::Deassign), Holder::Transition(Transition::Quarantine)];
    world.transition(statistics, "quarantine", (&near, &holders), || match from {
        Owner::Host => world.machine().quarantine(&set),
        from => world.machine().deassign(&set, from),
    });
}

/// Guests notice after a while that something of theirs is gone.
fn acknowledge(world: &World, random: &mut SmallRng) {
    let Some((_, guest)) = world.enter(world.any_guest(random)) else { return };
    for place in 0..u16::try_from(world.plan().len()).unwrap_or(u16::MAX).min(64) {
        let at = Sbdf::from_bdf(pcidevs::address::Segment::default(), place << 3);
        if let Err(error) = guest.acknowledge_gone(at) {
            world.violation(format_args!("acknowledging {at}: {error}"));
        }
    }
}

/// Releases a guest that dies, and makes the next one of its number.
///
/// Until that succeeds the guest is dying; why it did not.
pub(crate) fn bury(world: &World, id: DomainId, statistics: &mut Statistics) -> Option<TransitionError> {
    let old = world.machine().domain(id);
    let holders = [Holder::Transition(Transition::Deassign)];
    let places = everywhere(world);
    let mut why = None;
    let released = world.transition(statistics, "release", (&places, &holders), || {
        world.machine().release_domain(id).inspect_err(|error| why = Some(error.clone()))
    });
    if released != Outcome::Ok {
        return why;
    }
    statistics.domain_deaths += 1;
    if let Some(old) = old {
        check_dead(world, &old);
    }
    world.guests().begin_life(id);
    if let Err(error) = world.machine().create_domain(id) {
        world.violation(format_args!("the number of a released guest: {error}"));
    }
    None
}

/// Nothing is left of a guest: no list, no address, no device that reaches its memory.
fn check_dead(world: &World, guest: &Domain) {
    let id = guest.id();
    if guest.devices().is_ok_and(|devices| !devices.is_empty()) || world.machine().domain(id).is_some() {
        world.violation(format_args!("domain {id} was released and still has devices"));
    }
    for place in 0..256 {
        let at = Sbdf::from_bdf(pcidevs::address::Segment::default(), place << 3);
        if guest.lock(at).is_ok() {
            world.violation(format_args!("domain {id} was released and still reaches {at}"));
        }
    }
    for place in 0..world.plan().len() {
        let Ok(device) = world.machine().lock(world.address(place)) else { continue };
        for requester in device.requesters() {
            if world.platform().entry(*requester) == Entry::Attached(Owner::Guest(id)) {
                let address = device.address();
                world.violation(format_args!("domain {id} was released and {address} reaches its memory"));
            }
        }
    }
}
