//! One guest's devices: publish, list, release.

use std::time::Duration;

use super::error::{Outcome, PcibackError, Unsettled};
use super::export::{Export, Exported};
use super::layout::Place;
use super::rest::{await_closed, await_rest};
use super::state::State;
use super::table::{Table, decimal};
use crate::address::Sbdf;
use crate::owner::DomainId;
use crate::xen::store::{Access, Change, Permission, Store, StoreError, TransactionId, transact};

/// How long, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patience {
    /// How long driver and front end may take to come to rest.
    pub rest: Duration,
    /// How often a transaction that met another is tried, and how often an operation waits again because another tool
    /// stack was faster.
    pub attempts: u32,
}

impl Default for Patience {
    /// What libxl waits; and more often than any few tool stacks can meet.
    fn default() -> Self {
        Self { rest: Duration::from_secs(10), attempts: 32 }
    }
}

/// What a guest had that does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Released {
    /// Its devices.
    pub devices: Vec<Sbdf>,
    /// Whether the driver has said that it has let them go, or there was none that had them.
    pub by_driver: bool,
}

/// A tool stack's hand on one guest's devices. Several may be at work on one guest at once, in this process or others.
///
/// ```
/// use pcidevs::{DomainId, xen::{memory::Server, pciback::{Export, Toolstack}}};
///
/// let mut store = Server::new().connect();
/// let mut guest = Toolstack::new(&mut store, DomainId::new(7));
/// guest.publish(&[Export::of("0000:03:00.0".parse()?), Export::of("0000:03:00.1".parse()?)], "guest")?;
/// assert_eq!(guest.list()?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Toolstack<'s, S: ?Sized> {
    pub(super) store: &'s mut S,
    pub(super) place: Place,
    pub(super) patience: Patience,
}

impl<'s, S: Store + ?Sized> Toolstack<'s, S> {
    /// For this guest, with the usual patience.
    pub fn new(store: &'s mut S, guest: DomainId) -> Self {
        Self { store, place: Place::new(guest), patience: Patience::default() }
    }

    /// With this patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Gives a guest without devices its first ones: the whole set, in one transaction. `name` is the guest's.
    ///
    /// For a guest that has not been started yet there is nothing to wait for: its front end will find them.
    pub fn publish(&mut self, set: &[Export], name: &str) -> Result<(), PcibackError> {
        check(set)?;
        let place = self.place;
        transact(self.store, self.patience.attempts, |store, t| {
            if let Some(state) = store.find(Some(t), &place.backend()?.child("state")?)? {
                return Err(PcibackError::Backend(State::read(&state)));
            }
            let mut changes = first_nodes(place, set, name)?;
            changes.extend(hold(store, t, place, set)?);
            Ok((changes, ()))
        })
    }

    /// Waits until driver and front end of a guest that was started are at rest, and says which devices it has.
    pub fn await_connected(&mut self) -> Result<Vec<Exported>, PcibackError> {
        self.settle(Outcome::Pending)?;
        self.list()
    }

    /// The guest's devices.
    pub fn list(&mut self) -> Result<Vec<Exported>, PcibackError> {
        let place = self.place;
        transact(self.store, self.patience.attempts, |store, t| {
            let exported = match Table::read(store, t, place)? {
                Some(table) => table.exported(store, t)?,
                None => Vec::new(),
            };
            Ok((Vec::new(), exported))
        })
    }

    /// Takes everything from a guest that does not run any more. Nothing of it is left in the store.
    ///
    /// The front end's folder goes first, and the driver is told to close: what it may be doing comes to its end before
    /// its folder goes too. If it does not say so in time the folder goes all the same, and [`Released::by_driver`]
    /// says that nobody knows whether the driver still has the devices.
    pub fn release(&mut self) -> Result<Released, PcibackError> {
        let (place, attempts) = (self.place, self.patience.attempts);
        let at_state = place.backend()?.child("state")?;
        transact(self.store, attempts, |store, t| -> Result<_, StoreError> {
            let mut changes = vec![Change::Remove(place.frontend()?)];
            let state = store.find(Some(t), &at_state)?.map(|value| State::read(&value));
            if state.is_some_and(|state| state != State::Closed) {
                changes.push(Change::Write(place.backend()?.child("online")?, "0".into()));
                changes.push(Change::Write(at_state.clone(), State::Closing.number()));
            }
            Ok((changes, ()))
        })?;
        let by_driver = await_closed(self.store, place, self.patience.rest)?;
        transact(self.store, attempts, |store, t| {
            let table = Table::read(store, t, place)?;
            let devices: Vec<Sbdf> = table.iter().flat_map(Table::devices).collect();
            let mut changes = vec![Change::Remove(place.backend()?), Change::Remove(place.frontend()?)];
            changes.extend(let_go(store, t, place, &devices)?);
            Ok((changes, Released { devices, by_driver }))
        })
    }

    /// Waits for rest.
    pub(super) fn settle(&mut self, outcome: Outcome) -> Result<(), PcibackError> {
        self.rest()?.map_err(|unsettled| PcibackError::Unsettled { unsettled, outcome })
    }

    pub(super) fn rest(&mut self) -> Result<Result<(), Unsettled>, StoreError> {
        await_rest(self.store, self.place, self.patience.rest)
    }
}

/// What can be said of a set without looking.
pub(super) fn check(set: &[Export]) -> Result<(), PcibackError> {
    let twice =
        set.iter().enumerate().any(|(at, one)| set[..at].iter().any(|other| other.device == one.device));
    if set.is_empty() || twice {
        return Err(PcibackError::Set);
    }
    for export in set {
        export.device.to_u32()?;
        let named = export.name.as_ref().is_none_or(|name| {
            (1..=255).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        if !named {
            return Err(PcibackError::Name(export.device));
        }
    }
    Ok(())
}

/// Both folders of a guest's first devices.
fn first_nodes(place: Place, set: &[Export], name: &str) -> Result<Vec<Change>, StoreError> {
    let (backend, frontend) = (place.backend()?, place.frontend()?);
    let (host, guest) = (DomainId::new(0), place.guest());
    let permissions =
        |owner, reader| vec![Permission::new(owner, Access::None), Permission::new(reader, Access::Read)];
    // The folders first: what is made in them begins with their permissions.
    let mut changes = vec![
        Change::Mkdir(frontend.clone()),
        Change::SetPermissions(frontend.clone(), permissions(guest, host)),
        Change::Mkdir(backend.clone()),
        Change::SetPermissions(backend.clone(), permissions(host, guest)),
    ];
    let start = State::Initialising.number();
    let nodes = [
        (&frontend, "backend", backend.to_string()),
        (&frontend, "backend-id", host.to_string()),
        (&frontend, "state", start.clone()),
        (&backend, "frontend", frontend.to_string()),
        (&backend, "frontend-id", guest.to_string()),
        (&backend, "online", "1".to_owned()),
        (&backend, "domain", name.to_owned()),
        (&backend, "state", start),
        (&backend, "num_devs", set.len().to_string()),
    ];
    for (folder, leaf, value) in nodes {
        changes.push(Change::Write(folder.child(leaf)?, value));
    }
    for (index, export) in set.iter().enumerate() {
        for (leaf, value) in export.leaves() {
            changes.push(Change::Write(backend.child(&format!("{leaf}-{index}"))?, value));
        }
    }
    Ok(changes)
}

/// Writes down that the guest has these devices, if nobody else has.
pub(super) fn hold<S: Store + ?Sized>(
    store: &mut S,
    t: TransactionId,
    place: Place,
    set: &[Export],
) -> Result<Vec<Change>, PcibackError> {
    let mut changes = Vec::new();
    for Export { device, .. } in set {
        let at = Place::holder(*device)?;
        if let Some(value) = store.find(Some(t), &at)? {
            let guest = decimal(&value).map(DomainId::new).ok_or(PcibackError::Nonsense(at.clone()))?;
            return Err(if guest == place.guest() {
                PcibackError::Already(*device)
            } else {
                PcibackError::Held { device: *device, guest }
            });
        }
        changes.push(Change::Write(at, place.guest().to_string()));
    }
    Ok(changes)
}

/// Forgets that the guest has these devices; another's are not touched.
pub(super) fn let_go<S: Store + ?Sized>(
    store: &mut S,
    t: TransactionId,
    place: Place,
    devices: &[Sbdf],
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    for device in devices {
        let at = Place::holder(*device)?;
        if store.find(Some(t), &at)?.and_then(|value| decimal(&value)) == Some(place.guest().number()) {
            // A record that says nothing else was made for this, and goes with it.
            let record = Place::record(*device)?;
            let alone = store.directory(Some(t), &record)?.len() == 1;
            changes.push(Change::Remove(if alone { record } else { at }));
        }
    }
    Ok(changes)
}
