//! Transactions, from the beginning to the end.

use super::path::NodePath;
use super::permission::Permission;
use super::{End, Refusal, Store, StoreError, TransactionId};

/// What a transaction is to change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Set a node's value.
    Write(NodePath, String),
    /// Create a node.
    Mkdir(NodePath),
    /// Remove a node and what is below. Nothing there is no error.
    Remove(NodePath),
    /// Set who may do what.
    SetPermissions(NodePath, Vec<Permission>),
}

/// Runs a transaction: `plan` reads and decides, what it returns is changed, all at one instant; as often as others come
/// in between, at most `attempts` times.
///
/// `plan` only reads (its type cannot enforce that; a write would happen even if it fails), and it may see half of
/// somebody's commit. So its *error* is not believed either before the transaction, with nothing written, has ended
/// without a conflict: an error that comes back from here was true at one instant.
pub fn transact<S, T, E>(
    store: &mut S,
    attempts: u32,
    mut plan: impl FnMut(&mut S, TransactionId) -> Result<(Vec<Change>, T), E>,
) -> Result<T, E>
where
    S: Store + ?Sized,
    E: From<StoreError>,
{
    for _ in 0..attempts {
        let transaction = store.begin()?;
        let planned = plan(store, transaction);
        let planned = match planned {
            Ok((changes, result)) => match apply(store, transaction, &changes) {
                Ok(()) => Ok(result),
                Err(error) => {
                    // The first error is the one to tell; a connection that cannot even discard is used no more.
                    let _discarded = store.end(transaction, End::Discard);
                    return Err(error.into());
                }
            },
            Err(error) => Err(error),
        };
        match store.end(transaction, End::Commit) {
            Ok(()) => return planned,
            Err(StoreError::Refused(Refusal::Again)) => {}
            Err(error) => return Err(planned.err().unwrap_or_else(|| error.into())),
        }
    }
    Err(StoreError::Conflicts { attempts }.into())
}

fn apply<S: Store + ?Sized>(
    store: &mut S,
    transaction: TransactionId,
    changes: &[Change],
) -> Result<(), StoreError> {
    let id = Some(transaction);
    for change in changes {
        match change {
            Change::Write(path, value) => store.write(id, path, value.as_bytes())?,
            Change::Mkdir(path) => store.mkdir(id, path)?,
            Change::SetPermissions(path, permissions) => store.set_permissions(id, path, permissions)?,
            Change::Remove(path) => match store.remove(id, path) {
                Ok(()) | Err(StoreError::Refused(Refusal::NotFound)) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(())
}
