//! Waiting until both sides are at rest.

use std::time::Duration;

use super::error::Unsettled;
use super::layout::Place;
use super::state::State;
use crate::xen::store::{NodePath, Special, Store, StoreError, Watched};

/// Waits until driver and front end are Connected; at once if they are. `Err` inside says why they are not.
///
/// What is seen here is a hint: it is checked again in the transaction that relies on it.
pub(super) fn await_rest<S: Store + ?Sized>(
    store: &mut S,
    place: Place,
    patience: Duration,
) -> Result<Result<(), Unsettled>, StoreError> {
    let until = store.now().saturating_add(patience);
    let token = format!("pcidevs-{}", place.guest());
    let (backend, frontend) = (place.backend()?.child("state")?, place.frontend()?.child("state")?);
    let watches = [backend.clone().into(), frontend.clone().into(), Watched::from(Special::ReleaseDomain)];
    for (number, watched) in watches.iter().enumerate() {
        if let Err(error) = store.watch(watched, &token) {
            unwatch(store, &watches[..number], &token)?;
            return Err(error);
        }
    }
    let result = look_until(store, place, &backend, &frontend, until)?;
    unwatch(store, &watches, &token)?;
    Ok(result)
}

/// Waits until the driver has let everything go; whether it has said so in time.
pub(super) fn await_closed<S: Store + ?Sized>(
    store: &mut S,
    place: Place,
    patience: Duration,
) -> Result<bool, StoreError> {
    let until = store.now().saturating_add(patience);
    let backend = place.backend()?.child("state")?;
    let (watched, token) = (Watched::from(backend.clone()), format!("pcidevs-{}", place.guest()));
    store.watch(&watched, &token)?;
    let closed = loop {
        match store.find(None, &backend) {
            Ok(state) if state.as_deref().map(State::read).is_none_or(|state| state == State::Closed) => {
                break Ok(true);
            }
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        match store.next_event(until) {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(false),
            Err(error) => break Err(error),
        }
    };
    // A connection that has failed has no watches any more.
    if closed.is_ok() {
        store.unwatch(&watched, &token)?;
    }
    closed
}

fn unwatch<S: Store + ?Sized>(store: &mut S, watches: &[Watched], token: &str) -> Result<(), StoreError> {
    watches.iter().try_for_each(|watched| store.unwatch(watched, token))
}

fn look_until<S: Store + ?Sized>(
    store: &mut S,
    place: Place,
    backend: &NodePath,
    frontend: &NodePath,
    until: Duration,
) -> Result<Result<(), Unsettled>, StoreError> {
    loop {
        if !store.is_introduced(place.guest())? {
            return Ok(Err(Unsettled::GuestGone));
        }
        let mut state_at =
            |path| Ok::<_, StoreError>(store.find(None, path)?.map(|value| State::read(&value)));
        let (be, fe) = (state_at(backend)?, state_at(frontend)?);
        match (be, fe) {
            (Some(State::Connected), Some(State::Connected)) => return Ok(Ok(())),
            (Some(over), _) if over.is_over() => return Ok(Err(Unsettled::Over(over))),
            (None, _) => return Ok(Err(Unsettled::BackendGone)),
            _ => {}
        }
        if store.next_event(until)?.is_none() {
            return Ok(Err(Unsettled::Stuck { backend: be, frontend: fe }));
        }
    }
}
