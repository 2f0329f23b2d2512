//! What can be done to the machine, and how it is read from bytes.
//!
//! The same decoder serves the property tests and the fuzzer: eight bytes are one step, every eight bytes are a
//! valid one, and smaller bytes are simpler steps, so that both shrink well.

use core::fmt;

use pcidevs::lifecycle::{Unplug, Visibility};
use pcidevs::platform::ResetKind;
use pcidevs::{DomainId, Owner, Sbdf};

use super::machine::{FUNCTIONS, at};

/// The bytes of a step.
pub(crate) const STEP: usize = 8;

/// A function of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Sbdf);

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of functions, and where the guest shall see each.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Set(pub(crate) Vec<(Sbdf, Option<Sbdf>)>);

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = |(device, wanted): &(Sbdf, Option<Sbdf>)| match wanted {
            Some(wanted) => format!("{device} as {wanted}"),
            None => device.to_string(),
        };
        write!(f, "[{}]", self.0.iter().map(member).collect::<Vec<_>>().join(", "))
    }
}

/// A kind of attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    Vector,
    Irqfd,
}

/// One call into the life cycle, or something that happens around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add {
        at: At,
        extended: bool,
    },
    Assign {
        set: Set,
        guest: DomainId,
    },
    Deassign {
        set: Set,
        from: Owner,
    },
    Remove(At),
    RemoveSlot(At),
    RemoveSubtree(At),
    BeginRemoval(At),
    TryComplete(u8),
    Cancel(u8),
    ReportGone {
        at: At,
        pulled: bool,
    },
    RunDeferred,
    Scan,
    SetHost,
    Hide(At, Visibility),
    Quarantine(Set),
    AssignGroup {
        at: At,
        guest: DomainId,
    },
    CanAssign {
        at: At,
        guest: DomainId,
    },
    ReleaseDomain(DomainId),
    CreateDomain(DomainId),
    AcknowledgeGone {
        guest: DomainId,
        at: At,
    },
    Reset(At, ResetKind),
    ReportReset(At, ResetKind),
    Repair(At),
    /// The embedder blocks a device's DMA by its own means, so that it can be repaired.
    Isolate(At),
    ReportFault(At),
    ReportFlushTimeout(At),
    MsiPrepare(At),
    MsiRelease(At),
    RequestUnplug(At),
    UnplugAnswered(At, DomainId, Unplug),
    Get(At),
    Hold(At),
    /// One of the uses that were taken.
    Drop(u8),
    Attach(At, Attached),
    Detach(At, Attached),
    /// The owner switches bus mastering, MSI-X and ATS on.
    Enable(At),
    SetDriver(At, bool),
    SetGroupInUse(u8, bool),
    Advance,
}

/// What meets a call, counted from the beginning of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) call: u8,
    pub(crate) of: Callee,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    Hook,
    Attachment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Error,
    Panic,
}

/// One step: an operation, and what goes wrong in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) troubles: Vec<Trouble>,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.operation)?;
        for Trouble { call, of, how } in &self.troubles {
            write!(f, " !{of:?} {call}: {how:?}")?;
        }
        Ok(())
    }
}

/// How the machine is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Everything is known, and the host's.
    Booted,
    /// Nothing is known.
    Empty,
    /// Everything that answers is known, and there is no host yet.
    Scanned,
}

impl Start {
    /// Every byte is one.
    pub(crate) fn decode(byte: u8) -> Self {
        match byte {
            0..=191 => Self::Booted,
            192..=223 => Self::Empty,
            _ => Self::Scanned,
        }
    }
}

/// The guests' addresses that are asked for by name.
pub(crate) const WANTED: [&str; 4] = ["0000:00:00.0", "0000:00:02.0", "0000:00:02.1", "0000:01:00.0"];

/// The guests there can be.
pub(crate) const GUESTS: [DomainId; 3] = [DomainId::new(1), DomainId::new(2), DomainId::new(u32::MAX)];

/// How many of 256 first bytes mean each operation.
const WEIGHTS: &[(u8, fn(u8, u8, u8) -> Operation)] = &[
    (16, |a, b, _| Operation::Add { at: place(a), extended: b & 1 != 0 }),
    (30, |a, b, c| Operation::Assign { set: set(a, b), guest: guest(c) }),
    (20, |a, b, c| Operation::Deassign { set: set(a, b), from: from(c) }),
    (9, |a, _, _| Operation::Remove(place(a))),
    (4, |a, _, _| Operation::RemoveSlot(place(a))),
    (4, |a, _, _| Operation::RemoveSubtree(bridge(a))),
    (8, |a, _, _| Operation::BeginRemoval(place(a))),
    (6, |a, _, _| Operation::TryComplete(a)),
    (3, |a, _, _| Operation::Cancel(a)),
    (9, |a, b, _| Operation::ReportGone { at: place(a), pulled: b & 1 != 0 }),
    (9, |_, _, _| Operation::RunDeferred),
    (2, |_, _, _| Operation::Scan),
    (3, |_, _, _| Operation::SetHost),
    (3, |a, b, _| {
        Operation::Hide(place(a), if b & 1 == 0 { Visibility::None } else { Visibility::ReadOnly })
    }),
    (12, |a, b, _| Operation::Quarantine(set(a, b))),
    (8, |a, _, c| Operation::AssignGroup { at: place(a), guest: guest(c) }),
    (3, |a, _, c| Operation::CanAssign { at: place(a), guest: guest(c) }),
    (9, |a, _, _| Operation::ReleaseDomain(guest(a))),
    (6, |a, _, _| Operation::CreateDomain(guest(a))),
    (4, |a, b, _| Operation::AcknowledgeGone {
        guest: guest(a),
        at: At(at(WANTED[usize::from(b) % WANTED.len()])),
    }),
    (8, |a, b, _| Operation::Reset(place(a), reset_kind(b))),
    (4, |a, b, _| Operation::ReportReset(place(a), reset_kind(b))),
    (8, |a, _, _| Operation::Repair(place(a))),
    (5, |a, _, _| Operation::Isolate(place(a))),
    (5, |a, b, _| Operation::ReportFault(requester(a, b))),
    (4, |a, _, _| Operation::ReportFlushTimeout(place(a))),
    (4, |a, _, _| Operation::MsiPrepare(place(a))),
    (4, |a, _, _| Operation::MsiRelease(place(a))),
    (5, |a, _, _| Operation::RequestUnplug(place(a))),
    (5, |a, b, c| Operation::UnplugAnswered(place(a), guest(c), answer(b))),
    (5, |a, _, _| Operation::Get(place(a))),
    (5, |a, _, _| Operation::Hold(place(a))),
    (9, |a, _, _| Operation::Drop(a)),
    (7, |a, b, _| Operation::Attach(place(a), attached(b))),
    (3, |a, b, _| Operation::Detach(place(a), attached(b))),
    (3, |a, _, _| Operation::Enable(place(a))),
    (2, |a, b, _| Operation::SetDriver(place(a), b & 1 == 0)),
    (3, |a, b, _| Operation::SetGroupInUse(a, b & 1 == 0)),
    (1, |_, _, _| Operation::Advance),
];

fn place(byte: u8) -> At {
    At(FUNCTIONS[usize::from(byte) % FUNCTIONS.len()].at())
}

fn bridge(byte: u8) -> At {
    let bridges: Vec<_> = FUNCTIONS.iter().filter(|function| function.is_bridge()).collect();
    // Most are; some are not.
    bridges.get(usize::from(byte) % (bridges.len() + 1)).map_or(place(byte), |function| At(function.at()))
}

/// The function itself or, more rarely, another name of it.
fn requester(place_of: u8, name: u8) -> At {
    let function = &FUNCTIONS[usize::from(place_of) % FUNCTIONS.len()];
    let more = function.more_requesters;
    At(more.get(usize::from(name) % (more.len() + 1)).map_or(function.at(), |id| at(id)))
}

fn guest(byte: u8) -> DomainId {
    match byte {
        0..=150 => GUESTS[0],
        151..=240 => GUESTS[1],
        _ => GUESTS[2],
    }
}

fn from(byte: u8) -> Owner {
    match byte {
        0..=150 => Owner::Guest(GUESTS[0]),
        151..=190 => Owner::Guest(GUESTS[1]),
        191..=245 => Owner::Quarantine,
        _ => Owner::Host,
    }
}

/// A function and some of its next neighbours, which in the table are its siblings: the low bits say which. The
/// upper ones ask for an address, or name a member twice.
fn set(first: u8, which: u8) -> Set {
    let chosen = (0..4).filter(|place| which >> place & 1 != 0 || *place == 0 && which & 0xf == 0);
    let mut members: Vec<_> = chosen.map(|place| (place_after(first, place), None)).collect();
    match which >> 4 {
        wanted @ 8..=11 => members[0].1 = Some(at(WANTED[usize::from(wanted - 8)])),
        12 => members.push(members[0]),
        13 => members.clear(),
        14 => members.reverse(),
        _ => {}
    }
    Set(members)
}

fn place_after(first: u8, distance: u8) -> Sbdf {
    FUNCTIONS[(usize::from(first) + usize::from(distance)) % FUNCTIONS.len()].at()
}

fn reset_kind(byte: u8) -> ResetKind {
    ResetKind::from_flags(u32::from(byte & 3)).unwrap_or(ResetKind::Flr)
}

fn answer(byte: u8) -> Unplug {
    match byte % 4 {
        0 | 1 => Unplug::Acked,
        2 => Unplug::Rejected,
        _ => Unplug::TimedOut,
    }
}

fn attached(byte: u8) -> Attached {
    if byte & 1 == 0 { Attached::Irqfd } else { Attached::Vector }
}

impl Step {
    /// Every eight bytes are a step.
    pub(crate) fn decode(bytes: [u8; STEP]) -> Self {
        let [kind, a, b, c, when, how, again, third] = bytes;
        Self { operation: operation(kind, a, b, c), troubles: troubles(when, how, again, third) }
    }
}

fn operation(kind: u8, a: u8, b: u8, c: u8) -> Operation {
    let mut left = u32::from(kind);
    let total: u32 = WEIGHTS.iter().map(|(weight, _)| u32::from(*weight)).sum();
    left = left * total / 256;
    for (weight, make) in WEIGHTS {
        match left.checked_sub(u32::from(*weight)) {
            Some(rest) => left = rest,
            None => return make(a, b, c),
        }
    }
    Operation::RunDeferred
}

/// Half of all steps meet no trouble; the others one at a call near the beginning and often a second one soon after,
/// which is where the undo is.
fn troubles(when: u8, how: u8, again: u8, third: u8) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let Some(first) = when.checked_sub(128) else { return troubles };
    let panics = |bit: u8| if how >> bit & 1 == 0 { How::Error } else { How::Panic };
    let of = if how >> 4 == 1 { Callee::Attachment } else { Callee::Hook };
    let first = if of == Callee::Hook { first / 3 } else { first % 3 };
    troubles.push(Trouble { call: first, of, how: panics(0) });
    let mut call = if of == Callee::Hook { first } else { 0 };
    for (more, bit) in [(again, 1), (third, 2)] {
        let Some(distance) = more.checked_sub(96) else { break };
        let of = if how >> 5 & 3 == 1 && bit == 1 { Callee::Attachment } else { Callee::Hook };
        call += 1 + distance / 20;
        let call = if of == Callee::Hook { call } else { distance % 3 };
        troubles.push(Trouble { call, of, how: panics(bit) });
    }
    troubles
}
