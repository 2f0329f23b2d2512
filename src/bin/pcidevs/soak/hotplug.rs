//! Takes devices away and brings them back, and holds every answer against what was so.

use std::time::{Duration, Instant};

use pcidevs::{Busy, Holder, RemoveError, TicketError, Transition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ledger::Tick;
use super::model::Life;
use super::statistics::Statistics;
use super::world::World;

const REST: Duration = Duration::from_micros(100);
/// How long a ticket waits for the last use.
const PATIENCE: Duration = Duration::from_millis(1);

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        let place = world.any(&mut random);
        if !world.is_bundled(place) {
            match random.random_range(0..16) {
                0..8 => at_once(world, place, &mut statistics),
                8..12 => by_ticket(world, place, true, &mut statistics),
                12..14 => by_ticket(world, place, false, &mut statistics),
                _ => lose(world, place, &mut statistics),
            }
        }
        acknowledge(world, &mut random);
        std::thread::sleep(REST);
    }
    statistics
}

fn at_once(world: &World, place: usize, statistics: &mut Statistics) {
    let life = world.life(place);
    let begun = world.books().clock.begin_checked_call();
    let removed = world.machine().remove_device(world.address(place));
    let ended = world.books().clock.tick();
    match removed {
        Ok(()) => {
            check_removed(world, &life, begun, ended);
            statistics.removals.ok += 1;
            add(world, place);
        }
        Err(RemoveError::Busy(busy)) => {
            check_busy(world, place, &busy, begun, ended, statistics);
            statistics.removals.busy += 1;
        }
        Err(error) => world.violation(format_args!("removing {}: {error}", world.address(place))),
    }
}

fn by_ticket(world: &World, place: usize, wait: bool, statistics: &mut Statistics) {
    let address = world.address(place);
    let life = world.life(place);
    let begun = world.books().clock.begin_checked_call();
    let mut ticket = match world.machine().begin_removal(address) {
        Ok(ticket) => ticket,
        Err(RemoveError::Busy(busy)) => {
            let ended = world.books().clock.tick();
            check_busy(world, place, &busy, begun, ended, statistics);
            statistics.removals.busy += 1;
            return;
        }
        Err(error) => return world.violation(format_args!("a ticket for {address}: {error}")),
    };
    if world.machine().get(address).is_some() {
        world.violation(format_args!("{address} was given to a new user while its removal was pending"));
    }
    let result = if wait { ticket.wait(Some(Instant::now() + PATIENCE)) } else { Err(TicketError::TimedOut) };
    match result {
        Ok(()) => {
            let ended = world.books().clock.tick();
            check_removed(world, &life, ended, ended);
            statistics.removals.ok += 1;
            add(world, place);
        }
        Err(TicketError::TimedOut) => {
            // What is in the way at this instant is in the way of a removal at once, too.
            if let Some(busy) = ticket.busy() {
                let ended = world.books().clock.tick();
                check_busy(world, place, &busy, begun, ended, statistics);
            }
            match ticket.cancel() {
                Ok(()) => statistics.removals.cancelled += 1,
                Err(error) => world.violation(format_args!("cancelling at {address}: {error}")),
            }
            if world.machine().get(address).is_none() {
                world.violation(format_args!("{address} was not given back by a cancelled removal"));
            }
        }
        Err(error) => world.violation(format_args!("the removal of {address}: {error}")),
    }
}

/// The card is pulled: the function and all behind it are gone, deepest first, and then plugged in again.
fn lose(world: &World, place: usize, statistics: &mut Statistics) {
    let subtree = world.subtree(place);
    if subtree.iter().any(|place| world.is_bundled(*place)) {
        return;
    }
    for place in &subtree {
        let life = world.life(*place);
        match world.machine().report_gone(world.address(*place)) {
            Ok(()) => life.end(),
            Err(error) => world.violation(format_args!("reporting {} gone: {error}", world.address(*place))),
        }
        world.books().ledger(*place).lose(&world.books().clock);
        statistics.removals.gone += 1;
    }
    for place in subtree.iter().rev() {
        add(world, *place);
    }
}

fn add(world: &World, place: usize) {
    if let Err(error) = world.add(place) {
        world.violation(format_args!("adding {}: {error}", world.address(place)));
    }
}

/// Guests notice after a while that something of theirs is gone.
fn acknowledge(world: &World, random: &mut SmallRng) {
    let guest = &world.guests()[random.random_range(0..world.guests().len())];
    for place in 0..u16::try_from(world.functions()).unwrap_or(u16::MAX).min(64) {
        let at = pcidevs::Sbdf::from_bdf(pcidevs::address::Segment::default(), place << 3);
        if let Err(error) = guest.acknowledge_gone(at) {
            world.violation(format_args!("acknowledging {at}: {error}"));
        }
    }
}

/// `Ok`: nobody had it, its destructor has run, and from now on nobody may reach it.
fn check_removed(world: &World, life: &Life, begun: Tick, ended: Tick) {
    life.end();
    let address = world.address(life.place);
    for holder in world.books().ledger(life.place).certain(begun, ended) {
        world.violation(format_args!("{address} was removed while held: {holder}"));
    }
    let handles = life.handles.load(std::sync::atomic::Ordering::SeqCst);
    if handles > 0 {
        world.violation(format_args!("{address} was removed while {handles} handles were in use"));
    }
    if life.times_destroyed() != 1 {
        let times = life.times_destroyed();
        world.violation(format_args!("{address} was removed and its destructor ran {times} times"));
    }
}

/// `Busy`: who is named may have had it, and who certainly had it is named.
fn check_busy(
    world: &World,
    place: usize,
    busy: &Busy,
    begun: Tick,
    ended: Tick,
    statistics: &mut Statistics,
) {
    let (address, books) = (world.address(place), world.books());
    let ledger = books.ledger(place);
    for holder in &busy.holders {
        statistics.count_holder(*holder);
        let ours = *holder == Holder::Transition(Transition::Remove);
        if !ours && !ledger.possible(*holder, begun, ended) {
            world.violation(format_args!(
                "{address} is said to be held by somebody who did not hold it: {holder}"
            ));
        }
    }
    for holder in ledger.certain(begun, ended) {
        if !busy.truncated && !busy.holders.contains(&holder) {
            world.violation(format_args!("{address} is held and Busy does not say so: {holder}"));
        }
    }
    let named = u32::try_from(busy.holders.len()).unwrap_or(u32::MAX);
    if busy.uses == 0 || busy.uses.saturating_sub(named) != busy.unnamed {
        world.violation(format_args!("{address}: the figures do not add up: {busy}"));
    }
    if busy.unnamed > 0 {
        *statistics.busy_by_holder.entry("unnamed".to_owned()).or_default() += 1;
    }
}
