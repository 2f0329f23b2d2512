//! The journal: all records, in two files that are written in turns.
//!
//! Each holds one line of its own, then the records as JSON:
//!
//! ```text
//! pcidevs-journal 1 SEQUENCE CHECKSUM
//! {"boot_id":"…","records":[…]}
//! ```
//!
//! The first number is the format: 2 if a record has a network identity, which version 1 does not know.
//!
//! The one with the higher number is the truth. One that is damaged leaves the other, which is older by one
//! operation; what it does not know is on a stub and nobody's, and recovery does not touch it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Record;
use super::store::Store;
use crate::Sbdf;
use crate::errno::Errno;

/// All records.
pub(super) type Records = BTreeMap<Sbdf, Record>;

const SLOTS: [&str; 2] = ["journal.a", "journal.b"];
const MAGIC: &str = "pcidevs-journal";
/// What is written, if no record has what came later; so an older version reads it.
const FORMAT: u32 = 1;
/// What is written otherwise: records with a network identity.
const FORMAT_WITH_NETWORK: u32 = 2;
/// The largest journal that is read: 65,536 records of 1 KiB.
const LARGEST: usize = 64 << 20;

/// What is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalDamage {
    /// One file is damaged; the other one, the last good one, is used.
    #[error("{0} is damaged: the last good journal is used")]
    LastGood(&'static str),
    /// No file is good: the manager only reads.
    #[error("no journal is good: nothing is known of what is on a stub")]
    Unusable,
    /// It was written by a newer version: the manager only reads.
    #[error("the journal was written by a newer version, in format {0}")]
    Newer(u32),
    /// It cannot be read at all: the manager only reads.
    #[error("the journal cannot be read: {0}")]
    Unreadable(Errno),
}

impl JournalDamage {
    /// Whether nothing may be written.
    pub fn is_read_only(&self) -> bool {
        !matches!(self, Self::LastGood(_))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    boot_id: String,
    records: Vec<Record>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) boot_id: String,
    pub(super) records: Records,
    pub(super) damage: Option<JournalDamage>,
    journal: Journal,
}

/// Which number comes next, and into which file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journal {
    sequence: u64,
    slot: usize,
}

/// Reads the journal.
pub(super) fn load(store: &dyn Store) -> Loaded {
    let read = SLOTS.map(|name| match store.read(name, LARGEST) {
        Ok(None) => Slot::Empty,
        Ok(Some(bytes)) => decode(&bytes),
        Err(Errno::EFBIG) => Slot::Damaged,
        Err(error) => Slot::Unreadable(error),
    });
    let mut loaded = Loaded::default();
    let mut is_good = false;
    for (place, slot) in read.into_iter().enumerate() {
        match slot {
            Slot::Empty => {}
            Slot::Good(sequence, body) => {
                is_good = true;
                if sequence >= loaded.journal.sequence {
                    loaded.journal = Journal { sequence, slot: 1 - place };
                    loaded.boot_id = body.boot_id;
                    loaded.records =
                        body.records.into_iter().map(|record| (record.address, record)).collect();
                }
            }
            Slot::Damaged => worsen(&mut loaded.damage, JournalDamage::LastGood(SLOTS[place])),
            Slot::Newer(format) => worsen(&mut loaded.damage, JournalDamage::Newer(format)),
            Slot::Unreadable(error) => worsen(&mut loaded.damage, JournalDamage::Unreadable(error)),
        }
    }
    if let (Some(JournalDamage::LastGood(damaged)), true) = (&loaded.damage, is_good) {
        // The damaged one is the one to be written next, whichever it was.
        loaded.journal.slot = usize::from(SLOTS[1] == *damaged);
    } else if loaded.damage.is_some() && !is_good {
        worsen(&mut loaded.damage, JournalDamage::Unusable);
    }
    if loaded.damage.as_ref().is_some_and(JournalDamage::is_read_only) {
        loaded.records.clear();
    }
    loaded
}

/// The first reason to write nothing stays.
fn worsen(damage: &mut Option<JournalDamage>, found: JournalDamage) {
    if !damage.as_ref().is_some_and(JournalDamage::is_read_only) {
        *damage = Some(found);
    }
}

enum Slot {
    Empty,
    Good(u64, Body),
    Damaged,
    Newer(u32),
    Unreadable(Errno),
}

fn decode(bytes: &[u8]) -> Slot {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Slot::Damaged };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return Slot::Damaged };
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Slot::Damaged;
    }
    match words.next().and_then(|word| word.parse().ok()) {
        Some(FORMAT | FORMAT_WITH_NETWORK) => {}
        Some(format) if format > FORMAT_WITH_NETWORK => return Slot::Newer(format),
        _ => return Slot::Damaged,
    }
    let sequence = words.next().and_then(|word| word.parse::<u64>().ok());
    let sum = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let body = &bytes[end + 1..];
    match (sequence, sum, serde_json::from_slice(body)) {
        (Some(sequence), Some(sum), Ok(read)) if sum == checksum(sequence, body) => {
            Slot::Good(sequence, read)
        }
        _ => Slot::Damaged,
    }
}

impl Loaded {
    /// What writes the next one.
    pub(super) fn journal(&self) -> Journal {
        self.journal
    }
}

impl Journal {
    /// Writes all records; if it fails the journal on disk is the one before.
    pub(super) fn save(&mut self, store: &dyn Store, boot_id: &str, records: &Records) -> Result<(), Errno> {
        let sequence = self.sequence + 1;
        let has_network = records.values().any(|record| record.network.is_some());
        let format = if has_network { FORMAT_WITH_NETWORK } else { FORMAT };
        let body = Body { boot_id: boot_id.into(), records: records.values().cloned().collect() };
        let body = serde_json::to_vec(&body).map_err(|_| Errno::EIO)?;
        let mut bytes =
            format!("{MAGIC} {format} {sequence} {:016x}\n", checksum(sequence, &body)).into_bytes();
        bytes.extend_from_slice(&body);
        store.replace(SLOTS[self.slot], &bytes)?;
        *self = Self { sequence, slot: 1 - self.slot };
        Ok(())
    }
}

/// FNV-1a over number and content: against torn and mangled files, not against people.
fn checksum(sequence: u64, body: &[u8]) -> u64 {
    let bytes = sequence.to_le_bytes();
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().chain(body).fold(0xcbf2_9ce4_8422_2325, step)
}
