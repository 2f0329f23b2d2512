//! The world of the storm: the machine with its devices and guests, and how threads come to them.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcidevs::lifecycle::{Added, Device, Event, Lifecycle, TransitionError};
use pcidevs::platform::Simulated;
use pcidevs::topology::Machine as Recorded;
use pcidevs::{DomainId, Holder, Locked, Owner, Sbdf};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::binding::Binder;
use super::chronicle::Chronicle;
use super::judge::Judge;
use super::ledger::{Books, Note};
use super::life::{Life, Model};
use super::mishaps::Mishaps;
use super::party::{Guests, Party};
use super::plan::Plan;

/// The core, on the simulated machine.
pub(crate) type Machine = Lifecycle<Simulated<Model>>;
/// A device, as the core keeps it.
pub(crate) type Kept = Device<Simulated<Model>>;
/// A device under its lock.
pub(crate) type Inside<'a> = Locked<'a, Kept>;
/// A guest's way to its devices.
pub(crate) type Domain = pcidevs::Domain<Kept>;

/// Everything the threads share.
pub(crate) struct World {
    machine: Machine,
    plan: Plan,
    /// The life in progress at each place, if a device is there.
    lives: Vec<Mutex<Option<Arc<Life>>>>,
    /// Lives that ended while somebody still held the device.
    lost: Mutex<Vec<Arc<Life>>>,
    guests: Arc<Guests>,
    books: Arc<Books>,
    mishaps: Arc<Mishaps>,
    judge: Arc<Judge>,
    accesses: AtomicU64,
    bundle_epoch: AtomicU64,
}

impl World {
    /// The machine's functions, all with the host, and its guests, without devices.
    pub(crate) fn build(recorded: &Recorded, domains: u32, fault_rate: u32) -> Result<Self, Box<dyn Error>> {
        let plan = Plan::new(recorded);
        let machine = Lifecycle::new(Simulated::new())?.by("soak");
        let (guests, books) = (Arc::new(Guests::new(domains)), Books::new(plan.len()));
        let mishaps = Arc::new(Mishaps::new(fault_rate));
        let binder =
            Binder { guests: Arc::clone(&guests), books: Arc::clone(&books), mishaps: Arc::clone(&mishaps) };
        machine.platform().on_bind(move |device, owner| binder.bind(device, owner));
        machine.platform().run_clock();
        for id in guests.ids() {
            machine.create_domain(id)?;
        }
        let chronicle = Chronicle::new((0..plan.len()).map(|place| plan.at(place).address));
        let judge = Arc::new(Judge::new(chronicle));
        let listener = Arc::clone(&judge);
        machine.subscribe(Arc::new(move |event: &Event<'_>| listener.chronicle().write(event)))?;
        let world = Self {
            lives: (0..plan.len()).map(|_| Mutex::default()).collect(),
            lost: Mutex::default(),
            judge,
            accesses: AtomicU64::new(0),
            bundle_epoch: AtomicU64::new(0),
            machine,
            plan,
            guests,
            books,
            mishaps,
        };
        for place in world.plan.top_down() {
            world.plug(*place);
            world.add(*place)?;
        }
        Ok(world)
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn platform(&self) -> &Simulated<Model> {
        self.machine.platform()
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn address(&self, place: usize) -> Sbdf {
        self.plan.at(place).address
    }

    pub(crate) fn guests(&self) -> &Guests {
        &self.guests
    }

    pub(crate) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(crate) fn mishaps(&self) -> &Arc<Mishaps> {
        &self.mishaps
    }

    /// From now on hooks fail, at the storm's rate.
    pub(crate) fn begin_mishaps(&self, seed: u64) {
        self.mishaps.begin();
        self.platform().fault_rate(seed, self.mishaps.rate());
    }

    pub(crate) fn judge(&self) -> &Arc<Judge> {
        &self.judge
    }

    pub(crate) fn runs(&self) -> bool {
        self.judge.runs()
    }

    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        self.judge.violation(what);
    }

    /// What happened to the device before is shown along.
    pub(crate) fn violation_at(&self, address: Sbdf, what: fmt::Arguments<'_>) {
        self.judge.violation_at(address, what);
    }

    /// Any function.
    pub(crate) fn any(&self, random: &mut SmallRng) -> usize {
        random.random_range(0..self.plan.len())
    }

    /// Any guest's number.
    pub(crate) fn any_guest(&self, random: &mut SmallRng) -> DomainId {
        DomainId::new(random.random_range(1..=self.guests.len()))
    }

    /// A guest and who it is in this life; `None` between two lives.
    pub(crate) fn enter(&self, id: DomainId) -> Option<(Party, Domain)> {
        let before = self.guests.party(Owner::Guest(id));
        let domain = self.machine.domain(id)?;
        // The same party before and after: the handle is of its life.
        (self.guests.party(Owner::Guest(id)) == before).then_some((before, domain))
    }

    fn slot(&self, place: usize) -> MutexGuard<'_, Option<Arc<Life>>> {
        self.lives[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Vec<Arc<Life>>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life at this place, if there is a device.
    pub(crate) fn life(&self, place: usize) -> Option<Arc<Life>> {
        self.slot(place).clone()
    }

    /// Puts the recorded function into its slot. Nobody knows it yet.
    pub(crate) fn plug(&self, place: usize) {
        let place = self.plan.at(place);
        self.platform().set_facts(place.address, place.facts.clone());
        self.platform().set_reset(place.address, place.reset);
        self.platform().plug_bytes(place.address, &place.config);
    }

    /// Reports what is plugged in: a new life begins.
    pub(crate) fn add(&self, place: usize) -> Result<(), TransitionError> {
        let address = self.address(place);
        let life = Life::new(place, address, &self.judge);
        // Remembered before anyone can meet it.
        *self.slot(place) = Some(Arc::clone(&life));
        match self.machine.add(address, self.plan.at(place).info, Model::new(Arc::clone(&life))) {
            Ok(Added::New) => {
                let requesters = self.machine.lock(address).map(|device| device.requesters().to_vec());
                // Nobody else takes devices away.
                let requesters = requesters.map_err(|_| TransitionError::NotFound(address))?;
                life.requesters.get_or_init(|| requesters);
                Ok(())
            }
            Ok(Added::Again(_)) => {
                self.violation(format_args!("{address} was known before it was added"));
                Ok(())
            }
            Err(error) => {
                *self.slot(place) = None;
                Err(error.reason)
            }
        }
    }

    /// The device is not there any more, or is not to be found any more.
    pub(crate) fn end_life(&self, place: usize) -> Option<Arc<Life>> {
        let life = self.slot(place).take()?;
        life.end();
        if life.times_destroyed() == 0 {
            self.lost().push(Arc::clone(&life));
        }
        Some(life)
    }

    /// Lives that have ended and whose destructor has not run. Forgets all others.
    pub(crate) fn not_destroyed(&self) -> Vec<Sbdf> {
        let mut lost = self.lost();
        lost.retain(|life| life.times_destroyed() == 0);
        lost.iter().map(|life| life.address).collect()
    }

    /// Writes down that these holders may be met at these places while the notes live.
    pub(crate) fn note(&self, places: impl IntoIterator<Item = usize>, holders: &[Holder]) -> Vec<Note> {
        let places = places.into_iter();
        places.flat_map(|place| holders.iter().map(move |holder| self.books.note(place, *holder))).collect()
    }

    pub(crate) fn count_accesses(&self, accesses: u64) {
        self.accesses.fetch_add(accesses, Ordering::Relaxed);
    }

    pub(crate) fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }

    /// How many hooks and attachments failed on purpose.
    pub(crate) fn faults(&self) -> u64 {
        self.platform().injected() + self.mishaps.happened()
    }

    /// A member of the bundle leaves it: until it is gathered again it may be seen in part.
    pub(crate) fn split_bundle(&self) {
        self.bundle_epoch.fetch_or(1, Ordering::SeqCst);
    }

    /// The bundle is with one owner again, if it has not been split since `epoch`.
    pub(crate) fn gather_bundle(&self, epoch: u64) {
        let next = (epoch | 1) + 1;
        let _raced = self.bundle_epoch.compare_exchange(epoch, next, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Changes whenever the bundle is split or gathered; even while it is whole.
    pub(crate) fn bundle_epoch(&self) -> u64 {
        self.bundle_epoch.load(Ordering::SeqCst)
    }
}
