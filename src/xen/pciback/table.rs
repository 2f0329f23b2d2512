//! A backend as it is in one transaction, and the changes that lead to another.
//!
//! All decisions are made on a [`Table`] that was read inside the transaction that then writes: nothing that was known
//! before counts.

use std::collections::BTreeMap;

use super::error::PcibackError;
use super::export::{Export, Exported};
use super::layout::Place;
use super::state::State;
use crate::address::Sbdf;
use crate::xen::store::{Change, NodePath, Store, StoreError, TransactionId};

/// More devices than a guest can have on the one bus that the driver makes, with what libxl leaves over.
const MOST: u32 = 4096;

/// The nodes that a device has, without their index. Others, such as the roots, are not per device.
const LEAVES: [&str; 7] = ["key", "dev", "vdev", "vdevfn", "name", "opts", "state"];

/// A device's place in a backend.
#[derive(Clone, Debug)]
struct Entry {
    /// Where it is in the store; `None` for one that is not there yet.
    index: Option<u32>,
    device: Sbdf,
    state: State,
    /// What is to be written: everything for a new one, the state for one that changes.
    new: BTreeMap<&'static str, String>,
}

/// A guest's backend, and what is to become of it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    backend: NodePath,
    pub(super) state: State,
    pub(super) frontend: Option<State>,
    number: u32,
    entries: Vec<Entry>,
}

impl Table {
    /// Reads a guest's backend; `None` if it has none.
    pub(super) fn read<S: Store + ?Sized>(
        store: &mut S,
        t: TransactionId,
        place: Place,
    ) -> Result<Option<Self>, PcibackError> {
        let backend = place.backend()?;
        let Some(state) = store.find(Some(t), &backend.child("state")?)? else { return Ok(None) };
        let frontend = store.find(Some(t), &place.frontend()?.child("state")?)?;
        let at_number = backend.child("num_devs")?;
        let number = store.find(Some(t), &at_number)?;
        let number = number.and_then(|value| decimal(&value)).filter(|number| *number <= MOST);
        let number = number.ok_or(PcibackError::Nonsense(at_number))?;
        let mut entries = Vec::new();
        for index in 0..number {
            let at_device = backend.child(&format!("dev-{index}"))?;
            // libxl leaves gaps.
            let Some(device) = store.find(Some(t), &at_device)? else { continue };
            let device = str::from_utf8(&device).ok().and_then(|text| text.parse().ok());
            let device = device.ok_or(PcibackError::Nonsense(at_device))?;
            let state = store.find(Some(t), &backend.child(&format!("state-{index}"))?)?;
            let state = state.map_or(State::Unknown, |value| State::read(&value));
            entries.push(Entry { index: Some(index), device, state, new: BTreeMap::new() });
        }
        let frontend = frontend.map(|value| State::read(&value));
        Ok(Some(Self { backend, state: State::read(&state), frontend, number, entries }))
    }

    /// Whether nobody is doing anything: the driver has no reconfiguration under way, and the guest knows of the last one.
    pub(super) fn is_at_rest(&self) -> bool {
        self.state == State::Connected && self.frontend == Some(State::Connected)
    }

    /// Whether a reconfiguration was asked for, and the front end, which has to begin it, has not.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state == State::Reconfiguring && self.frontend == Some(State::Connected)
    }

    /// How far a device has come; `None` if it is not there.
    pub(super) fn state_of(&self, device: Sbdf) -> Option<State> {
        self.entries.iter().find(|entry| entry.device == device).map(|entry| entry.state)
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = Sbdf> + '_ {
        self.entries.iter().map(|entry| entry.device)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a device.
    pub(super) fn add(&mut self, export: &Export) {
        let new = export.leaves();
        self.entries.push(Entry { index: None, device: export.device, state: State::Initialising, new });
    }

    /// Changes how far a device has come.
    pub(super) fn mark(&mut self, device: Sbdf, state: State) {
        for entry in self.entries.iter_mut().filter(|entry| entry.device == device) {
            entry.state = state;
            entry.new.insert("state", state.number());
        }
    }

    /// Takes a device out.
    pub(super) fn drop_device(&mut self, device: Sbdf) {
        self.entries.retain(|entry| entry.device != device);
    }

    /// Takes out what the driver has let go, whoever asked for it. Only at rest: there, a mark of removal has been seen.
    /// Returns what was taken out.
    pub(super) fn clear_up(&mut self) -> Vec<Sbdf> {
        let gone: Vec<Sbdf> =
            self.entries.iter().filter(|e| e.state == State::Closing).map(|e| e.device).collect();
        self.entries.retain(|entry| entry.state != State::Closing);
        gone
    }

    /// What leads from what was read to what this is now: every device at the index of its place, no gaps, the right
    /// number, and the backend in this state if one is given.
    pub(super) fn changes<S: Store + ?Sized>(
        &self,
        store: &mut S,
        t: TransactionId,
        state: Option<State>,
    ) -> Result<Vec<Change>, StoreError> {
        let present = store.directory(Some(t), &self.backend)?;
        let mut changes = Vec::new();
        let mut kept = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            for leaf in LEAVES {
                let name = format!("{leaf}-{place}");
                let old =
                    entry.index.map(|index| format!("{leaf}-{index}")).filter(|old| present.contains(old));
                let value = match (entry.new.get(leaf), old) {
                    (Some(new), _) => new.clone(),
                    (None, Some(old)) if old == name => {
                        kept.push(name);
                        continue;
                    }
                    (None, Some(old)) => {
                        let value = store.read(Some(t), &self.backend.child(&old)?)?;
                        String::from_utf8(value)
                            .map_err(|_| StoreError::Malformed("a value that is no text"))?
                    }
                    (None, None) => continue,
                };
                changes.push(Change::Write(self.backend.child(&name)?, value));
                kept.push(name);
            }
        }
        for name in present.iter().filter(|name| is_device_node(name) && !kept.contains(name)) {
            changes.push(Change::Remove(self.backend.child(name)?));
        }
        let number = self.entries.len().to_string();
        if number != self.number.to_string() {
            changes.push(Change::Write(self.backend.child("num_devs")?, number));
        }
        if let Some(state) = state {
            changes.push(Change::Write(self.backend.child("state")?, state.number()));
        }
        Ok(changes)
    }

    /// The devices, and where the guest sees them.
    pub(super) fn exported<S: Store + ?Sized>(
        &self,
        store: &mut S,
        t: TransactionId,
    ) -> Result<Vec<Exported>, StoreError> {
        let mut all = Vec::new();
        for entry in &self.entries {
            let address = match entry.index {
                Some(index) => store.find(Some(t), &self.backend.child(&format!("vdev-{index}"))?)?,
                None => None,
            };
            let guest_address = address.map(|value| String::from_utf8_lossy(&value).into_owned());
            all.push(Exported { device: entry.device, state: entry.state, guest_address });
        }
        Ok(all)
    }
}

/// Whether a node belongs to one device: `dev-3`.
fn is_device_node(name: &str) -> bool {
    match name.rsplit_once('-') {
        Some((leaf, index)) => LEAVES.contains(&leaf) && decimal(index.as_bytes()).is_some(),
        None => false,
    }
}

/// Decimal digits and nothing else.
pub(super) fn decimal(value: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(value).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
