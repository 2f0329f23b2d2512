//! What follows from the counts: how long an access takes among other cores, and how many there can be at most.
//!
//! An access takes its time alone, `L`, and for each line that must come over from another core the time of a
//! transfer, `t`. With two cores that is the lines counted; with more, of those lines that any core writes nearly all
//! have been written since. A line can be with one core only, so accesses that write the same line cannot be more than one for
//! each `h t`, where `h` is how often an access writes the line that is written most. If the line is an exclusive
//! lock, what is done under it comes to that.

use crate::coherence::Counts;
use crate::files::Known;
use crate::operations::Operation;
use crate::taking_turns::Visits;

/// As many devices as the counted turns have.
pub(crate) const DEVICES: usize = 64;

/// Whether accesses to *different* devices exclude each other, by a lock. The counts cannot tell: an exclusive lock and
/// a counter are both a line with two writes.
pub(crate) fn excludes(strategy: &str) -> Result<bool, String> {
    match strategy {
        "Xen today: global lock, list" | "VMM: bus mutex, BTreeMap of Arc" | "Mutex, HashMap of Arc" => {
            Ok(true)
        }
        "Xen vPCI: domain rwlock, list"
        | "RwLock, HashMap of Arc"
        | "RwLock (std), HashMap of Arc"
        | "dashmap of Arc"
        | "papaya of Arc"
        | "crossbeam-skiplist of Arc"
        | "arc-swap'd HashMap of Arc"
        | "arc-swap'd sorted Vec, counted"
        | "crossbeam-epoch radix, counted"
        | "pcidevs" => Ok(false),
        other => Err(format!(
            "say in benches/scaling/model.rs whether {other} locks out accesses to other devices"
        )),
    }
}

/// One strategy, accessed on many cores, each on devices of its own.
pub(crate) struct Accessed {
    pub(crate) strategy: &'static str,
    pub(crate) counts: Counts,
    /// Nanoseconds of an access, measured: alone, and with two cores.
    pub(crate) alone: f64,
    pub(crate) two: Option<f64>,
    excludes: bool,
}

/// What keeps an access from being faster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The time of a core, what comes over included.
    Cores,
    /// A line that all write.
    Line,
    /// A lock that all take.
    Lock,
}

impl Limit {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Cores => "the cores",
            Self::Line => "a shared line",
            Self::Lock => "a lock for all",
        }
    }
}

impl Accessed {
    pub(crate) fn of(known: &Known, strategy: &'static str, operation: Operation) -> Result<Self, String> {
        let missing =
            |what: &str| format!("{what} of {strategy}, {}, is missing: run with --count", operation.name());
        let counts =
            known.counts(strategy, operation, Visits::Different).ok_or_else(|| missing("sharing"))?;
        let time = |column| known.time(strategy, operation, DEVICES, column);
        Ok(Self {
            strategy,
            counts,
            alone: time("1 thread").ok_or_else(|| missing("the time"))?,
            two: time(TWO),
            excludes: excludes(strategy)?,
        })
    }

    /// The lines that come over in an access among so many cores.
    fn transfers(&self, cores: f64) -> f64 {
        let Counts { transfers, shared_lines, invalidated, .. } = self.counts;
        transfers.max((transfers * (cores - 1.0)).min(shared_lines + invalidated))
    }

    /// Accesses in a nanosecond by so many cores, and what keeps them from being more.
    pub(crate) fn throughput(&self, cores: f64, transfer: f64) -> (f64, Limit) {
        if cores < 2.0 {
            return (1.0 / self.alone, Limit::Cores);
        }
        let free = cores / (self.alone + self.transfers(cores) * transfer);
        let (serial, limit) = if self.excludes {
            let held = self.counts.between * self.alone + self.transfers(cores) * transfer;
            (held, Limit::Lock)
        } else {
            (self.counts.hottest * transfer, Limit::Line)
        };
        if free * serial <= 1.0 { (free, Limit::Cores) } else { (1.0 / serial, limit) }
    }

    /// Nanoseconds of an access on each of two cores.
    pub(crate) fn predicted_for_two(&self, transfer: f64) -> f64 {
        2.0 / self.throughput(2.0, transfer).0
    }

    /// Whether two cores take more than twice as long as predicted, or less than half: then the model leaves out what
    /// matters most.
    pub(crate) fn is_doubtful(&self, transfer: f64) -> bool {
        let error = self.two.map(|measured| self.predicted_for_two(transfer) / measured);
        error.is_some_and(|error| !(0.5..=2.0).contains(&error))
    }
}

/// The column of the measured times.
const TWO: &str = "2 threads, different devices";

/// What a transfer costs on the machine that was measured: two cores that count up and down on one line, less one that
/// does so alone. In turns it is one transfer for a pair.
pub(crate) fn transfer_here(known: &Known) -> Result<f64, String> {
    let time = |floor| known.time(floor, Operation::Read, DEVICES, TWO);
    match (time("xadd pair, shared"), time("xadd pair")) {
        (Some(shared), Some(own)) => Ok(shared - own),
        _ => Err("the floors are missing: cargo bench --bench lock_strategies -- --write".to_owned()),
    }
}
