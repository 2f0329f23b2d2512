//! The tool stack's side on both stores: what it writes, what it refuses, and whole lives of guests.

mod layout;
mod lives;
mod refusals;

use pcidevs::xen::pciback::Export;
use pcidevs::xen::store::{NodePath, Refusal, Store, StoreError};
use pcidevs::{DomainId, Sbdf};

const GUEST: DomainId = DomainId::new(7);
const BACKEND: &str = "/local/domain/0/backend/pci/7/0";
const FRONTEND: &str = "/local/domain/7/device/pci/0";

fn device(function: u8) -> Sbdf {
    format!("0000:03:00.{function}").parse().expect("an address")
}

fn exports(functions: impl IntoIterator<Item = u8>) -> Vec<Export> {
    functions.into_iter().map(|function| Export::of(device(function))).collect()
}

fn node(text: &str) -> NodePath {
    NodePath::new(text).expect("a path")
}

/// A subtree, a line for each node with a value: `name = value`.
pub(crate) fn dump(store: &mut dyn Store, at: &NodePath) -> Result<Vec<String>, StoreError> {
    let mut lines = Vec::new();
    let mut names = match store.directory(None, at) {
        Err(StoreError::Refused(Refusal::NotFound)) => return Ok(lines),
        names => names?,
    };
    names.sort();
    for name in names {
        let child = at.child(&name)?;
        let value = String::from_utf8_lossy(&store.read(None, &child)?).into_owned();
        if !value.is_empty() {
            lines.push(format!("{child} = {value}"));
        }
        lines.extend(dump(store, &child)?);
    }
    Ok(lines)
}

/// Plays driver and front end: sets a node.
pub(crate) fn set(store: &mut dyn Store, folder: &str, leaf: &str, value: &str) -> Result<(), StoreError> {
    store.write(None, &node(folder).child(leaf)?, value.as_bytes())
}

/// Both sides at rest, every device taken.
pub(crate) fn come_to_rest(store: &mut dyn Store, devices: u8) -> Result<(), StoreError> {
    for index in 0..devices {
        set(store, BACKEND, &format!("state-{index}"), "3")?;
        set(store, BACKEND, &format!("vdev-{index}"), &format!("0000:00:{index:02x}.00"))?;
    }
    set(store, BACKEND, "state", "4")?;
    set(store, FRONTEND, "state", "4")
}
