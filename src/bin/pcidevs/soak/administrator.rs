//! Gives devices to guests and takes them back, one by one, in sets and in groups.

use std::time::Duration;

use pcidevs::lifecycle::Unplug;
use pcidevs::platform::ResetKind;
use pcidevs::{DomainId, Holder, Member, Owner, Transition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::statistics::Statistics;
use super::transition::Outcome;
use super::world::World;

/// How long it rests, so as not to take the processors from the vCPUs.
const REST: Duration = Duration::from_micros(50);
/// So many faults in a row make a device too noisy.
const MANY_FAULTS: u32 = 12;

struct Administrator<'w> {
    world: &'w World,
    random: SmallRng,
    statistics: Statistics,
}

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let random = SmallRng::seed_from_u64(seed);
    let mut administrator = Administrator { world, random, statistics: Statistics::default() };
    while world.runs() {
        administrator.act();
        std::thread::sleep(REST);
    }
    administrator.statistics
}

impl Administrator<'_> {
    fn act(&mut self) {
        match self.random.random_range(0..32) {
            0..10 => {
                let set = self.some_free();
                self.assign("assign", &set);
            }
            10..12 => self.assign_group(),
            12..14 => self.assign_bundle(),
            14..22 => self.deassign(),
            22..24 => self.quarantine(),
            24..26 => self.reset(),
            26 => self.unplug(),
            27 => self.msix(),
            28 => self.faults(),
            29 => self.open_group(),
            30 => self.bind_driver(),
            _ => self.deassign_bundle(),
        }
    }

    fn address(&self, place: usize) -> pcidevs::Sbdf {
        self.world.address(place)
    }

    fn owner(&self, place: usize) -> Option<Owner> {
        self.world.machine().lock(self.address(place)).ok().map(|device| device.owner())
    }

    /// One to three functions that may move by themselves.
    fn some_free(&mut self) -> Vec<usize> {
        let count = self.random.random_range(1..=3);
        let mut set: Vec<_> = (0..count).map(|_| self.world.any(&mut self.random)).collect();
        set.retain(|place| !self.world.plan().at(*place).bundled);
        set.sort_unstable();
        set.dedup();
        set
    }

    fn members(&self, set: &[usize]) -> Vec<Member> {
        set.iter().map(|place| Member::new(self.address(*place))).collect()
    }

    fn transition(
        &mut self,
        what: &'static str,
        set: &[usize],
        holders: &[Holder],
        run: impl FnOnce(&super::world::Machine, &[Member]) -> Result<(), pcidevs::lifecycle::TransitionError>,
    ) -> Outcome {
        let members = self.members(set);
        let near = self.world.plan().near(set);
        let machine = self.world.machine();
        self.world.transition(&mut self.statistics, what, (&near, holders), || run(machine, &members))
    }

    fn assign(&mut self, what: &'static str, set: &[usize]) -> Outcome {
        let guest = self.world.any_guest(&mut self.random);
        let holders = assigning(guest);
        self.transition(what, set, &holders, |machine, set| machine.assign(set, guest))
    }

    fn assign_group(&mut self) {
        let place = self.world.any(&mut self.random);
        let plan = self.world.plan();
        if plan.near(&[place]).iter().any(|member| plan.at(*member).bundled) {
            return;
        }
        let guest = self.world.any_guest(&mut self.random);
        let address = self.address(place);
        // Those of its group that the recording does not tell: they have a requester ID in common.
        let others = self.world.machine().group_of(address).unwrap_or_default();
        let set: Vec<_> =
            [place].into_iter().chain(others.iter().filter_map(|other| plan.find(*other))).collect();
        if plan.near(&set).iter().any(|member| plan.at(*member).bundled) {
            return;
        }
        self.transition("assign group", &set, &assigning(guest), |machine, _| {
            machine.assign_group(address, guest)
        });
    }

    fn assign_bundle(&mut self) {
        let bundle = self.world.plan().bundle();
        let epoch = self.world.bundle_epoch();
        if !bundle.is_empty() && self.assign("assign set", bundle) == Outcome::Ok {
            self.world.gather_bundle(epoch);
        }
    }

    fn deassign_bundle(&mut self) {
        let bundle = self.world.plan().bundle();
        if let Some(from) = bundle.first().and_then(|place| self.owner(*place)) {
            self.take_back(bundle, from);
        }
    }

    /// Takes something back from whoever has it, with some of what that one has besides.
    fn deassign(&mut self) {
        let mut set = self.some_free();
        let Some(from) = set.first().and_then(|place| self.owner(*place)) else { return };
        if self.random.random() {
            // Those that cannot be kept apart have to come along.
            set = self.world.plan().near(&set);
        }
        let bundle = self.world.plan().bundle();
        set.retain(|place| self.owner(*place) == Some(from) && !bundle.contains(place));
        if from != Owner::Host {
            self.take_back(&set, from);
        }
    }

    fn take_back(&mut self, set: &[usize], from: Owner) {
        let holders = [Holder::Transition(Transition::Deassign)];
        self.transition("deassign", set, &holders, |machine, set| machine.deassign(set, from));
    }

    fn quarantine(&mut self) {
        let set = self.some_free();
        let holders = [Holder::Transition(Transition::Quarantine)];
        self.transition("quarantine", &set, &holders, pcidevs::lifecycle::Lifecycle::quarantine);
    }

    fn reset(&mut self) {
        let place = self.world.any(&mut self.random);
        let (address, reported) = (self.address(place), self.random.random_ratio(1, 4));
        let holders = [Holder::Transition(Transition::Reset)];
        self.transition("reset", &[place], &holders, |machine, _| {
            if reported {
                machine.report_reset(address, ResetKind::Flr)
            } else {
                machine.reset(address, ResetKind::Flr)
            }
        });
    }

    /// Asks a guest, and answers for it.
    fn unplug(&mut self) {
        let place = self.world.any(&mut self.random);
        let Some(guest) = self.owner(place).and_then(Owner::guest) else { return };
        if self.world.plan().at(place).bundled {
            return;
        }
        let address = self.address(place);
        let answer = match self.random.random_range(0..4) {
            0 => Unplug::Rejected,
            1 => Unplug::TimedOut,
            _ => Unplug::Acked,
        };
        let holders = [Holder::Transition(Transition::Deassign), Holder::Named("unplug request")];
        self.transition("unplug", &[place], &holders, |machine, _| {
            machine.request_unplug(address)?;
            machine.unplug_answered(address, guest, answer)
        });
    }

    fn msix(&mut self) {
        let place = self.world.any(&mut self.random);
        let (address, prepare) = (self.address(place), self.random.random());
        let holders = [Holder::Transition(Transition::Interrupts)];
        self.transition("MSI-X", &[place], &holders, |machine, _| {
            if prepare { machine.msi_prepare(address) } else { machine.msi_release(address) }
        });
    }

    /// The IOMMU reports faults, from an interrupt: until the device is silenced.
    fn faults(&mut self) {
        let place = self.world.any(&mut self.random);
        let address = self.address(place);
        for _ in 0..self.random.random_range(1..=MANY_FAULTS) {
            self.world.machine().report_fault(address);
        }
    }

    /// Somebody opens a group, or closes it again.
    fn open_group(&mut self) {
        let place = self.world.any(&mut self.random);
        if let Some(group) = self.world.plan().at(place).facts.group {
            self.world.platform().set_group_in_use(group, self.random.random_ratio(1, 4));
        }
    }

    /// The host binds a driver, or unbinds it.
    fn bind_driver(&mut self) {
        let place = self.world.any(&mut self.random);
        let address = self.address(place);
        self.world.platform().set_driver(address, self.random.random_ratio(1, 4));
    }
}

fn assigning(guest: DomainId) -> [Holder; 2] {
    [Holder::Transition(Transition::Assign), Holder::Domain(guest)]
}
