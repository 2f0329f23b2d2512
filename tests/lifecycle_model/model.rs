//! The reference: what the contract says of ownership, on one thread and in plain collections.
//!
//! It knows nothing of claims, slots, steps or undo. An operation that cannot be is refused for every reason there
//! is, in no order ([`Verdict::refused`]): the life cycle must give one of them. An operation that can be changes the
//! collections.

use std::collections::{BTreeMap, BTreeSet};

use pcidevs::address::{DevFn, Segment};
use pcidevs::lifecycle::{Unplug, Visibility};
use pcidevs::platform::{AttachmentKind, GroupId, ResetSupport};
use pcidevs::{DomainId, Holder, Owner, Sbdf};

use super::machine::{FUNCTIONS, Function, GROUPS, Kind, at};
use super::operations::{Attached, Operation, Set, Start};
use super::stage::{HOLDER, Outcome, Reason, nth};

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) devices: BTreeMap<Sbdf, Device>,
    pub(crate) guests: BTreeMap<DomainId, GuestState>,
    /// Devices that are gone and whose leavings are not cleared up.
    pub(crate) teardown: BTreeMap<Sbdf, Device>,
    /// Requester IDs of devices that could be neither added nor undone, until that is cleared up.
    pub(crate) leftover: BTreeSet<Sbdf>,
    pub(crate) uses: Vec<Use>,
    pub(crate) tickets: Vec<(Sbdf, u32)>,
    /// Which of the functions are in the machine.
    pub(crate) plugged: BTreeSet<Sbdf>,
    drivers: BTreeSet<Sbdf>,
    open: BTreeSet<GroupId>,
    /// Faults of each function, and the time of the last.
    pub(crate) faults: BTreeMap<Sbdf, (u32, u64)>,
    now: u64,
    instances: u32,
}

/// One device that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Tells it from earlier and later ones at its address.
    pub(crate) instance: u32,
    pub(crate) owner: Owner,
    /// Where its guest sees it.
    pub(crate) seen_at: Option<Sbdf>,
    /// On its guest's list because its DMA may reach the guest, and for nothing else.
    pub(crate) dma_of: bool,
    pub(crate) broken: bool,
    pub(crate) removing: bool,
    /// Goes back to quarantine.
    pub(crate) sticky: bool,
    /// In quarantine until its group can go to the host.
    pub(crate) deferred: bool,
    pub(crate) read_only: bool,
    pub(crate) asked: bool,
    pub(crate) msix_table: bool,
    pub(crate) extended: bool,
    /// What its owner sees of it is set up.
    pub(crate) viewed: bool,
    pub(crate) attached: Vec<Attached>,
    /// What another owner was to see could not be taken away again.
    pub(crate) stuck: bool,
    pub(crate) bridge: Option<Sbdf>,
    pub(crate) pf: Option<Sbdf>,
    pub(crate) requesters: Vec<Sbdf>,
    pub(crate) group: Option<Group>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Platform(GroupId),
    /// Behind this bridge, which speaks for them.
    Alias(Sbdf),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct GuestState {
    pub(crate) dying: bool,
    /// Which device, and which one of those that were there, each of its addresses was given to.
    pub(crate) slots: BTreeMap<Sbdf, (Sbdf, u32)>,
}

/// A use of the embedder's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) device: Sbdf,
    pub(crate) instance: u32,
    named: bool,
}

/// What the model says of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Is(Outcome),
    Refused(BTreeSet<Reason>),
    /// The contract does not say.
    Any,
}

use Outcome::{Again, Count, Done, Flag, Pending};

type Reasons = BTreeSet<Reason>;

/// A verdict that lets an operation happen.
const DONE: Verdict = Verdict::Is(Done);

fn no(reason: Reason) -> Verdict {
    Verdict::Refused([reason].into())
}

impl Verdict {
    pub(crate) fn admits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Any, Outcome::Refused(reason)) => *reason != Reason::Impossible,
            (Self::Any, _) => true,
            (Self::Is(expected), outcome) => expected == outcome,
            (Self::Refused(reasons), Outcome::Refused(reason)) => reasons.contains(reason),
            (Self::Refused(_), _) => false,
        }
    }
}

impl Device {
    pub(crate) fn is_bridge(at: Sbdf) -> bool {
        Function::find(at).is_bridge()
    }

    fn shares_requester(&self, other: &Self) -> bool {
        self.requesters.iter().any(|id| other.requesters.contains(id))
    }

    /// It reaches no memory, or ought not to.
    fn is_blocked(&self) -> bool {
        self.broken || matches!(self.owner, Owner::Quarantine | Owner::Hidden)
    }

    /// Its binding ends: attachments, and what the owner asked for.
    fn unbind(&mut self) {
        (self.viewed, self.stuck) = (false, false);
        self.attached.clear();
    }

    /// It is with another owner.
    pub(crate) fn settle(&mut self, to: Owner, seen_at: Option<Sbdf>) {
        self.unbind();
        (self.owner, self.seen_at, self.dma_of) = (to, seen_at, false);
        self.viewed = matches!(to, Owner::Host | Owner::Guest(_));
        self.asked = false;
        self.deferred &= to == Owner::Quarantine;
        self.read_only = false;
    }

    /// What lists show, in order of registration.
    pub(crate) fn attachments(&self) -> Vec<AttachmentKind> {
        let view = self.viewed.then_some(AttachmentKind::Vpci);
        let table = self.msix_table.then_some(AttachmentKind::MsixTable);
        let stuck = self.stuck.then_some(AttachmentKind::Vpci);
        let registered = self.attached.iter().map(|kind| kind.kind());
        view.into_iter().chain(registered).chain(stuck).chain(table).collect()
    }
}

impl Model {
    pub(crate) fn new(start: Start) -> Self {
        let plugged = FUNCTIONS.iter().map(Function::at).collect();
        let mut model = Self { plugged, ..Self::default() };
        for guest in &super::operations::GUESTS[..2] {
            model.guests.insert(*guest, GuestState::default());
        }
        match start {
            Start::Empty => {}
            Start::Booted => {
                for function in FUNCTIONS {
                    let added = model.add(function.at(), false);
                    assert_eq!(added, DONE, "the machine boots");
                }
            }
            Start::Scanned => {
                model.scan();
            }
        }
        model
    }

    /// Carries an operation out, or says why not and leaves everything as it is.
    pub(crate) fn perform(&mut self, operation: &Operation) -> Verdict {
        match operation {
            Operation::Add { at, extended } => self.add(at.0, *extended),
            Operation::Assign { set, guest } => self.assign(&set.0, *guest),
            Operation::Deassign { set, from } => self.deassign(set, *from),
            Operation::Remove(at) => self.remove_set(&[at.0]),
            Operation::RemoveSlot(at) => self.remove_set(&self.with_dependants(&self.slot(at.0))),
            Operation::RemoveSubtree(at) if self.devices.contains_key(&at.0) && !Device::is_bridge(at.0) => {
                no(Reason::NotBridge)
            }
            Operation::RemoveSubtree(at) => self.remove_set(&self.with_dependants(&[at.0])),
            Operation::BeginRemoval(at) => self.begin_removal(at.0),
            Operation::TryComplete(ticket) => self.try_complete(*ticket),
            Operation::Cancel(ticket) => self.cancel(*ticket),
            Operation::ReportGone { at, pulled } => self.report_gone(at.0, *pulled),
            Operation::RunDeferred => Verdict::Is(Count(self.run_deferred())),
            Operation::Scan => self.scan(),
            Operation::SetHost => self.set_host(),
            Operation::Hide(at, visibility) => self.hide(at.0, *visibility),
            Operation::Quarantine(set) => self.quarantine(set),
            Operation::AssignGroup { at, guest } => self.assign_group(at.0, *guest),
            Operation::CanAssign { at, guest } => self.can_assign(at.0, *guest),
            Operation::ReleaseDomain(guest) => self.release_domain(*guest),
            Operation::CreateDomain(guest) => {
                if self.guests.contains_key(guest) {
                    return no(Reason::DomainExists);
                }
                self.guests.insert(*guest, GuestState::default());
                DONE
            }
            Operation::AcknowledgeGone { guest, at } => self.acknowledge(*guest, at.0),
            Operation::Reset(at, _) => self.reset(at.0),
            Operation::ReportReset(at, _) => self.report_reset(at.0),
            // Whether the DMA is blocked the machine says: see `repaired`.
            Operation::Repair(at) => match self.devices.get(&at.0) {
                None => no(Reason::NotFound),
                Some(device) if !device.broken => no(Reason::NotBroken),
                Some(_) => Verdict::Any,
            },
            Operation::ReportFault(at) => self.fault(at.0),
            Operation::ReportFlushTimeout(at) => self.flush_timeout(at.0),
            Operation::MsiPrepare(at) => self.msix_table(at.0, true),
            Operation::MsiRelease(at) => self.msix_table(at.0, false),
            Operation::RequestUnplug(at) => match self.devices.get_mut(&at.0) {
                None => no(Reason::NotFound),
                Some(device) if device.owner.guest().is_none() => no(Reason::NotOwned),
                Some(device) => {
                    device.asked = true;
                    DONE
                }
            },
            Operation::UnplugAnswered(at, guest, answer) => self.unplug_answered(at.0, *guest, *answer),
            Operation::Get(at) => self.take_use(at.0, false),
            Operation::Hold(at) => self.take_use(at.0, true),
            Operation::Drop(which) => {
                if let Some(place) = nth(*which, self.uses.len()) {
                    self.uses.remove(place);
                }
                DONE
            }
            Operation::Attach(at, kind) => match self.devices.get_mut(&at.0) {
                None => no(Reason::NotFound),
                Some(device) if device.broken => no(Reason::Broken),
                Some(device) => {
                    device.attached.push(*kind);
                    DONE
                }
            },
            Operation::Detach(at, kind) => self.detach(at.0, *kind),
            Operation::Isolate(_) | Operation::Enable(_) => DONE,
            Operation::SetDriver(at, present) => {
                if *present {
                    self.drivers.insert(at.0)
                } else {
                    self.drivers.remove(&at.0)
                };
                DONE
            }
            Operation::SetGroupInUse(group, in_use) => {
                let group = GROUPS[usize::from(*group) % GROUPS.len()];
                if *in_use {
                    self.open.insert(group)
                } else {
                    self.open.remove(&group)
                };
                DONE
            }
            Operation::Advance => {
                self.now += 20_000_000;
                DONE
            }
        }
    }

    // ---- devices come

    fn add(&mut self, at: Sbdf, extended: bool) -> Verdict {
        self.plugged.insert(at);
        let pf = Function::find(at).physical_function();
        let mut reasons = Reasons::new();
        if pf.is_some_and(|pf| !self.can_be_used(pf)) {
            reasons.insert(Reason::NoPf);
        }
        if let Some(device) = self.devices.get(&at) {
            if device.removing {
                reasons.insert(Reason::Busy);
            }
            let adopts = device.owner == Owner::Unowned && !device.broken;
            if adopts {
                reasons.extend(self.apart(&[at], |_| Owner::Host));
            }
            if !reasons.is_empty() {
                return Verdict::Refused(reasons);
            }
            if adopts {
                self.settle(at, Owner::Host, None);
            }
            if let Some(device) = self.devices.get_mut(&at)
                && pf.is_none()
            {
                device.extended = extended;
            }
            return Verdict::Is(Again);
        }
        reasons.extend(self.not_new(at, Owner::Host));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        let inherited = pf.and_then(|pf| self.devices.get(&pf)).is_some_and(|pf| pf.extended);
        let mut device = self.make(at);
        (device.pf, device.extended) = (pf, extended || inherited);
        device.settle(Owner::Host, None);
        self.devices.insert(at, device);
        DONE
    }

    /// Why no new device can be made known there.
    fn not_new(&self, at: Sbdf, to: Owner) -> Reasons {
        let mut reasons = Reasons::new();
        let parent = self.parent(at);
        if parent.is_some_and(|bridge| !self.can_be_used(bridge)) {
            reasons.insert(Reason::Busy);
        }
        // What is behind a bridge was set up without it.
        let behind = Function::find(at).behind();
        let is_behind = |other: &Sbdf| {
            let bus = other.bus().number();
            behind.is_some_and(|(first, last)| (first..=last).contains(&bus))
        };
        if self.devices.keys().any(is_behind) {
            reasons.insert(Reason::BridgeTooLate);
        }
        let requesters = self.requesters(at);
        // Leavings at its address, or at another one that its requests carry.
        if self.teardown.keys().any(|left| requesters.contains(left)) {
            reasons.insert(Reason::Busy);
        }
        // The host's tables under a name that somebody else's requests carry would be a way to the host's memory.
        let twins =
            self.devices.values().filter(|other| other.requesters.iter().any(|id| requesters.contains(id)));
        if to == Owner::Host
            && twins.into_iter().any(|twin| !matches!(twin.owner, Owner::Host | Owner::Unowned))
        {
            reasons.insert(Reason::Inseparable);
        }
        reasons
    }

    fn make(&mut self, at: Sbdf) -> Device {
        self.instances += 1;
        let group = match Function::find(at).group {
            Some(group) => Some(Group::Platform(GroupId(group))),
            None => self
                .alias(at)
                .or(self.requesters(at).last().filter(|_| at.device() == 3).copied())
                .map(Group::Alias),
        };
        Device {
            instance: self.instances,
            owner: Owner::Unowned,
            seen_at: None,
            dma_of: false,
            broken: false,
            removing: false,
            sticky: false,
            deferred: false,
            read_only: false,
            asked: false,
            msix_table: false,
            extended: false,
            viewed: false,
            attached: Vec::new(),
            stuck: false,
            bridge: self.parent(at),
            pf: None,
            requesters: self.requesters(at),
            group,
        }
    }

    fn scan(&mut self) -> Verdict {
        let mut answering: Vec<_> = FUNCTIONS
            .iter()
            .filter(|function| function.answers() && self.plugged.contains(&function.at()))
            .filter(|function| self.answers_at_all(function.at()))
            .map(Function::at)
            .collect();
        answering.sort_unstable();
        let mut new = 0;
        for at in answering {
            if self.devices.contains_key(&at) {
                continue;
            }
            let reasons = self.not_new(at, Owner::Unowned);
            if !reasons.is_empty() {
                return Verdict::Refused(reasons);
            }
            let device = self.make(at);
            self.devices.insert(at, device);
            new += 1;
        }
        Verdict::Is(Count(new))
    }

    /// Functions after the first are looked for only where the first one says that there are some.
    fn answers_at_all(&self, function: Sbdf) -> bool {
        let first = function.with_devfn(DevFn::new(function.device(), 0).expect("function 0"));
        let is_multifunction = FUNCTIONS.iter().any(|other| {
            other.at() == first && other.kind == Kind::FirstEndpoint && self.plugged.contains(&first)
        });
        function == first || is_multifunction
    }

    fn set_host(&mut self) -> Verdict {
        let unowned: Vec<_> = self.with_owner(Owner::Unowned).collect();
        let adopted: Vec<_> =
            unowned.into_iter().filter(|at| !self.devices[at].removing && !self.devices[at].broken).collect();
        let reasons = self.apart(&adopted, |_| Owner::Host);
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in adopted {
            self.settle(at, Owner::Host, None);
        }
        DONE
    }

    // ---- devices leave

    fn slot(&self, at: Sbdf) -> Vec<Sbdf> {
        let functions = (0..8).filter_map(|function| DevFn::new(at.device(), function));
        functions.map(|devfn| at.with_devfn(devfn)).filter(|at| self.devices.contains_key(at)).collect()
    }

    /// These devices, virtual functions, and what is behind bridges.
    fn with_dependants(&self, roots: &[Sbdf]) -> Vec<Sbdf> {
        let mut all: Vec<_> = roots.to_vec();
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            let behind = self.devices.contains_key(&at).then(|| Function::find(at).behind()).flatten();
            let more = self.devices.iter().filter(|(other, device)| {
                let bus = other.bus().number();
                device.pf == Some(at) || behind.is_some_and(|(first, last)| (first..=last).contains(&bus))
            });
            for (other, _) in more {
                if !all.contains(other) {
                    all.push(*other);
                }
            }
        }
        all
    }

    fn remove_set(&mut self, set: &[Sbdf]) -> Verdict {
        if set.is_empty() {
            return no(Reason::NotFound);
        }
        let mut reasons = Reasons::new();
        for at in set {
            match self.devices.get(at) {
                None => {
                    reasons.insert(Reason::NotFound);
                }
                Some(device) => {
                    if device.owner == Owner::Hidden {
                        reasons.insert(Reason::Hidden);
                    }
                    if device.removing || !self.holders(*at, set).is_empty() || self.unnamed(*at) > 0 {
                        reasons.insert(Reason::Busy);
                    }
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in set {
            self.forget(*at);
        }
        DONE
    }

    /// The device leaves, cleanly or not.
    fn forget(&mut self, at: Sbdf) -> Option<Device> {
        self.forget_faults(at);
        self.devices.remove(&at)
    }

    fn begin_removal(&mut self, at: Sbdf) -> Verdict {
        let mut reasons = Reasons::new();
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if device.owner == Owner::Hidden {
            reasons.insert(Reason::Hidden);
        }
        if device.removing {
            reasons.insert(Reason::Busy);
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        device.removing = true;
        let ticket = (at, device.instance);
        self.tickets.push(ticket);
        DONE
    }

    pub(crate) fn is_live(&self, (at, instance): (Sbdf, u32)) -> bool {
        self.devices.get(&at).is_some_and(|device| device.instance == instance)
    }

    fn try_complete(&mut self, ticket: u8) -> Verdict {
        let Some(place) = nth(ticket, self.tickets.len()) else { return DONE };
        let (at, instance) = self.tickets[place];
        if !self.is_live((at, instance)) {
            self.tickets.remove(place);
            return no(Reason::TicketGone);
        }
        if !self.holders(at, &[]).is_empty() || self.unnamed(at) > 0 {
            return Verdict::Is(Pending);
        }
        self.tickets.remove(place);
        self.forget(at);
        DONE
    }

    fn cancel(&mut self, ticket: u8) -> Verdict {
        let Some(place) = nth(ticket, self.tickets.len()) else { return DONE };
        let (at, instance) = self.tickets.remove(place);
        if !self.is_live((at, instance)) {
            return no(Reason::TicketGone);
        }
        if let Some(device) = self.devices.get_mut(&at) {
            device.removing = false;
        }
        DONE
    }

    fn report_gone(&mut self, at: Sbdf, pulled: bool) -> Verdict {
        if pulled {
            self.plugged.remove(&at);
        }
        if !self.devices.contains_key(&at) {
            return no(Reason::NotFound);
        }
        for gone in self.with_dependants(&[at]) {
            self.forget(gone);
        }
        DONE
    }

    // ---- devices move

    /// Why these devices cannot leave those that share a requester ID with them.
    fn apart(&self, moved: &[Sbdf], to: impl Fn(Sbdf) -> Owner) -> Reasons {
        let twins = |at: &Sbdf| {
            let device = &self.devices[at];
            let others = self
                .devices
                .iter()
                .filter(|(other, _)| !moved.contains(other) && !Device::is_bridge(**other));
            others.filter(|(_, other)| other.shares_requester(device)).any(|(_, twin)| match to(*at) {
                Owner::Host => !matches!(twin.owner, Owner::Host | Owner::Unowned),
                Owner::Quarantine | Owner::Hidden => !twin.is_blocked(),
                _ => true,
            })
        };
        if moved.iter().any(twins) { [Reason::Inseparable].into() } else { Reasons::new() }
    }

    /// Whom a reset of the device hits besides.
    fn reset_reaches(&self, at: Sbdf) -> Vec<Sbdf> {
        let same_bus = |other: &Sbdf| other.bus() == at.bus();
        let hit = |other: &Sbdf| match Function::find(at).reset {
            ResetSupport::Slot => same_bus(other) && other.device() == at.device(),
            ResetSupport::Bus => {
                same_bus(other) || {
                    let mut below = *other;
                    loop {
                        match self.parent(below) {
                            None => break false,
                            Some(bridge) if bridge.bus() == at.bus() => break true,
                            Some(bridge) => below = bridge,
                        }
                    }
                }
            }
            _ => false,
        };
        self.devices.keys().copied().filter(|other| *other != at && hit(other)).collect()
    }

    /// The first that is in the way of the reset of this device, which moves with the others.
    fn first_in_reset(&self, at: Sbdf, moved: &[Sbdf]) -> Option<&Device> {
        let is_hit = |other: &Sbdf| !moved.contains(other) && !Device::is_bridge(*other);
        let hit = self.reset_reaches(at).into_iter().filter(is_hit).map(|other| &self.devices[&other]);
        hit.into_iter().find(|other| other.owner != Owner::Quarantine)
    }

    /// Why the resets of these devices cannot be.
    fn resets(&self, moved: &[Sbdf]) -> Reasons {
        let mut reasons = Reasons::new();
        for at in moved {
            if Function::find(*at).reset == ResetSupport::Missing {
                reasons.insert(Reason::Failed);
            }
            let in_the_way = |other: &Sbdf| {
                !moved.contains(other)
                    && !Device::is_bridge(*other)
                    && self.devices[other].owner != Owner::Quarantine
            };
            if self.reset_reaches(*at).iter().any(in_the_way) {
                reasons.insert(Reason::OthersInReset);
            }
        }
        reasons
    }

    fn duplicates(set: &[(Sbdf, Option<Sbdf>)]) -> Reasons {
        let unique: BTreeSet<_> = set.iter().map(|(at, _)| at).collect();
        if unique.len() < set.len() { [Reason::Duplicate].into() } else { Reasons::new() }
    }

    fn guest_reasons(&self, guest: DomainId) -> Reasons {
        match self.guests.get(&guest) {
            None => [Reason::NoDomain].into(),
            Some(guest) if guest.dying => [Reason::Dying].into(),
            Some(_) => Reasons::new(),
        }
    }

    fn not_for_a_guest(&self, at: Sbdf) -> Reasons {
        let mut reasons = Reasons::new();
        let Some(device) = self.devices.get(&at) else { return [Reason::NotFound].into() };
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if !Function::find(at).is_endpoint() {
            reasons.insert(Reason::NotEndpoint);
        }
        match device.owner {
            Owner::Hidden => reasons.insert(Reason::Hidden),
            Owner::Guest(_) | Owner::Unowned => reasons.insert(Reason::Taken),
            _ => false,
        };
        if device.removing {
            reasons.insert(Reason::Busy);
        }
        reasons
    }

    fn can_assign(&self, at: Sbdf, guest: DomainId) -> Verdict {
        let mut reasons = self.guest_reasons(guest);
        reasons.extend(self.not_for_a_guest(at));
        if reasons.is_empty() { DONE } else { Verdict::Refused(reasons) }
    }

    fn assign(&mut self, set: &[(Sbdf, Option<Sbdf>)], guest: DomainId) -> Verdict {
        let mut reasons = self.guest_reasons(guest);
        reasons.extend(Self::duplicates(set));
        reasons.extend(set.iter().flat_map(|(at, _)| self.not_for_a_guest(*at)));
        let moved: Vec<_> = set.iter().map(|(at, _)| *at).collect();
        if moved.iter().all(|at| self.devices.contains_key(at)) {
            reasons.extend(self.apart(&moved, |_| Owner::Guest(guest)));
            reasons.extend(self.resets(&moved));
            if !self.groups_are_viable(&moved, guest) {
                reasons.insert(Reason::GroupNotViable);
            }
        }
        let mut wanted = BTreeSet::new();
        if let Some(guest) = self.guests.get(&guest) {
            for slot in set.iter().filter_map(|(_, wanted)| *wanted) {
                if guest.slots.contains_key(&slot) || !wanted.insert(slot) {
                    reasons.insert(Reason::SlotTaken);
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        let mut in_order = set.to_vec();
        // Who asks for an address comes before who takes what is left, in address order.
        in_order.sort_unstable_by_key(|(at, wanted)| (wanted.is_none(), *at));
        for (at, wanted) in in_order {
            let slots = &mut self.guests.get_mut(&guest).expect("checked").slots;
            let free = (0..).map(|place| Sbdf::from_bdf(Segment::new(0), place << 3));
            let slot = wanted.or_else(|| free.into_iter().find(|slot| !slots.contains_key(slot)));
            slots.insert(slot.expect("there are many"), (at, self.devices[&at].instance));
            self.settle(at, Owner::Guest(guest), slot);
        }
        DONE
    }

    /// Every other member of the groups is with this guest, has no driver, is nobody's or a bridge.
    fn groups_are_viable(&self, moved: &[Sbdf], guest: DomainId) -> bool {
        let groups: Vec<_> = moved.iter().filter_map(|at| self.devices[at].group).collect();
        let in_the_way = |(at, device): (&Sbdf, &Device)| {
            let in_group = device.group.is_some_and(|group| groups.contains(&group));
            let is_in_the_way = match device.owner {
                Owner::Guest(_) => device.owner != Owner::Guest(guest),
                Owner::Host => self.drivers.contains(at),
                _ => false,
            };
            in_group
                && matches!(device.group, Some(Group::Platform(_)))
                && !moved.contains(at)
                && is_in_the_way
        };
        !self.devices.iter().any(in_the_way)
    }

    fn assign_group(&mut self, at: Sbdf, guest: DomainId) -> Verdict {
        let Some(device) = self.devices.get(&at) else { return no(Reason::NotFound) };
        let group = device.group;
        let is_member =
            |(other, device): &(&Sbdf, &Device)| **other == at || group.is_some() && device.group == group;
        let members = self.devices.iter().filter(is_member).map(|(at, _)| *at);
        let set: Vec<_> = members.filter(|at| !Device::is_bridge(*at)).map(|at| (at, None)).collect();
        self.assign(&set, guest)
    }

    fn deassign(&mut self, set: &Set, from: Owner) -> Verdict {
        let mut reasons = Self::duplicates(&set.0);
        let members: Vec<_> = set.0.iter().map(|(at, _)| *at).collect();
        for at in &members {
            match self.devices.get(at) {
                None => {
                    reasons.insert(Reason::NotFound);
                }
                Some(device) => {
                    if device.owner != from || !matches!(from, Owner::Guest(_) | Owner::Quarantine) {
                        reasons.insert(Reason::NotOwned);
                    }
                    if device.broken {
                        reasons.insert(Reason::Broken);
                    }
                }
            }
        }
        if !reasons.is_empty() {
            if members.iter().all(|at| self.devices.contains_key(at)) {
                reasons.extend(self.apart(&members, |_| Owner::Unowned));
                reasons.extend(self.resets(&members));
            }
            return Verdict::Refused(reasons);
        }
        let mut moved: Vec<_> = members.iter().filter_map(|at| Some((*at, self.way_back(*at)?))).collect();
        // Who shares a requester ID goes to one place.
        let kept = |moved: &[(Sbdf, (Owner, bool))]| {
            let shares = |one: Sbdf, other: Sbdf| self.devices[&one].shares_requester(&self.devices[&other]);
            moved.iter().position(|(at, (to, _))| {
                let leads =
                    |(other, (to, _)): &(Sbdf, (Owner, bool))| *to != Owner::Host && shares(*at, *other);
                *to == Owner::Host && moved.iter().any(leads)
            })
        };
        while let Some(place) = kept(&moved) {
            moved[place].1 = (Owner::Quarantine, false);
        }
        let leaving: Vec<_> =
            moved.iter().map(|(at, _)| *at).filter(|at| self.way_back(*at) != Some((from, true))).collect();
        let apart = |moved: &[(Sbdf, (Owner, bool))]| {
            let to = |at: Sbdf| moved.iter().find(|(moved, _)| *moved == at).map_or(from, |(_, (to, _))| *to);
            self.apart(&leaving, to)
        };
        reasons.extend(apart(&moved));
        if from.guest().is_some() {
            // What the host cannot have without a reset of somebody else's device waits for it in quarantine.
            for at in &leaving {
                match self.first_in_reset(*at, &leaving) {
                    Some(other) if other.owner == from && !other.broken => {
                        reasons.insert(Reason::OthersInReset);
                    }
                    Some(_) => {
                        let member = moved.iter_mut().find(|(member, _)| member == at).expect("leaves");
                        if member.1.0 == Owner::Host {
                            member.1 = (Owner::Quarantine, false);
                        }
                    }
                    None => {}
                }
            }
            while let Some(place) = kept(&moved) {
                moved[place].1 = (Owner::Quarantine, false);
            }
            reasons.extend(apart(&moved));
            if leaving.iter().any(|at| Function::find(*at).reset == ResetSupport::Missing) {
                reasons.insert(Reason::Failed);
            }
        } else {
            reasons.extend(self.resets(&leaving));
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for (at, (to, deferred)) in moved {
            if to != from {
                self.settle(at, to, None);
            }
            let device = self.devices.get_mut(&at).expect("checked");
            device.deferred |= deferred;
            if to == Owner::Host {
                device.sticky = false;
            }
        }
        for at in members {
            self.give_back(at);
        }
        DONE
    }

    /// Where a device goes that a guest gives back, or that leaves quarantine, and whether it waits there for its
    /// group; `None` if it stays.
    fn way_back(&self, at: Sbdf) -> Option<(Owner, bool)> {
        let device = &self.devices[&at];
        let from_guest = device.owner.guest().is_some();
        if device.removing {
            return from_guest.then_some((Owner::Quarantine, false));
        }
        let mut twins = self.devices.iter().filter(|(other, twin)| {
            **other != at && !Device::is_bridge(**other) && twin.shares_requester(device)
        });
        // By an ID of both a device that is to be kept from all memory would reach the host's.
        if from_guest && (device.sticky || twins.any(|(_, twin)| twin.is_blocked())) {
            return Some((Owner::Quarantine, false));
        }
        if let Some(Group::Platform(group)) = device.group {
            let alone = self.devices.values().filter(|other| other.group == device.group).count() == 1;
            if !alone || self.open.contains(&group) {
                return Some((Owner::Quarantine, true));
            }
        }
        Some((Owner::Host, false))
    }

    /// What waits in this device's group goes to the host, if nobody stands in the way.
    fn give_back(&mut self, at: Sbdf) {
        let Some(Group::Platform(group)) = self.devices.get(&at).and_then(|device| device.group) else {
            return;
        };
        let members: Vec<_> = self
            .devices
            .iter()
            .filter(|(_, device)| device.group == Some(Group::Platform(group)))
            .map(|(at, _)| *at)
            .collect();
        if self.open.contains(&group) || members.iter().any(|at| self.devices[at].owner.guest().is_some()) {
            return;
        }
        let waits = |at: &Sbdf| {
            let device = &self.devices[at];
            device.deferred && device.owner == Owner::Quarantine && !device.removing && !device.broken
        };
        let waiting: Vec<_> = members.into_iter().filter(waits).collect();
        if self.resets(&waiting).is_empty() && self.apart(&waiting, |_| Owner::Host).is_empty() {
            for at in waiting {
                self.settle(at, Owner::Host, None);
                self.devices.get_mut(&at).expect("a member").sticky = false;
            }
        }
    }

    fn quarantine(&mut self, set: &Set) -> Verdict {
        let mut reasons = Self::duplicates(&set.0);
        for (at, _) in &set.0 {
            let Some(device) = self.devices.get(at) else {
                reasons.insert(Reason::NotFound);
                continue;
            };
            if device.broken {
                reasons.insert(Reason::Broken);
            }
            if !Function::find(*at).is_endpoint() {
                reasons.insert(Reason::NotEndpoint);
            }
            match device.owner {
                Owner::Hidden => reasons.insert(Reason::Hidden),
                Owner::Guest(_) => reasons.insert(Reason::Taken),
                _ => false,
            };
        }
        let known = |at: &Sbdf| self.devices.get(at).is_some_and(|device| device.owner != Owner::Quarantine);
        let moved: Vec<_> = set.0.iter().map(|(at, _)| *at).filter(known).collect();
        reasons.extend(self.apart(&moved, |_| Owner::Quarantine));
        reasons.extend(self.resets(&moved));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for (at, _) in &set.0 {
            if moved.contains(at) {
                self.settle(*at, Owner::Quarantine, None);
            }
            let device = self.devices.get_mut(at).expect("checked");
            (device.sticky, device.deferred) = (true, false);
        }
        DONE
    }

    fn hide(&mut self, at: Sbdf, visibility: Visibility) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        let read_only = visibility == Visibility::ReadOnly;
        if device.owner == Owner::Hidden {
            device.read_only = read_only;
            return DONE;
        }
        let mut reasons = Reasons::new();
        if device.owner.guest().is_some() {
            reasons.insert(Reason::Taken);
        }
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if device.removing || !self.holders(at, &[]).is_empty() || self.unnamed(at) > 0 {
            reasons.insert(Reason::Busy);
        }
        reasons.extend(self.apart(&[at], |_| Owner::Hidden));
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        self.settle(at, Owner::Hidden, None);
        self.devices.get_mut(&at).expect("checked").read_only = read_only;
        DONE
    }

    fn release_domain(&mut self, id: DomainId) -> Verdict {
        let Some(guest) = self.guests.get_mut(&id) else { return no(Reason::NoDomain) };
        guest.dying = true;
        let from = Owner::Guest(id);
        let devices: Vec<_> = self.with_owner(from).collect();
        let mut first = None;
        for at in devices {
            if self.devices[&at].owner != from {
                continue;
            }
            let alone = self.deassign(&Set(vec![(at, None)]), from);
            let apart = [Reason::Inseparable, Reason::OthersInReset];
            let verdict = match alone {
                Verdict::Refused(reasons) if reasons.iter().any(|reason| apart.contains(reason)) => {
                    let together = self.deassign(&Set(self.inseparable(at, from)), from);
                    match together {
                        Verdict::Refused(more) => Verdict::Refused(reasons.union(&more).copied().collect()),
                        done => done,
                    }
                }
                verdict => verdict,
            };
            if let Verdict::Refused(reasons) = verdict {
                first.get_or_insert(Verdict::Refused(reasons));
            }
        }
        if let Some(refused) = first {
            return refused;
        }
        self.guests.remove(&id);
        DONE
    }

    /// The device and those of the same owner that it cannot leave without.
    fn inseparable(&self, at: Sbdf, from: Owner) -> Vec<(Sbdf, Option<Sbdf>)> {
        let mut all = vec![at];
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            let hit = self.reset_reaches(at);
            for (other, device) in &self.devices {
                let tied = hit.contains(other) || device.shares_requester(&self.devices[&at]);
                if tied && device.owner == from && !all.contains(other) {
                    all.push(*other);
                }
            }
        }
        all.into_iter().map(|at| (at, None)).collect()
    }

    fn acknowledge(&mut self, guest: DomainId, at: Sbdf) -> Verdict {
        let Some(state) = self.guests.get(&guest) else { return no(Reason::NoDomain) };
        let stale = state.slots.get(&at).is_some_and(|(device, instance)| {
            let seen = self.devices.get(device).filter(|device| device.instance == *instance);
            seen.is_none_or(|device| (device.owner, device.seen_at) != (Owner::Guest(guest), Some(at)))
        });
        if stale && let Some(state) = self.guests.get_mut(&guest) {
            state.slots.remove(&at);
        }
        Verdict::Is(Flag(stale))
    }

    /// Moves one device: the address its guest saw it at is free, its faults are forgotten.
    fn settle(&mut self, at: Sbdf, to: Owner, seen_at: Option<Sbdf>) {
        self.forget_faults(at);
        let Some(device) = self.devices.get_mut(&at) else { return };
        let left = device.owner.guest().zip(device.seen_at);
        device.settle(to, seen_at);
        if let Some((guest, slot)) = left
            && let Some(guest) = self.guests.get_mut(&guest)
        {
            guest.slots.remove(&slot);
        }
    }

    // ---- devices stay

    fn reset(&mut self, at: Sbdf) -> Verdict {
        let Some(device) = self.devices.get(&at) else { return no(Reason::NotFound) };
        let owner = device.owner;
        let mut reasons = self.not_to_reset(at);
        if Function::find(at).reset == ResetSupport::Missing {
            reasons.insert(Reason::Failed);
        }
        let mut reset = vec![at];
        for other in self.reset_reaches(at) {
            let is_same = self.devices[&other].owner == owner;
            match self.devices[&other].owner {
                _ if Device::is_bridge(other) => {}
                _ if is_same => {
                    reasons.extend(self.not_to_reset(other));
                    reset.push(other);
                }
                Owner::Quarantine => {}
                _ => {
                    reasons.insert(Reason::OthersInReset);
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        for at in reset {
            self.rebind(at);
        }
        DONE
    }

    fn report_reset(&mut self, at: Sbdf) -> Verdict {
        if !self.devices.contains_key(&at) {
            return no(Reason::NotFound);
        }
        let reasons = self.not_to_reset(at);
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        self.rebind(at);
        DONE
    }

    fn not_to_reset(&self, at: Sbdf) -> Reasons {
        let device = &self.devices[&at];
        let mut reasons = Reasons::new();
        if device.broken {
            reasons.insert(Reason::Broken);
        }
        if device.owner == Owner::Hidden {
            reasons.insert(Reason::Hidden);
        }
        reasons
    }

    /// What the owner sees is made anew, and everything else of the binding has ended.
    fn rebind(&mut self, at: Sbdf) {
        self.forget_faults(at);
        if let Some(device) = self.devices.get_mut(&at) {
            device.attached.clear();
            device.viewed = matches!(device.owner, Owner::Host | Owner::Guest(_));
        }
    }

    /// A broken device was repaired.
    pub(crate) fn repaired(&mut self, at: Sbdf) {
        self.settle(at, Owner::Quarantine, None);
        if let Some(device) = self.devices.get_mut(&at) {
            device.broken = false;
        }
        self.give_back(at);
    }

    fn fault(&mut self, requester: Sbdf) -> Verdict {
        let is_phantom = |(_, device): &(&Sbdf, &Device)| {
            let same_slot = |at: Sbdf| (at.bus(), at.device()) == (requester.bus(), requester.device());
            device.requesters.contains(&requester) && same_slot(device.requesters[0])
        };
        let function = self.devices.iter().find(is_phantom).map_or(requester, |(at, _)| *at);
        if !self.devices.contains_key(&function) {
            return Verdict::Any;
        }
        let (count, last) = self.faults.get(&function).copied().unwrap_or_default();
        let recent = self.now - last <= 10_000_000;
        let count = (if recent { count } else { count / 2 } + 1).min(255);
        self.faults.insert(function, (count, self.now));
        Verdict::Is(Count(count as usize))
    }

    /// Faults were counted of what is no device's.
    pub(crate) fn counted(&mut self, requester: Sbdf, count: u32) {
        self.faults.insert(requester, (count, self.now));
    }

    fn forget_faults(&mut self, at: Sbdf) {
        if let Some((count, last)) = self.faults.get_mut(&at) {
            (*count, *last) = (0, 0);
        }
    }

    /// The devices whose bus mastering is to be switched off.
    pub(crate) fn noisy(&self) -> impl Iterator<Item = Sbdf> + '_ {
        let noisy = self.faults.iter().filter(|(_, (count, _))| *count >= 10);
        noisy.map(|(at, _)| *at).filter(|at| self.devices.contains_key(at))
    }

    fn flush_timeout(&mut self, at: Sbdf) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if device.owner.guest().is_some() {
            // Out of its guest's sight; the address there stays taken, as if the device were gone.
            (device.broken, device.dma_of, device.seen_at) = (true, true, None);
        }
        DONE
    }

    fn msix_table(&mut self, at: Sbdf, mapped: bool) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        let mut reasons = Reasons::new();
        if !Function::find(at).has_msix() {
            reasons.insert(Reason::NoMsix);
        }
        if device.attached.contains(&Attached::Vector) {
            reasons.insert(Reason::VectorsInUse);
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        device.msix_table = mapped;
        DONE
    }

    fn unplug_answered(&mut self, at: Sbdf, guest: DomainId, answer: Unplug) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        if !device.asked {
            return no(Reason::NotAsked);
        }
        if device.owner != Owner::Guest(guest) {
            return no(Reason::NotOwned);
        }
        match answer {
            Unplug::Acked => {
                let owner = device.owner;
                self.deassign(&Set(vec![(at, None)]), owner)
            }
            Unplug::Rejected => {
                device.asked = false;
                DONE
            }
            Unplug::TimedOut => DONE,
        }
    }

    fn take_use(&mut self, at: Sbdf, named: bool) -> Verdict {
        if !self.can_be_used(at) {
            return no(Reason::NotFound);
        }
        let instance = self.devices[&at].instance;
        self.uses.push(Use { device: at, instance, named });
        DONE
    }

    fn detach(&mut self, at: Sbdf, kind: Attached) -> Verdict {
        match self.devices.get(&at) {
            None => no(Reason::NotFound),
            // Some of what is listed may be undone already.
            Some(device) if device.broken => Verdict::Any,
            Some(_) => Verdict::Is(Flag(self.detached(at, kind))),
        }
    }

    /// The attachment of this kind that was registered last is the embedder's again.
    pub(crate) fn detached(&mut self, at: Sbdf, kind: Attached) -> bool {
        let Some(device) = self.devices.get_mut(&at) else { return false };
        let last = device.attached.iter().rposition(|other| *other == kind);
        if let Some(last) = last {
            device.attached.remove(last);
        }
        last.is_some()
    }

    fn run_deferred(&mut self) -> usize {
        self.teardown.clear();
        self.leftover.clear();
        let waiting: Vec<_> = self.waiting().collect();
        for at in waiting {
            self.give_back(at);
        }
        self.waiting().count()
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = Sbdf> + '_ {
        self.with_owner(Owner::Quarantine).filter(|at| self.devices[at].deferred)
    }

    // ---- what is where

    pub(crate) fn with_owner(&self, owner: Owner) -> impl Iterator<Item = Sbdf> + '_ {
        self.devices.iter().filter(move |(_, device)| device.owner == owner).map(|(at, _)| *at)
    }

    fn can_be_used(&self, at: Sbdf) -> bool {
        self.devices.get(&at).is_some_and(|device| !device.removing)
    }

    /// The known bridge right above.
    fn parent(&self, at: Sbdf) -> Option<Sbdf> {
        let range = |bridge: &Sbdf| Function::find(*bridge).behind();
        let above = self.devices.keys().filter(|bridge| {
            **bridge != at
                && range(bridge).is_some_and(|(first, last)| (first..=last).contains(&at.bus().number()))
        });
        above.max_by_key(|bridge| range(bridge)).copied()
    }

    /// The name that the known bridge to conventional PCI above a device gives to its requests.
    fn alias(&self, at: Sbdf) -> Option<Sbdf> {
        let bridge = self.parent(at)?;
        match Function::find(bridge).kind {
            Kind::ToPci(bus) => Some(Sbdf::from_bdf(Segment::new(0), u16::from(bus) << 8)),
            _ => None,
        }
    }

    fn requesters(&self, device: Sbdf) -> Vec<Sbdf> {
        let own = FUNCTIONS.iter().find(|function| function.at() == device);
        let more = own.into_iter().flat_map(|function| function.more_requesters).map(|id| at(id));
        let alias = self.alias(device).filter(|alias| *alias != device);
        core::iter::once(device).chain(more).chain(alias).collect()
    }

    /// Who is named as a holder of a device, but for members of `set` that depend on it.
    pub(crate) fn holders(&self, at: Sbdf, set: &[Sbdf]) -> Vec<Holder> {
        let device = &self.devices[&at];
        let mut holders: Vec<_> = device
            .owner
            .guest()
            .map(|guest| if device.dma_of { Holder::DmaOf(guest) } else { Holder::Domain(guest) })
            .into_iter()
            .collect();
        for (other, dependant) in self.devices.iter().filter(|(other, _)| !set.contains(other)) {
            holders.extend((dependant.pf == Some(at)).then_some(Holder::Vf(*other)));
            holders.extend((dependant.bridge == Some(at)).then_some(Holder::Child(*other)));
        }
        let named = self.uses_of(at).filter(|held| held.named);
        holders.extend(named.map(|_| HOLDER));
        holders
    }

    pub(crate) fn unnamed(&self, at: Sbdf) -> u32 {
        let unnamed = self.uses_of(at).filter(|held| !held.named).count();
        u32::try_from(unnamed).expect("few")
    }

    fn uses_of(&self, at: Sbdf) -> impl Iterator<Item = &Use> {
        let instance = self.devices.get(&at).map(|device| device.instance);
        self.uses.iter().filter(move |held| held.device == at && Some(held.instance) == instance)
    }

    /// How many objects the embedder's data is alive in.
    pub(crate) fn objects(&self) -> usize {
        let gone = self.uses.iter().map(|held| (held.device, held.instance));
        let left = self.teardown.iter().map(|(at, device)| (*at, device.instance));
        let gone: BTreeSet<_> = gone.chain(left).filter(|object| !self.is_live(*object)).collect();
        self.devices.len() + gone.len()
    }
}
