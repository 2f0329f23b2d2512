//! What both kernels do alike, and what the scenarios are made of.

use std::collections::BTreeSet;

use pcidevs::xen::memory::Database;
use pcidevs::xen::pciback::{Place, State};
use pcidevs::xen::store::{
    Access, Change, NodePath, Permission, Refusal, Request, Store, StoreError, transact,
};
use pcidevs::{DomainId, Sbdf};

pub(super) const HOST: DomainId = DomainId::new(0);
pub(super) const GUEST: DomainId = DomainId::new(7);
pub(super) const PLACE: Place = Place::new(GUEST);

/// What the driver has exported and what the guest sees are not in the store; here they are, where everybody can look.
/// Nobody watches them, so they move nobody along.
pub(super) const EXPORTED: &str = "/model/exported";
pub(super) const SEEN: &str = "/model/seen";

/// More attempts than there are others to meet.
pub(super) const ATTEMPTS: u32 = 64;

pub(super) fn node(text: &str) -> NodePath {
    NodePath::new(text).expect("a path")
}

pub(super) fn be(leaf: &str) -> NodePath {
    PLACE.backend().expect("a path").child(leaf).expect("a path")
}

pub(super) fn fe(leaf: &str) -> NodePath {
    PLACE.frontend().expect("a path").child(leaf).expect("a path")
}

/// The device of this function of 0000:03:00.
pub(super) fn device(function: u8) -> Sbdf {
    format!("0000:03:00.{function}").parse().expect("an address")
}

/// A store with a guest in it, as a tool stack has made it before it comes to PCI.
pub(super) fn store_with_guest() -> Database {
    let mut store = Database::default();
    let maker = store.connect(HOST);
    let mut ask = |request: Request| {
        store.request(maker, None, &request).expect("the store is empty");
    };
    let readable = vec![Permission::new(HOST, Access::None), Permission::new(GUEST, Access::Read)];
    for folder in ["/local/domain/7", "/local/domain/7/device", "/model", EXPORTED] {
        ask(Request::Mkdir(node(folder)));
        ask(Request::SetPermissions(node(folder), readable.clone()));
    }
    ask(Request::Mkdir(node(SEEN)));
    ask(Request::SetPermissions(node(SEEN), vec![Permission::new(GUEST, Access::Read)]));
    ask(Request::Mkdir(node("/local/domain/0/backend/pci")));
    ask(Request::Introduce { domain: GUEST, frame: 1, port: 1 });
    store.disconnect(maker);
    store
}

/// A node's value; a kernel makes no difference between what is not there and what it may not see.
fn look(store: &mut dyn Store, at: &NodePath) -> Result<Option<Vec<u8>>, StoreError> {
    match store.find(None, at) {
        Err(StoreError::Refused(Refusal::Denied)) => Ok(None),
        found => found,
    }
}

/// A state node; what is not there is `Unknown`, as the kernels have it.
pub(super) fn state(store: &mut dyn Store, at: &NodePath) -> Result<State, StoreError> {
    Ok(look(store, at)?.map_or(State::Unknown, |value| State::read(&value)))
}

/// A kernel changes its state: in a transaction, and not if its folder is gone; and not to what it has said last.
pub(super) fn switch(
    store: &mut dyn Store,
    last: &mut State,
    at: &NodePath,
    to: State,
) -> Result<(), StoreError> {
    if *last == to {
        return Ok(());
    }
    *last = to;
    transact(store, ATTEMPTS, |store, t| {
        let there = store.find(Some(t), at)?.is_some();
        Ok((if there { vec![Change::Write(at.clone(), to.number())] } else { Vec::new() }, ()))
    })
}

pub(super) fn number(store: &mut dyn Store, at: &NodePath) -> Result<Option<u32>, StoreError> {
    let value = look(store, at)?;
    Ok(value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()))
}

pub(super) fn address(store: &mut dyn Store, at: &NodePath) -> Result<Option<Sbdf>, StoreError> {
    let value = look(store, at)?;
    Ok(value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()))
}

pub(super) fn listed(devices: &BTreeSet<Sbdf>) -> String {
    devices.iter().map(Sbdf::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn unlisted(text: &str) -> BTreeSet<Sbdf> {
    text.split_whitespace().map(|device| device.parse().expect("an address")).collect()
}

/// Writes a node that is only for the model.
pub(super) fn show(store: &mut dyn Store, at: &str, devices: &BTreeSet<Sbdf>) -> Result<(), StoreError> {
    store.write(None, &node(at), listed(devices).as_bytes())
}
