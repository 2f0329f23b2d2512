//! Takes devices away, singly and by the card, and brings them back. Nobody else does, so it knows what is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcidevs::lifecycle::TransitionError;
use pcidevs::{Busy, Holder, TicketError, Transition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::life::Life;
use super::removal::Call;
use super::statistics::Statistics;
use super::transition::Outcome;
use super::world::World;

const REST: Duration = Duration::from_micros(100);
/// How long a ticket waits for the last use.
const PATIENCE: Duration = Duration::from_millis(1);

struct Hotplug<'w> {
    world: &'w World,
    random: SmallRng,
    statistics: Statistics,
}

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let random = SmallRng::seed_from_u64(seed);
    let mut hotplug = Hotplug { world, random, statistics: Statistics::default() };
    while world.runs() {
        hotplug.act();
        replug(world);
        std::thread::sleep(REST);
    }
    hotplug.statistics
}

/// Adds what is not there, if it can be added.
pub(crate) fn replug(world: &World) {
    for place in world.plan().top_down().iter().copied() {
        let is_there = |place: usize| world.life(place).is_some();
        if is_there(place) || !world.plan().above(place).all(is_there) {
            continue;
        }
        world.plug(place);
        match world.add(place) {
            Ok(()) => {}
            // What was there before is not cleared up yet.
            Err(TransitionError::Busy(_, busy)) if is_teardown(&busy) => {}
            Err(error) => {
                world.judge_error("add", &error);
            }
        }
    }
}

fn is_teardown(busy: &Busy) -> bool {
    busy.holders == [Holder::DmaTeardown] || busy.holders == [Holder::Transition(Transition::Remove)]
}

impl Hotplug<'_> {
    fn act(&mut self) {
        let place = self.world.any(&mut self.random);
        let Some(life) = self.world.life(place) else { return };
        match self.random.random_range(0..32) {
            0..12 => self.at_once(place),
            12..20 => self.by_ticket(&life, Wait::Patiently),
            20..24 => self.by_ticket(&life, Wait::Not),
            24..28 => self.lose(place),
            28..30 => self.slot(place),
            _ => self.subtree(place),
        }
    }

    /// Whether all of these may be taken away.
    fn may_leave(&self, places: &[usize]) -> bool {
        places.iter().all(|place| !self.world.plan().at(*place).bundled)
    }

    fn at_once(&mut self, place: usize) {
        let address = self.world.address(place);
        if self.may_leave(&[place]) {
            self.remove(&[place], || self.world.machine().remove_device(address));
        }
    }

    fn slot(&mut self, place: usize) {
        let address = self.world.address(place);
        let slot = self.world.plan().slot(address);
        let card = self.world.plan().subtrees(slot);
        if self.may_leave(&card) {
            self.remove(&card, || self.world.machine().remove_slot(address));
        }
    }

    fn subtree(&mut self, place: usize) {
        let address = self.world.address(place);
        let subtree = self.world.plan().subtrees(vec![place]);
        let is_bridge =
            self.world.plan().holders(place).any(|(_, holder)| matches!(holder, Holder::Child(_)));
        if is_bridge && self.may_leave(&subtree) {
            self.remove(&subtree, || self.world.machine().remove_subtree(address));
        }
    }

    /// A removal at once, of one or many.
    fn remove(&mut self, places: &[usize], remove: impl FnOnce() -> Result<(), TransitionError>) {
        let call = Call::begin(self.world, places);
        match remove() {
            Ok(()) => self.statistics.removals.ok += call.removed(),
            Err(error) => self.not_removed(&call, &error),
        }
    }

    fn not_removed(&mut self, call: &Call<'_>, error: &TransitionError) {
        match error {
            TransitionError::Busy(address, busy) => {
                call.check_busy(*address, busy, &mut self.statistics);
                self.statistics.removals.busy += 1;
            }
            error => self.judge("remove", error),
        }
    }

    fn judge(&mut self, what: &str, error: &TransitionError) {
        let removals = &mut self.statistics.removals;
        match self.world.judge_error(what, error) {
            Outcome::Failed => removals.failed += 1,
            Outcome::Refused | Outcome::Ok => removals.refused += 1,
        }
    }

    fn by_ticket(&mut self, life: &Arc<Life>, wait: Wait) {
        let (world, address, place) = (self.world, life.address, life.place);
        if !self.may_leave(&[place]) {
            return;
        }
        let call = Call::begin(world, &[place]);
        let mut ticket = match world.machine().begin_removal(address) {
            Ok(ticket) => ticket,
            Err(error) => return self.not_removed(&call, &error),
        };
        if world.machine().get(address).is_some() {
            world.violation_at(
                address,
                format_args!("{address} was given to a new user while its removal was pending"),
            );
        }
        let result = match wait {
            Wait::Patiently => ticket.wait(Some(Instant::now() + PATIENCE)),
            Wait::Not => Err(TransitionError::Ticket(TicketError::TimedOut)),
        };
        match result {
            Ok(()) => self.statistics.removals.ok += Call::begin(world, &[place]).removed(),
            Err(TransitionError::Ticket(TicketError::TimedOut)) => {
                // What is in the way at this instant is in the way of a removal at once, too.
                if let Some(busy) = ticket.busy() {
                    call.check_busy(address, &busy, &mut self.statistics);
                }
                match ticket.cancel() {
                    Ok(()) => self.statistics.removals.cancelled += 1,
                    Err(error) => {
                        world.violation_at(address, format_args!("cancelling at {address}: {error}"));
                    }
                }
                if world.machine().get(address).is_none() {
                    world.violation_at(
                        address,
                        format_args!("{address} was not given back by a cancelled removal"),
                    );
                }
            }
            Err(error) => self.judge("remove by ticket", &error),
        }
    }

    /// The card is pulled: the function and all that depends on it are gone at once.
    fn lose(&mut self, place: usize) {
        let world = self.world;
        let subtree = world.plan().subtrees(vec![place]);
        if !self.may_leave(&subtree) {
            return;
        }
        for place in &subtree {
            if let Some(life) = world.life(*place) {
                life.pull();
            }
            world.platform().unplug(world.address(*place));
        }
        if let Err(error) = world.machine().report_gone(world.address(place)) {
            world.violation(format_args!("reporting {} gone: {error}", world.address(place)));
        }
        for place in subtree {
            if world.machine().get(world.address(place)).is_some() {
                world.violation(format_args!("{} is gone and was given to a user", world.address(place)));
            }
            if world.end_life(place).is_some() {
                self.statistics.removals.gone += 1;
            }
            world.books().lose(place);
        }
    }
}

/// How long a ticket waits.
#[derive(Clone, Copy)]
enum Wait {
    Patiently,
    Not,
}
