//! What a xenstore is: a tree of small values, with permissions, transactions and watches.
//!
//! [`Store`] is one connection to one. It has three methods to implement and a typed one for every request. The one
//! server that decides the order of all requests is elsewhere (a daemon, or [`memory`](super::memory)); a connection is used
//! by one thread at a time.
//!
//! - *Transactions* are optimistic. A read in one sees the tree as it is at that moment, so two reads can see two
//!   different states; whether they did is known when it ends: `EAGAIN`, and nothing was written.
//!   [`transact`](transact()) is the way to use them.
//! - *Watches* say that something changed, not what: whoever gets an event reads again. One event may stand for many
//!   changes, and may come for none.
//!
//! Facts about the protocol are from Xen's public description of xenstore.

mod error;
mod path;
mod permission;
mod request;
mod transaction;

use std::time::Duration;

pub use error::{Refusal, StoreError};
pub use path::{InvalidPath, NodePath, Special, Watched};
pub use permission::{Access, InvalidPermission, Permission};
pub use request::{End, Event, Reply, Request, TransactionId};
pub use transaction::{Change, transact};

use crate::owner::DomainId;

/// One connection to a xenstore.
///
/// ```
/// use pcidevs::xen::{memory::Server, store::{NodePath, Store}};
///
/// let server = Server::new();
/// let mut store = server.connect();
/// let name = NodePath::new("/local/domain/0/name")?;
/// store.write(None, &name, b"Domain-0")?;
/// assert_eq!(store.read(None, &name)?, b"Domain-0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Store {
    /// Asks the store, and waits for its answer.
    fn request(&mut self, transaction: Option<TransactionId>, request: &Request)
    -> Result<Reply, StoreError>;

    /// The next event of this connection's watches, waiting for it until that time; `None` when it has come first.
    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError>;

    /// The time on the clock by which [`next_event`](Self::next_event) waits. It starts anywhere.
    fn now(&self) -> Duration;

    /// The value of a node.
    fn read(&mut self, transaction: Option<TransactionId>, path: &NodePath) -> Result<Vec<u8>, StoreError> {
        match self.request(transaction, &Request::Read(path.clone()))? {
            Reply::Value(value) => Ok(value),
            _ => Err(UNEXPECTED),
        }
    }

    /// The value of a node that need not exist.
    fn find(
        &mut self,
        transaction: Option<TransactionId>,
        path: &NodePath,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read(transaction, path) {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value; creates it, and its parents with empty values.
    fn write(
        &mut self,
        transaction: Option<TransactionId>,
        path: &NodePath,
        value: &[u8],
    ) -> Result<(), StoreError> {
        done(&self.request(transaction, &Request::Write(path.clone(), value.to_vec()))?)
    }

    /// Creates a node with an empty value, and its parents; leaves one that exists as it is.
    fn mkdir(&mut self, transaction: Option<TransactionId>, path: &NodePath) -> Result<(), StoreError> {
        done(&self.request(transaction, &Request::Mkdir(path.clone()))?)
    }

    /// Removes a node and everything below. One that does not exist is no error if its parent does.
    fn remove(&mut self, transaction: Option<TransactionId>, path: &NodePath) -> Result<(), StoreError> {
        done(&self.request(transaction, &Request::Remove(path.clone()))?)
    }

    /// The names of a node's children, in no particular order.
    fn directory(
        &mut self,
        transaction: Option<TransactionId>,
        path: &NodePath,
    ) -> Result<Vec<String>, StoreError> {
        match self.request(transaction, &Request::Directory(path.clone()))? {
            Reply::Children(names) => Ok(names),
            _ => Err(UNEXPECTED),
        }
    }

    /// Who may do what with a node: first the owner and what everybody may, then exceptions.
    fn permissions(
        &mut self,
        transaction: Option<TransactionId>,
        path: &NodePath,
    ) -> Result<Vec<Permission>, StoreError> {
        match self.request(transaction, &Request::Permissions(path.clone()))? {
            Reply::Permissions(permissions) => Ok(permissions),
            _ => Err(UNEXPECTED),
        }
    }

    /// Sets who may do what with a node. New children begin with what their parent has.
    fn set_permissions(
        &mut self,
        transaction: Option<TransactionId>,
        path: &NodePath,
        permissions: &[Permission],
    ) -> Result<(), StoreError> {
        done(&self.request(transaction, &Request::SetPermissions(path.clone(), permissions.to_vec()))?)
    }

    /// Begins a transaction. [`transact`](transact()) does this and all the rest.
    fn begin(&mut self) -> Result<TransactionId, StoreError> {
        match self.request(None, &Request::Begin)? {
            Reply::Transaction(id) => Ok(id),
            _ => Err(UNEXPECTED),
        }
    }

    /// Ends a transaction. `EAGAIN` says that it has met another and changed nothing.
    fn end(&mut self, transaction: TransactionId, end: End) -> Result<(), StoreError> {
        done(&self.request(Some(transaction), &Request::End(end))?)
    }

    /// Asks for events of a node and everything below. One comes at once.
    fn watch(&mut self, watched: &Watched, token: &str) -> Result<(), StoreError> {
        done(&self.request(None, &Request::Watch(watched.clone(), token.to_owned()))?)
    }

    /// Asks for no more of them.
    fn unwatch(&mut self, watched: &Watched, token: &str) -> Result<(), StoreError> {
        done(&self.request(None, &Request::Unwatch(watched.clone(), token.to_owned()))?)
    }

    /// Makes a guest known to the store: the frame of its ring and its event channel's port.
    fn introduce(&mut self, domain: DomainId, frame: u64, port: u32) -> Result<(), StoreError> {
        done(&self.request(None, &Request::Introduce { domain, frame, port })?)
    }

    /// Ends that.
    fn release(&mut self, domain: DomainId) -> Result<(), StoreError> {
        done(&self.request(None, &Request::Release(domain))?)
    }

    /// Whether the store knows this guest, and the guest lives.
    fn is_introduced(&mut self, domain: DomainId) -> Result<bool, StoreError> {
        match self.request(None, &Request::IsIntroduced(domain))? {
            Reply::Flag(introduced) => Ok(introduced),
            _ => Err(UNEXPECTED),
        }
    }

    /// Where a guest's own part of the tree begins.
    fn domain_path(&mut self, domain: DomainId) -> Result<NodePath, StoreError> {
        match self.request(None, &Request::DomainPath(domain))? {
            Reply::Path(path) => Ok(path),
            _ => Err(UNEXPECTED),
        }
    }
}

const UNEXPECTED: StoreError = StoreError::Malformed("an answer to another request");

fn done(reply: &Reply) -> Result<(), StoreError> {
    match reply {
        Reply::Done => Ok(()),
        _ => Err(UNEXPECTED),
    }
}
