//! One suite for every store.

mod guests;
mod nodes;
mod permissions;
mod same;
mod transactions;
mod watches;

use std::time::Duration;

use pcidevs::xen::store::{Event, InvalidPath, NodePath, Refusal, Store, StoreError};

fn path(text: &str) -> Result<NodePath, InvalidPath> {
    NodePath::new(text)
}

fn refused<T>(refusal: Refusal) -> Result<T, StoreError> {
    Err(StoreError::Refused(refusal))
}

/// The next event, which has to come.
fn event(store: &mut dyn Store) -> Result<(String, String), Box<dyn std::error::Error>> {
    let until = store.now() + Duration::from_secs(30);
    let Event { path, token } = store.next_event(until)?.ok_or("no event came")?;
    Ok((path.as_str().to_owned(), token))
}

/// What has come so far: the store answers requests in order, so what came before an answer is here.
fn events(store: &mut dyn Store) -> Result<Vec<(String, String)>, StoreError> {
    store.find(None, &path("/")?)?;
    let mut all = Vec::new();
    while let Some(Event { path, token }) = store.next_event(Duration::ZERO)? {
        all.push((path.as_str().to_owned(), token));
    }
    Ok(all)
}

fn named(path: &str, token: &str) -> (String, String) {
    (path.to_owned(), token.to_owned())
}
