//! One operation of the manager while the engine carries it out.
//!
//! The engine calls hooks on the thread that called it, so the operation under way is that thread's, and hooks need no
//! map to find it. It knows which devices go where (the engine asks for permission for each before it touches any),
//! writes the intent before the first write and "done" with the last hook.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::book::locked;
use super::driver;
use super::driver_type::DriverChoice;
use super::function;
use super::identity;
use super::journal::Records;
use super::name::{DriverName, GuestName};
use super::network::NetworkSettings;
use super::platform::Core;
use super::record::{NetworkRecord, Original, Record, Tenure};
use super::variant;
use crate::Sbdf;
use crate::errno::Errno;
use crate::lifecycle::TransitionError;
use crate::owner::Owner;

/// A file operation that failed, or a question that has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {what}: {errno}")]
pub struct WriteFailure {
    /// The device.
    pub device: Sbdf,
    /// What was done.
    pub what: String,
    /// The kernel's number.
    pub errno: Errno,
}

/// What was asked for a device that the host has.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) driver: DriverChoice,
    pub(super) managed: bool,
}

/// What kind of operation it is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The engine learns what is so already: nothing is written.
    Replay,
    /// Devices move.
    Move,
    /// A group goes back to the host. In no other operation does one: the manager gives it back, whole.
    GiveBack,
    /// What sits on a stub already becomes ours.
    Adopt,
    /// A broken device is put on its stub, whatever was left of its views.
    Repair,
}

/// One operation.
pub(super) struct Operation {
    pub(super) kind: Kind,
    /// The guest that gets devices.
    pub(super) guest: Option<GuestName>,
    wishes: BTreeMap<Sbdf, Wish>,
    networks: BTreeMap<Sbdf, NetworkSettings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<Sbdf, Member>,
    failures: Vec<WriteFailure>,
    /// Why the engine did not move a device.
    refusals: BTreeMap<Sbdf, TransitionError>,
}

/// A device on its way.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing that has happened")]
struct Member {
    from: Owner,
    to: Owner,
    is_begun: bool,
    is_bound: bool,
    /// The journal says that it is with its new owner.
    is_committed: bool,
    is_broken: bool,
    was_reset: bool,
    /// Something may have been written of its network identity.
    is_network_touched: bool,
    /// Its network identity is the host's again.
    is_network_restored: bool,
    /// Its record before, and while it is on its way.
    before: Option<Record>,
    intent: Option<Record>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Operation>>> = const { RefCell::new(None) };
}

/// Makes an operation this thread's, as long as this lives.
pub(super) struct Current(Option<Arc<Operation>>);

impl Current {
    pub(super) fn set(operation: &Arc<Operation>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(operation.clone()))))
    }

    /// This thread's operation.
    pub(super) fn get() -> Option<Arc<Operation>> {
        CURRENT.with(|current| current.borrow().clone())
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|current| current.replace(before));
    }
}

impl Operation {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            guest: None,
            wishes: BTreeMap::new(),
            networks: BTreeMap::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn with_guest(mut self, guest: &GuestName) -> Self {
        self.guest = Some(guest.clone());
        self
    }

    pub(super) fn with_wish(mut self, device: Sbdf, wish: Wish) -> Self {
        self.wishes.insert(device, wish);
        self
    }

    /// What a device is to be on the network while its guest has it.
    pub(super) fn with_network(mut self, device: Sbdf, wanted: NetworkSettings) -> Self {
        self.networks.insert(device, wanted);
        self
    }

    pub(super) fn is_replay(&self) -> bool {
        matches!(self.kind, Kind::Replay)
    }

    /// A device goes from one owner to another; it is claimed, and nothing has been done yet.
    pub(super) fn expect(&self, device: Sbdf, from: Owner, to: Owner) {
        let member = Member {
            from,
            to,
            is_begun: false,
            is_bound: false,
            is_committed: false,
            is_broken: false,
            was_reset: false,
            is_network_touched: false,
            is_network_restored: false,
            before: None,
            intent: None,
        };
        locked(&self.state).members.insert(device, member);
    }

    /// Where it comes from and goes to.
    pub(super) fn course(&self, device: Sbdf) -> Option<(Owner, Owner)> {
        locked(&self.state).members.get(&device).map(|member| (member.from, member.to))
    }

    /// Whether it leaves the host's drivers, or comes to them.
    pub(super) fn touches_host(&self, device: Sbdf) -> bool {
        self.course(device).is_some_and(|(from, to)| from == Owner::Host || to == Owner::Host)
    }

    pub(super) fn was_reset(&self, device: Sbdf) {
        if let Some(member) = locked(&self.state).members.get_mut(&device) {
            member.was_reset = true;
        }
    }

    /// The network identities that this operation moves between.
    pub(super) fn network(&self, device: Sbdf) -> Option<NetworkRecord> {
        locked(&self.state).members.get(&device)?.intent.as_ref()?.network
    }

    /// From here on an undo has to look at its network identity.
    pub(super) fn touches_network(&self, device: Sbdf) {
        if let Some(member) = locked(&self.state).members.get_mut(&device) {
            member.is_network_touched = true;
        }
    }

    /// What its network identity is to be again if it stays where it was; `None` if it is that, or if what it was is
    /// still to be put back, which stays so.
    pub(super) fn network_before(&self, device: Sbdf) -> Option<NetworkSettings> {
        let state = locked(&self.state);
        let member = state.members.get(&device).filter(|member| member.is_network_touched)?;
        let network = member.intent.as_ref()?.network?;
        let was_due = member.before.as_ref().is_some_and(|before| before.network.is_some());
        match (member.from.guest(), was_due) {
            (Some(_), _) => Some(network.wanted),
            (None, false) => Some(network.saved),
            (None, true) => None,
        }
    }

    pub(super) fn network_restored(&self, device: Sbdf) {
        if let Some(member) = locked(&self.state).members.get_mut(&device) {
            member.is_network_restored = true;
        }
    }

    pub(super) fn fail(&self, failure: WriteFailure) {
        locked(&self.state).failures.push(failure);
    }

    /// Everything that failed, in order.
    pub(super) fn failures(&self) -> Vec<WriteFailure> {
        locked(&self.state).failures.clone()
    }

    /// Why the engine did not move this device.
    pub(super) fn refusal(&self, device: Sbdf) -> Option<TransitionError> {
        locked(&self.state).refusals.get(&device).cloned()
    }

    /// What failed at this device, as one text.
    pub(super) fn story(&self, device: Sbdf) -> Option<String> {
        let state = locked(&self.state);
        let at_device = state.failures.iter().filter(|failure| failure.device == device);
        let lines: Vec<_> = at_device.map(|failure| format!("{}: {}", failure.what, failure.errno)).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Before the first write: what will be needed is read, and written down, for all who are expected.
    pub(super) fn begin(&self, core: &Core) -> Result<(), WriteFailure> {
        let mut state = locked(&self.state);
        let new: Vec<Sbdf> =
            state.members.iter().filter(|(_, member)| !member.is_begun).map(|(at, _)| *at).collect();
        let Some(first) = new.first().copied() else { return Ok(()) };
        drop(state);
        let known = core.book.records();
        let mut intents = Vec::new();
        for device in &new {
            let record = match known.get(device) {
                Some(record) => Record { intent: true, ..record.clone() },
                None => self.first_record(core, *device)?,
            };
            let network = self.intended_network(core, *device, record.network)?;
            intents.push(Record { network, ..record });
        }
        let saved = core.book.change(|records| {
            for record in &intents {
                records.insert(record.address, record.clone());
            }
        });
        saved.map_err(|errno| WriteFailure { device: first, what: "write the journal".into(), errno })?;
        state = locked(&self.state);
        for intent in intents {
            if let Some(member) = state.members.get_mut(&intent.address) {
                (member.is_begun, member.before) = (true, known.get(&intent.address).cloned());
                member.intent = Some(intent);
            }
        }
        Ok(())
    }

    /// Both network identities, before the first write. What is still to be put back after an earlier guest is what is
    /// put back after this one.
    fn intended_network(
        &self,
        core: &Core,
        device: Sbdf,
        due: Option<NetworkRecord>,
    ) -> Result<Option<NetworkRecord>, WriteFailure> {
        if self.course(device).is_none_or(|(_, to)| to.guest().is_none()) {
            return Ok(due);
        }
        let Some(wanted) = self.networks.get(&device) else {
            return Ok(due.map(|NetworkRecord { saved, .. }| NetworkRecord { wanted: saved, saved }));
        };
        let kept = identity::kept(&core.writer, device, *wanted)?;
        let due = due.map(|due| due.saved).unwrap_or_default();
        Ok(Some(NetworkRecord {
            wanted: NetworkSettings { mac: wanted.mac.or(due.mac), vlan: wanted.vlan.or(due.vlan) },
            saved: NetworkSettings { mac: due.mac.or(kept.mac), vlan: due.vlan.or(kept.vlan) },
        }))
    }

    /// What the host has now, and shall have again.
    fn first_record(&self, core: &Core, device: Sbdf) -> Result<Record, WriteFailure> {
        let kernel = core.writer.kernel();
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno| WriteFailure { device, what, errno }
        };
        let wish = self.wishes.get(&device).cloned().unwrap_or_default();
        let driver = driver::current(&core.writer, device)?;
        let stub = match (&self.kind, &driver) {
            (Kind::Adopt, Some(driver)) => driver.clone(),
            _ => choose_stub(core, device, &wish.driver)?,
        };
        Ok(Record {
            address: device,
            identity: function::identity(kernel, device).map_err(failed("read its identity"))?,
            group: function::group(kernel, device).map_err(failed("read its group"))?,
            original: Original::Known {
                driver,
                driver_override: driver::driver_override(&core.writer, device)?,
            },
            stub,
            tenure: Tenure::Host,
            managed: wish.managed,
            used: false,
            giving_back: false,
            intent: true,
            broken: None,
            network: None,
        })
    }

    /// The new owner has it. With the last one the journal says so.
    pub(super) fn bound(&self, core: &Core, device: Sbdf) -> Result<(), WriteFailure> {
        let mut state = locked(&self.state);
        if let Some(member) = state.members.get_mut(&device) {
            member.is_bound = true;
        }
        let members = state.members.clone();
        drop(state);
        if self.is_replay() || !members.values().all(|member| member.is_bound) {
            return Ok(());
        }
        let committed = core.book.change(|records| {
            for (device, member) in &members {
                self.commit(records, *device, member);
            }
        });
        let mut state = locked(&self.state);
        for member in state.members.values_mut() {
            member.is_committed = committed.is_ok();
        }
        committed.map_err(|errno| WriteFailure { device, what: "write the journal".into(), errno })
    }

    fn commit(&self, records: &mut Records, device: Sbdf, member: &Member) {
        if member.to == Owner::Host {
            records.remove(&device);
            return;
        }
        let Some(record) = records.get_mut(&device) else { return };
        record.tenure = match (&self.guest, member.to) {
            (Some(guest), Owner::Guest(_)) => Tenure::Guest(guest.clone()),
            _ => Tenure::Quarantine,
        };
        record.used = matches!(member.to, Owner::Guest(_)) || record.used && !member.was_reset;
        (record.intent, record.broken) = (false, None);
        // What could not be put back stays due; a guest that was promised nothing has the host's.
        let is_over = match member.to {
            Owner::Guest(_) => !self.networks.contains_key(&device),
            _ => member.is_network_restored,
        };
        record.network = record.network.filter(|_| !is_over);
        // What an attach took from the host waits from here on to go back there.
        record.giving_back = match (member.from, member.to) {
            (Owner::Guest(_), Owner::Quarantine) => record.managed,
            (Owner::Quarantine, Owner::Quarantine) => record.giving_back,
            _ => false,
        };
        if matches!(self.kind, Kind::Adopt) {
            record.original = Original::Unknown;
        }
    }

    /// What this device is left with is not known: a view's end failed, or its undo.
    pub(super) fn breaks(&self, device: Sbdf) {
        if let Some(member) = locked(&self.state).members.get_mut(&device) {
            member.is_broken = true;
        }
    }

    /// The engine has moved a device, or has not; it still has it, so nobody else changes its record.
    pub(super) fn ended(&self, core: &Core, device: Sbdf, error: Option<&TransitionError>) {
        if self.is_replay() {
            return;
        }
        let mut state = locked(&self.state);
        state.refusals.extend(error.map(|error| (device, error.clone())));
        let Some(member) = state.members.get(&device).cloned() else { return };
        drop(state);
        let is_broken = member.is_broken || error.is_some_and(|error| breaks(error, device));
        let change = |records: &mut Records| match error {
            None => self.commit(records, device, &member),
            Some(TransitionError::Gone(gone)) if *gone == device => drop(records.remove(&device)),
            Some(_) if is_broken => self.keep_broken(records, device, &member),
            Some(_) => restore(records, device, &member),
        };
        let is_done = !member.is_begun || error.is_none() && member.is_committed;
        let saved = if is_done { Ok(()) } else { core.book.correct(change) };
        let mut state = locked(&self.state);
        if let Err(errno) = saved {
            state.failures.push(WriteFailure { device, what: "write the journal".into(), errno });
        }
        state.members.remove(&device);
    }

    fn keep_broken(&self, records: &mut Records, device: Sbdf, member: &Member) {
        let reason = self.story(device).unwrap_or_else(|| "an undo failed".into());
        if let Some(record) = member.intent.clone() {
            records.insert(device, Record { intent: false, broken: Some(reason), ..record });
        }
    }
}

/// Whether a transition's error says that it broke this device.
fn breaks(error: &TransitionError, device: Sbdf) -> bool {
    matches!(error, TransitionError::Failed(failure) if failure.undo.iter().any(|undo| undo.device == device))
}

fn restore(records: &mut Records, device: Sbdf, member: &Member) {
    match &member.before {
        Some(before) => drop(records.insert(device, before.clone())),
        None => drop(records.remove(&device)),
    }
}

/// The driver that a device gets for guests: decided here, inside the transition, and recorded from now on.
fn choose_stub(core: &Core, device: Sbdf, choice: &DriverChoice) -> Result<DriverName, WriteFailure> {
    use super::driver_type::DriverType;
    let kernel = core.writer.kernel();
    let failed = |what: &str, errno| WriteFailure { device, what: what.into(), errno };
    let wanted = match choice {
        DriverChoice::Recorded(name) | DriverChoice::Configured(DriverType::Named(name)) => name.clone(),
        DriverChoice::Configured(DriverType::Xen) => {
            return Err(failed("a Linux host with VFIO has no driver type xen", Errno::EOPNOTSUPP));
        }
        DriverChoice::Configured(DriverType::Default | DriverType::Vfio) => {
            let best =
                variant::find(kernel, device).map_err(|errno| failed("look up its variant driver", errno))?;
            if let Some(found) = best.and_then(|best| loaded(core, &best)) {
                return Ok(found);
            }
            DriverName::vfio_pci()
        }
    };
    loaded(core, &wanted)
        .ok_or_else(|| failed(&format!("there is no driver {wanted}: load its module"), Errno::ENODEV))
}

/// The driver as the kernel spells it, loaded if it was not.
fn loaded(core: &Core, wanted: &DriverName) -> Option<DriverName> {
    let kernel = core.writer.kernel();
    let find = || {
        let names = kernel.list(&function::sys("bus/pci/drivers").ok()?, 1 << 16).ok()?;
        names.iter().find(|name| wanted == name.as_str())?.parse().ok()
    };
    find().or_else(|| {
        kernel.load_module(wanted.as_str()).ok()?;
        find()
    })
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("kind", &self.kind)
            .field("guest", &self.guest)
            .finish_non_exhaustive()
    }
}
