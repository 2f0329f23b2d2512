//! What the threads count.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use pcidevs::Holder;
use serde::Serialize;

/// The longest latency told apart from longer ones: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// The figures of one thread, or of all.
pub(crate) struct Statistics {
    pub(crate) accesses: u64,
    pub(crate) hits: u64,
    /// Of every sixteenth access, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) dmas: Dmas,
    pub(crate) interrupts: Interrupts,
    pub(crate) removals: Removals,
    pub(crate) busy_by_holder: BTreeMap<String, u64>,
    /// By what was asked for.
    pub(crate) transitions: BTreeMap<&'static str, Outcomes>,
    pub(crate) domain_deaths: u64,
}

/// DMAs by where they ended.
#[derive(Default, Serialize)]
pub(crate) struct Dmas {
    pub(crate) landed: u64,
    pub(crate) blocked: u64,
}

/// Interrupts by outcome.
#[derive(Default, Serialize)]
pub(crate) struct Interrupts {
    pub(crate) delivered: u64,
    pub(crate) skipped: u64,
}

/// Removals by outcome.
#[derive(Default, Serialize)]
pub(crate) struct Removals {
    pub(crate) ok: u64,
    pub(crate) busy: u64,
    /// Something else was in the way: a transition of a device that shares a requester ID, or it was gone.
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) gone: u64,
    pub(crate) cancelled: u64,
}

/// Transitions of one kind by outcome.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Outcomes {
    pub(crate) ok: u64,
    /// Somebody or something was in the way.
    pub(crate) refused: u64,
    /// A hook failed, and all was undone, or the device was broken.
    pub(crate) failed: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        // Two significant digits; `new_with_bounds` refuses only bounds that make no sense.
        let latency = Histogram::new_with_max(LONGEST, 2);
        Self {
            accesses: 0,
            hits: 0,
            latency: latency.unwrap_or_else(|error| unreachable!("constant bounds: {error}")),
            dmas: Dmas::default(),
            interrupts: Interrupts::default(),
            removals: Removals::default(),
            busy_by_holder: BTreeMap::new(),
            transitions: BTreeMap::new(),
            domain_deaths: 0,
        }
    }
}

impl Statistics {
    pub(crate) fn add(&mut self, other: &Self) {
        self.accesses += other.accesses;
        self.hits += other.hits;
        // Same bounds, so nothing is out of range.
        self.latency += &other.latency;
        self.dmas.landed += other.dmas.landed;
        self.dmas.blocked += other.dmas.blocked;
        self.interrupts.delivered += other.interrupts.delivered;
        self.interrupts.skipped += other.interrupts.skipped;
        self.removals.ok += other.removals.ok;
        self.removals.busy += other.removals.busy;
        self.removals.refused += other.removals.refused;
        self.removals.failed += other.removals.failed;
        self.removals.gone += other.removals.gone;
        self.removals.cancelled += other.removals.cancelled;
        for (holder, times) in &other.busy_by_holder {
            *self.busy_by_holder.entry(holder.clone()).or_default() += times;
        }
        for (what, outcomes) in &other.transitions {
            self.transitions.entry(what).or_default().add(*outcomes);
        }
        self.domain_deaths += other.domain_deaths;
    }

    /// A holder stood in the way of a removal.
    pub(crate) fn count_holder(&mut self, holder: Holder) {
        *self.busy_by_holder.entry(kind(holder)).or_default() += 1;
    }

    pub(crate) fn transition(&mut self, what: &'static str) -> &mut Outcomes {
        self.transitions.entry(what).or_default()
    }
}

impl Outcomes {
    pub(crate) fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.refused += other.refused;
        self.failed += other.failed;
    }
}

/// Holders of one kind are counted together where there is one per device.
fn kind(holder: Holder) -> String {
    match holder {
        Holder::Vf(_) => "VF".to_owned(),
        Holder::Child(_) => "device behind the bridge".to_owned(),
        Holder::Domain(_) => "assigned to a domain".to_owned(),
        Holder::DmaOf(_) => "DMA of a domain".to_owned(),
        other => other.to_string(),
    }
}
