//! What the threads count.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use pcidevs::Holder;

/// The longest latency told apart from longer ones: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// The figures of one thread, or of all.
pub(crate) struct Statistics {
    pub(crate) accesses: u64,
    pub(crate) hits: u64,
    pub(crate) acts: u64,
    /// Of every sixteenth access, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) removals: Removals,
    pub(crate) busy_by_holder: BTreeMap<String, u64>,
    pub(crate) moves: u64,
    pub(crate) moves_refused: u64,
}

/// Removals by outcome.
#[derive(Default)]
pub(crate) struct Removals {
    pub(crate) ok: u64,
    pub(crate) busy: u64,
    pub(crate) gone: u64,
    pub(crate) cancelled: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        // Two significant digits; `new_with_bounds` refuses only bounds that make no sense.
        let latency = Histogram::new_with_max(LONGEST, 2);
        Self {
            accesses: 0,
            hits: 0,
            acts: 0,
            latency: latency.unwrap_or_else(|error| unreachable!("constant bounds: {error}")),
            removals: Removals::default(),
            busy_by_holder: BTreeMap::new(),
            moves: 0,
            moves_refused: 0,
        }
    }
}

impl Statistics {
    pub(crate) fn add(&mut self, other: &Self) {
        self.accesses += other.accesses;
        self.hits += other.hits;
        self.acts += other.acts;
        // Same bounds, so nothing is out of range.
        self.latency += &other.latency;
        self.removals.ok += other.removals.ok;
        self.removals.busy += other.removals.busy;
        self.removals.gone += other.removals.gone;
        self.removals.cancelled += other.removals.cancelled;
        for (holder, times) in &other.busy_by_holder {
            *self.busy_by_holder.entry(holder.clone()).or_default() += times;
        }
        self.moves += other.moves;
        self.moves_refused += other.moves_refused;
    }

    /// A holder stood in the way of a removal.
    pub(crate) fn count_holder(&mut self, holder: Holder) {
        *self.busy_by_holder.entry(kind(holder)).or_default() += 1;
    }
}

/// Holders of one kind are counted together where there is one per device.
fn kind(holder: Holder) -> String {
    match holder {
        Holder::Vf(_) => "VF".to_owned(),
        Holder::Child(_) => "device behind the bridge".to_owned(),
        Holder::Domain(_) => "assigned to a domain".to_owned(),
        other => other.to_string(),
    }
}
