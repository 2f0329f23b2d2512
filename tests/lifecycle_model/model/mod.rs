//! The reference: what the contract says of ownership, on one thread and in plain collections.
//!
//! It knows nothing of claims, slots, steps or undo. An operation that cannot be is refused for every reason there
//! is, in no order ([`Verdict::refused`]): the life cycle must give one of them. An operation that can be changes the
//! collections.
//!
//! | file | what |
//! |---|---|
//! | `device` | one device, and how it changes its owner |
//! | `verdict` | what comes of an operation |
//! | `arrival`, `departure` | devices come, and leave |
//! | `assignment`, `give_back`, `seclusion` | they go to guests and come back, or are nobody's |
//! | `reach` | whom else that concerns |
//! | `reset`, `faults` | what happens to them where they are |
//! | `uses` | who holds them, and what hangs on them |

mod arrival;
mod assignment;
mod departure;
mod device;
mod faults;
mod give_back;
mod reach;
mod reset;
mod seclusion;
mod uses;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use pcidevs::platform::GroupId;
use pcidevs::{DomainId, Owner, Sbdf};

use crate::machine::{FUNCTIONS, Function, GROUPS};
use crate::operations::{GUESTS, Operation, Start};
use crate::stage::{Outcome, Reason, nth};
pub(crate) use device::{Device, Group};
use uses::Use;
pub(crate) use verdict::Verdict;
use verdict::{DONE, Reasons, no};

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

#[derive(Clone, Debug, Default)]
pub(crate) struct GuestState {
    pub(crate) dying: bool,
    /// Which device, and which one of those that were there, each of its addresses was given to.
    pub(crate) slots: BTreeMap<Sbdf, (Sbdf, u32)>,
}

impl Model {
    pub(crate) fn new(start: Start) -> Self {
        let plugged = FUNCTIONS.iter().map(Function::at).collect();
        let mut model = Self { plugged, ..Self::default() };
        for guest in &GUESTS[..2] {
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
            Operation::RunDeferred => Verdict::Is(Outcome::Count(self.run_deferred())),
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

    pub(crate) fn with_owner(&self, owner: Owner) -> impl Iterator<Item = Sbdf> + '_ {
        self.devices.iter().filter(move |(_, device)| device.owner == owner).map(|(at, _)| *at)
    }

    fn duplicates(set: &[(Sbdf, Option<Sbdf>)]) -> Reasons {
        let unique: BTreeSet<_> = set.iter().map(|(at, _)| at).collect();
        if unique.len() < set.len() { [Reason::Duplicate].into() } else { Reasons::new() }
    }
}
