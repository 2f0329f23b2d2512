//! Add and remove while the guest runs.
//!
//! Each is: wait for rest; one transaction that finds rest inside it, and writes the change and "Reconfiguring"; wait for
//! rest again; one transaction that looks at what came of it. Between the first and the second wait another tool stack
//! can be faster: then we wait again.

use super::error::{Outcome, PcibackError, Unsettled};
use super::export::{Export, Exported};
use super::state::State;
use super::table::Table;
use super::toolstack::{Toolstack, check, hold, let_go};
use crate::address::Sbdf;
use crate::xen::store::{Change, Store, StoreError, TransactionId, transact};

/// What a transaction found.
enum Found<T> {
    /// Both sides at rest, or something that has been decided.
    Rest(T),
    /// Somebody else's reconfiguration.
    Moving,
}

impl<S: Store + ?Sized> Toolstack<'_, S> {
    /// Gives a running guest more devices: the whole set, in one transaction. Returns them as the driver took them.
    ///
    /// On an error the devices are not the guest's, but where it says [`Outcome::Pending`].
    pub fn add(&mut self, set: &[Export]) -> Result<Vec<Exported>, PcibackError> {
        check(set)?;
        let devices: Vec<Sbdf> = set.iter().map(|export| export.device).collect();
        self.at_rest(|toolstack| toolstack.ask_for(set))?;
        match self.rest()? {
            Ok(()) => {}
            Err(unsettled) => {
                let withdraw =
                    |table: &mut Table| devices.iter().for_each(|device| table.drop_device(*device));
                self.take_back(unsettled, &devices, State::Initialising, withdraw)?;
            }
        }
        self.taken(&devices)
    }

    /// Takes a device from a running guest. When this returns `Ok` nothing of it is left in the store, and the driver does
    /// not let the guest reach it any more.
    ///
    /// On an error the device is still the guest's.
    pub fn remove(&mut self, device: Sbdf) -> Result<(), PcibackError> {
        let place = self.place;
        self.at_rest(|toolstack| {
            let attempts = toolstack.patience.attempts;
            transact(toolstack.store, attempts, |store, t| {
                let Some(mut table) = table_at_rest(store, t, place)? else {
                    return Ok((Vec::new(), Found::Moving));
                };
                let gone = table.clear_up();
                if table.state_of(device).is_none() {
                    return Err(PcibackError::NotExported(device));
                }
                table.mark(device, State::Closing);
                let mut changes = table.changes(store, t, Some(State::Reconfiguring))?;
                changes.extend(let_go(store, t, place, &gone)?);
                Ok((changes, Found::Rest(())))
            })
        })?;
        match self.rest()? {
            Ok(()) => {}
            Err(unsettled) => {
                // A guest that has begun to let go finds the device again when it looks for what is new.
                let withdraw = |table: &mut Table| table.mark(device, State::Initialised);
                self.take_back(unsettled, &[device], State::Closing, withdraw)?;
            }
        }
        self.finished(device)
    }

    /// Clears up after a removal. When the wait before it ended another tool stack may have been faster: it has cleared up
    /// for us, and may even have removed the last device, and both folders with it. What was wanted has then come true.
    fn finished(&mut self, device: Sbdf) -> Result<(), PcibackError> {
        for _ in 0..self.patience.attempts {
            if let Found::Rest(()) = self.finish(device)? {
                return Ok(());
            }
            match self.rest()? {
                // Without a backend `finish` finds that there is nothing left to do.
                Ok(()) | Err(Unsettled::BackendGone) => {}
                Err(unsettled) => {
                    return Err(PcibackError::Unsettled { unsettled, outcome: Outcome::Pending });
                }
            }
        }
        Err(StoreError::Conflicts { attempts: self.patience.attempts }.into())
    }

    /// Waits for rest and tries, until nobody else was faster.
    fn at_rest<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<Found<T>, PcibackError>,
    ) -> Result<T, PcibackError> {
        for _ in 0..self.patience.attempts {
            match self.rest()? {
                Ok(()) => {}
                Err(Unsettled::BackendGone) => return Err(PcibackError::NoBackend),
                Err(unsettled) => {
                    return Err(PcibackError::Unsettled { unsettled, outcome: Outcome::NotBegun });
                }
            }
            if let Found::Rest(result) = attempt(self)? {
                return Ok(result);
            }
        }
        Err(StoreError::Conflicts { attempts: self.patience.attempts }.into())
    }

    fn ask_for(&mut self, set: &[Export]) -> Result<Found<()>, PcibackError> {
        let place = self.place;
        transact(self.store, self.patience.attempts, |store, t| {
            let Some(mut table) = table_at_rest(store, t, place)? else {
                return Ok((Vec::new(), Found::Moving));
            };
            let gone = table.clear_up();
            let mut records = let_go(store, t, place, &gone)?;
            for export in set {
                if table.state_of(export.device).is_some() {
                    return Err(PcibackError::Already(export.device));
                }
                table.add(export);
            }
            // What this very transaction clears up is nobody's: its record is written anew.
            let others: Vec<Export> =
                set.iter().filter(|export| !gone.contains(&export.device)).cloned().collect();
            records.extend(hold(store, t, place, &others)?);
            for again in set.iter().filter(|export| gone.contains(&export.device)) {
                let at = super::layout::Place::holder(again.device)?;
                records.push(Change::Write(at, place.guest().to_string()));
            }
            let mut changes = table.changes(store, t, Some(State::Reconfiguring))?;
            changes.extend(records);
            Ok((changes, Found::Rest(())))
        })
    }

    /// What became of devices that were added; what the driver passed over is taken back.
    fn taken(&mut self, devices: &[Sbdf]) -> Result<Vec<Exported>, PcibackError> {
        let place = self.place;
        let result = self.at_rest(|toolstack| {
            let attempts = toolstack.patience.attempts;
            transact(toolstack.store, attempts, |store, t| {
                let Some(mut table) = table_at_rest(store, t, place)? else {
                    return Ok((Vec::new(), Found::Moving));
                };
                let passed_over: Vec<Sbdf> = devices
                    .iter()
                    .copied()
                    .filter(|one| table.state_of(*one) == Some(State::Initialising))
                    .collect();
                let Some(first) = passed_over.first().copied() else {
                    let mut exported = table.exported(store, t)?;
                    exported.retain(|one| devices.contains(&one.device));
                    return Ok((Vec::new(), Found::Rest(Ok(exported))));
                };
                for device in &passed_over {
                    table.drop_device(*device);
                }
                let mut changes = table.changes(store, t, None)?;
                changes.extend(let_go(store, t, place, &passed_over)?);
                Ok((changes, Found::Rest(Err(PcibackError::NotTaken(first)))))
            })
        });
        // They were added; only what the driver made of them is not known.
        result.map_err(pending)?
    }

    /// The end of a removal. Somebody else may have cleared up already, and even added the device again.
    fn finish(&mut self, device: Sbdf) -> Result<Found<()>, PcibackError> {
        let place = self.place;
        transact(self.store, self.patience.attempts, |store, t| {
            let Some(table) = Table::read(store, t, place)? else { return Ok((Vec::new(), Found::Rest(()))) };
            if table.state_of(device) != Some(State::Closing) {
                return Ok((Vec::new(), Found::Rest(())));
            }
            let Some(mut table) = Some(table).filter(Table::is_at_rest) else {
                return Ok((Vec::new(), Found::Moving));
            };
            let gone = table.clear_up();
            let mut changes = if table.is_empty() {
                vec![Change::Remove(place.backend()?), Change::Remove(place.frontend()?)]
            } else {
                table.changes(store, t, None)?
            };
            changes.extend(let_go(store, t, place, &gone)?);
            Ok((changes, Found::Rest(())))
        })
    }

    /// Takes back a change after both sides did not come to rest in time, if nobody can be at it. `Ok` if they have come to
    /// rest after all, or a removal has come true.
    ///
    /// "Reconfiguring" stays even so: a front end that answers it late would wait for ever for an answer if it went.
    fn take_back(
        &mut self,
        unsettled: Unsettled,
        devices: &[Sbdf],
        as_left: State,
        withdraw: impl Fn(&mut Table),
    ) -> Result<(), PcibackError> {
        let place = self.place;
        let outcome = transact(self.store, self.patience.attempts, |store, t| -> Result<_, PcibackError> {
            let adding = as_left == State::Initialising;
            let Some(mut table) = Table::read(store, t, place)? else {
                // The guest lives and nobody has a folder: somebody took the last device, and ours with it.
                let orderly = unsettled == Unsettled::BackendGone
                    && store.find(Some(t), &place.frontend()?.child("state")?)?.is_none();
                let changes = let_go(store, t, place, devices)?;
                return Ok((changes, if orderly && !adding { None } else { Some(Outcome::Withdrawn) }));
            };
            // A mark of removal is cleared up by whoever finds it at rest.
            let cleared_up = !adding && devices.iter().all(|device| table.state_of(*device).is_none());
            if table.is_at_rest() || cleared_up {
                return Ok((Vec::new(), None));
            }
            let untouched = devices.iter().all(|device| table.state_of(*device) == Some(as_left));
            if !(untouched && (table.is_unanswered() || table.state.is_over())) {
                return Ok((Vec::new(), Some(Outcome::Pending)));
            }
            withdraw(&mut table);
            let mut changes = table.changes(store, t, None)?;
            if adding {
                changes.extend(let_go(store, t, place, devices)?);
            }
            Ok((changes, Some(Outcome::Withdrawn)))
        })?;
        match outcome {
            None => Ok(()),
            Some(outcome) => Err(PcibackError::Unsettled { unsettled, outcome }),
        }
    }
}

/// An operation that was under way when it failed is pending.
fn pending(error: PcibackError) -> PcibackError {
    match error {
        PcibackError::Unsettled { unsettled, .. } => {
            PcibackError::Unsettled { unsettled, outcome: Outcome::Pending }
        }
        other => other,
    }
}

/// The backend if both sides are at rest; `None` if not.
fn table_at_rest<S: Store + ?Sized>(
    store: &mut S,
    t: TransactionId,
    place: super::layout::Place,
) -> Result<Option<Table>, PcibackError> {
    let table = Table::read(store, t, place)?.ok_or(PcibackError::NoBackend)?;
    Ok(Some(table).filter(Table::is_at_rest))
}
