//! The world of the storm: the machine, its guests, and the rules that everyone's findings are held against.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pcidevs::topology::Machine as Recorded;
use pcidevs::{Domain, DomainId, Holder, Locked, NoMemory, Owner, Sbdf};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::ledger::{Clock, Ledger};
use super::model::{Life, Link, Machine, Model, code};

/// How many functions that are moved together only; a quarter of the machine at most.
const BUNDLE: usize = 3;

/// One function of the machine.
struct Function {
    address: Sbdf,
    config: Vec<u8>,
    /// Its PF and the bridge it is behind, as places, with the name under which it holds them.
    above: Vec<(usize, Holder)>,
    /// Functions that hold this one: its VFs, the devices behind it.
    below: Vec<usize>,
    /// The life in progress there.
    life: Mutex<Arc<Life>>,
    /// Where a move that is under way would take it; 0 for none.
    intent: AtomicU32,
    /// Moved as one of a set, and neither removed nor lost.
    bundled: bool,
}

/// The clock and one ledger per function: what devices keep of the world.
pub(crate) struct Books {
    pub(crate) clock: Clock,
    ledgers: Vec<Ledger>,
}

impl Books {
    pub(crate) fn ledger(&self, place: usize) -> &Ledger {
        &self.ledgers[place]
    }
}

/// Everything the threads share.
pub(crate) struct World {
    machine: Machine,
    functions: Vec<Function>,
    guests: Vec<Domain<Model>>,
    books: Arc<Books>,
    segments: usize,
    stop: Arc<AtomicBool>,
    accesses: AtomicU64,
    violations: AtomicU64,
    lives: Mutex<Vec<Arc<Life>>>,
}

/// Violations beyond this many are counted, not shown.
const MOST_SHOWN: u64 = 20;

impl World {
    /// A registry of the machine's functions, all with the host, and its guests, without devices.
    pub(crate) fn build(recorded: &Recorded, domains: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let machine = Machine::new()?;
        let guests = (1..=domains)
            .map(|number| machine.create_domain(DomainId::new(number)))
            .collect::<Result<Vec<_>, _>>()?;
        let functions = functions(recorded);
        let ledgers = functions.iter().map(|_| Ledger::default()).collect();
        let world = Self {
            machine,
            guests,
            books: Arc::new(Books { clock: Clock::default(), ledgers }),
            segments: recorded.segments().len(),
            functions,
            stop: Arc::default(),
            accesses: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            lives: Mutex::default(),
        };
        // What is above must be there first: PFs before VFs, bridges before what is behind them.
        for place in world.top_down() {
            world.add(place)?;
        }
        Ok(world)
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn books(&self) -> Arc<Books> {
        Arc::clone(&self.books)
    }

    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    pub(crate) fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn functions(&self) -> usize {
        self.functions.len()
    }

    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    pub(crate) fn address(&self, place: usize) -> Sbdf {
        self.functions[place].address
    }

    /// The place of an address of the machine.
    pub(crate) fn place(&self, address: Sbdf) -> usize {
        self.functions.partition_point(|function| function.address < address)
    }

    pub(crate) fn guests(&self) -> &[Domain<Model>] {
        &self.guests
    }

    pub(crate) fn life(&self, place: usize) -> Arc<Life> {
        Arc::clone(&self.functions[place].life.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Any function.
    pub(crate) fn any(&self, random: &mut SmallRng) -> usize {
        random.random_range(0..self.functions.len())
    }

    pub(crate) fn is_bundled(&self, place: usize) -> bool {
        self.functions[place].bundled
    }

    /// The functions that move together only.
    pub(crate) fn bundle(&self) -> Vec<usize> {
        (0..self.functions.len()).filter(|place| self.functions[*place].bundled).collect()
    }

    /// A function and all that holds it, directly or not; what is deepest first.
    pub(crate) fn subtree(&self, place: usize) -> Vec<usize> {
        let mut found = vec![place];
        let mut next = 0;
        while let Some(place) = found.get(next).copied() {
            for below in &self.functions[place].below {
                if !found.contains(below) {
                    found.push(*below);
                }
            }
            next += 1;
        }
        found.reverse();
        found
    }

    /// All functions, what is above others first.
    pub(crate) fn top_down(&self) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(self.functions.len());
        let mut done = vec![false; self.functions.len()];
        while order.len() < self.functions.len() {
            let before = order.len();
            for (place, function) in self.functions.iter().enumerate() {
                if !done[place] && function.above.iter().all(|(above, _)| done[*above]) {
                    done[place] = true;
                    order.push(place);
                }
            }
            if order.len() == before {
                // A recording whose bridges are behind each other: without an order, any will do.
                order.extend((0..done.len()).filter(|place| !done[*place]));
            }
        }
        order
    }

    /// A new life begins at this place.
    pub(crate) fn add(&self, place: usize) -> Result<(), pcidevs::AddRefused> {
        let function = &self.functions[place];
        let life = Life::new(place);
        let links =
            function.above.iter().filter_map(|(above, holder)| Link::new(self, *above, *holder)).collect();
        let model = Model::new(Arc::clone(&life), function.config.clone(), links);
        // Remembered before anyone can meet it.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&life));
        *function.life.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&life);
        self.machine.add(function.address, model).map_err(|error| error.reason)
    }

    /// A move to this owner is about to begin; [`arrived`](Self::arrived) ends it.
    pub(crate) fn intend(&self, place: usize, to: Owner) {
        self.functions[place].intent.store(code(to), Ordering::SeqCst);
    }

    /// The move is over: from now on the owner is the one it has.
    pub(crate) fn arrived(&self, place: usize, moved_to: Option<Owner>) {
        if let Ok(device) = self.machine.lock(self.address(place)) {
            let owner = device.owner();
            if let Some(to) = moved_to
                && owner != to
                && owner != Owner::Host
                && owner != Owner::Quarantine
            {
                self.violation(format_args!("{} went to {to} and is with {owner}", device.address()));
            }
            device.life.set_owner(owner);
            self.functions[place].intent.store(0, Ordering::SeqCst);
        } else {
            self.functions[place].intent.store(0, Ordering::SeqCst);
        }
    }

    /// An access, a DMA or an interrupt on behalf of `owner` is inside the device, under its lock.
    pub(crate) fn check_inside(&self, what: &str, device: &Locked<'_, Model>, owner: Owner) {
        let life = &device.life;
        if life.is_over() {
            self.violation(format_args!("{what} reached {} after it had been taken away", device.address()));
        }
        if life.times_destroyed() > 0 {
            self.violation(format_args!("{what} reached {} after its destructor", device.address()));
        }
        if self.address(life.place) != device.address() {
            self.violation(format_args!("{what} at {} reached another device's data", device.address()));
        }
        // A move sets its intent before it begins and clears it under this device's lock when it is over, so
        // without one the owner noted last is the owner.
        let intent = self.functions[life.place].intent.load(Ordering::SeqCst);
        if intent == 0 && !life.is_owner(owner) {
            self.violation(format_args!(
                "{what} at {} landed with a former owner, {owner}",
                device.address()
            ));
        }
    }

    pub(crate) fn count_accesses(&self, accesses: u64) {
        self.accesses.fetch_add(accesses, Ordering::Relaxed);
    }

    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        if self.violations.fetch_add(1, Ordering::SeqCst) < MOST_SHOWN {
            // At once: a broken core may not live to the end of the storm.
            let _ = writeln!(std::io::stderr(), "violation: {what}");
        }
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }

    pub(crate) fn progress(&self) -> String {
        let accesses = self.accesses.load(Ordering::Relaxed);
        format!("{} k accesses, {} violations", accesses / 1000, self.violations())
    }

    /// When all threads are gone: every device is on one list, all counts are as they began, and everything
    /// can be removed, each device exactly once.
    pub(crate) fn check_quiet(&self) -> Result<(), NoMemory> {
        let mut listed = vec![0_usize; self.functions.len()];
        let owners = [Owner::Host, Owner::Quarantine, Owner::Hidden];
        for owner in owners.into_iter().chain(self.guests.iter().map(|guest| Owner::Guest(guest.id()))) {
            let Some(devices) = self.machine.devices_of(owner)? else { continue };
            for device in devices.iter() {
                match self.functions.iter().position(|function| function.address == device.address()) {
                    Some(place) => listed[place] += 1,
                    None => {
                        self.violation(format_args!("{} is on a list and nowhere else", device.address()));
                    }
                }
            }
        }
        for (place, times) in listed.iter().enumerate() {
            let address = self.address(place);
            if *times != 1 {
                self.violation(format_args!("{address} is on {times} lists"));
            }
            let Some(status) = self.machine.status(address) else {
                self.violation(format_args!("{address} is lost"));
                continue;
            };
            let assigned = usize::from(matches!(status.owner, Some(Owner::Guest(_))));
            let expected = self.functions[place].below.len() + assigned;
            if status.uses as usize != expected || status.unnamed != 0 {
                self.violation(format_args!("{address} has {} uses instead of {expected}", status.uses));
            }
            if let Err(error) = self.machine.move_devices(&[address.into()], Owner::Host) {
                self.violation(format_args!("{address} cannot go back to the host: {error}"));
            }
        }
        for place in self.top_down().into_iter().rev() {
            if let Err(error) = self.machine.remove_device(self.address(place)) {
                self.violation(format_args!("{} cannot be removed at the end: {error}", self.address(place)));
            }
        }
        for life in self.lives.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if life.times_destroyed() != 1 {
                let (address, times) = (self.address(life.place), life.times_destroyed());
                self.violation(format_args!("a device at {address} was destroyed {times} times"));
            }
        }
        Ok(())
    }
}

fn functions(recorded: &Recorded) -> Vec<Function> {
    let place_of =
        |address| recorded.functions.binary_search_by_key(&address, |function| function.address).ok();
    let mut functions: Vec<Function> = recorded
        .functions
        .iter()
        .map(|function| Function {
            address: function.address,
            config: if function.config.is_empty() { vec![0; 256] } else { function.config.clone() },
            above: [
                function.physfn.and_then(place_of).map(|pf| (pf, Holder::Vf(function.address))),
                recorded
                    .parent(function.address)
                    .and_then(|bridge| place_of(bridge.address))
                    .map(|bridge| (bridge, Holder::Child(function.address))),
            ]
            .into_iter()
            .flatten()
            .collect(),
            below: Vec::new(),
            life: Mutex::new(Life::new(0)),
            intent: AtomicU32::new(0),
            bundled: false,
        })
        .collect();
    for place in 0..functions.len() {
        for (above, _) in functions[place].above.clone() {
            functions[above].below.push(place);
        }
    }
    let bundle = BUNDLE.min(functions.len() / 4);
    let alone = |function: &&mut Function| function.above.is_empty() && function.below.is_empty();
    functions.iter_mut().filter(alone).take(bundle).for_each(|function| function.bundled = true);
    functions
}
