//! Transactions: all or nothing, and never on what is not so any more.

use std::num::NonZeroU32;

use pcidevs::xen::memory::Server;
use pcidevs::xen::store::{Change, End, Refusal, Store, StoreError, TransactionId, transact};

use super::{path, refused};
use crate::Tested;
use crate::stores::on_every_store;

#[test]
fn nobody_else_sees_a_transaction_before_its_end() -> Tested {
    on_every_store(|world| {
        let (mut one, mut other) = (world.connect(), world.connect());
        let transaction = one.begin()?;
        one.write(Some(transaction), &path("/t/a/b")?, b"new")?;
        assert_eq!(one.read(Some(transaction), &path("/t/a/b")?)?, b"new");
        assert_eq!(one.directory(Some(transaction), &path("/t/a")?)?, ["b"]);
        assert_eq!(other.find(None, &path("/t/a")?)?, None);
        assert_eq!(one.find(None, &path("/t/a")?)?, None, "nor the same connection outside of it");
        one.end(transaction, End::Commit)?;
        assert_eq!(other.read(None, &path("/t/a/b")?)?, b"new");
        Ok(())
    })
}

#[test]
fn a_discarded_transaction_never_was() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.write(None, &path("/t/a")?, b"old")?;
        let transaction = store.begin()?;
        store.write(Some(transaction), &path("/t/a")?, b"new")?;
        store.write(Some(transaction), &path("/t/b")?, b"new")?;
        store.end(transaction, End::Discard)?;
        assert_eq!(store.read(None, &path("/t/a")?)?, b"old");
        assert_eq!(store.find(None, &path("/t/b")?)?, None);
        assert_eq!(store.end(transaction, End::Commit), refused(Refusal::NotFound), "it has ended");
        Ok(())
    })
}

#[test]
fn a_transaction_that_nobody_began_is_not_found() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let never = TransactionId::new(NonZeroU32::new(4711).ok_or("zero")?);
        assert_eq!(store.read(Some(never), &path("/")?), refused(Refusal::NotFound));
        assert_eq!(store.end(never, End::Commit), refused(Refusal::NotFound));
        Ok(())
    })
}

/// What the transaction does, what somebody else does meanwhile, and whether that is a conflict.
type Meeting =
    (&'static str, fn(&mut dyn Store, TransactionId) -> Tested, fn(&mut dyn Store) -> Tested, bool);

const MEETINGS: &[Meeting] = &[
    (
        "read, then changed",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/a")?, b"theirs")?),
        true,
    ),
    (
        "written blindly, then changed",
        |mine, t| Ok(mine.write(Some(t), &path("/t/a")?, b"mine")?),
        |other| Ok(other.write(None, &path("/t/a")?, b"theirs")?),
        true,
    ),
    (
        "missing, then created",
        |mine, t| Ok(mine.find(Some(t), &path("/t/none")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/none")?, b"theirs")?),
        true,
    ),
    (
        "created, then created",
        |mine, t| Ok(mine.write(Some(t), &path("/t/none")?, b"mine")?),
        |other| Ok(other.write(None, &path("/t/none")?, b"theirs")?),
        true,
    ),
    (
        "listed, then a child more",
        |mine, t| Ok(mine.directory(Some(t), &path("/t")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/more")?, b"theirs")?),
        true,
    ),
    (
        "listed, then a child less",
        |mine, t| Ok(mine.directory(Some(t), &path("/t")?).map(|_| ())?),
        |other| Ok(other.remove(None, &path("/t/a")?)?),
        true,
    ),
    (
        "read, then removed with all around it",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.remove(None, &path("/t")?)?),
        true,
    ),
    (
        "read, then its permissions changed",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| {
            let permissions = other.permissions(None, &path("/t/b")?)?;
            Ok(other.set_permissions(None, &path("/t/a")?, &permissions)?)
        },
        true,
    ),
    (
        "read, then changed to what it was",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/a")?, b"old")?),
        true,
    ),
    (
        "read, then a neighbour changed",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/b")?, b"theirs")?),
        false,
    ),
    (
        "read, then something below changed",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.write(None, &path("/t/a/x")?, b"theirs")?),
        false,
    ),
    (
        "read, then read",
        |mine, t| Ok(mine.read(Some(t), &path("/t/a")?).map(|_| ())?),
        |other| Ok(other.read(None, &path("/t/a")?).map(|_| ())?),
        false,
    ),
];

#[test]
fn a_transaction_that_met_another_changes_nothing() -> Tested {
    on_every_store(|world| {
        for (name, mine, theirs, conflict) in MEETINGS {
            let (mut one, mut other) = (world.connect(), world.connect());
            let _ = one.remove(None, &path("/t")?);
            for there in ["/t/a", "/t/a/x", "/t/b"] {
                one.write(None, &path(there)?, b"old")?;
            }
            let transaction = one.begin()?;
            mine(&mut *one, transaction)?;
            one.write(Some(transaction), &path("/mark")?, name.as_bytes())?;
            theirs(&mut *other)?;
            let expected = if *conflict { refused(Refusal::Again) } else { Ok(()) };
            assert_eq!(one.end(transaction, End::Commit), expected, "{name}");
            let marked = one.find(None, &path("/mark")?)?.is_some_and(|mark| mark == name.as_bytes());
            assert_eq!(marked, !conflict, "{name}");
        }
        Ok(())
    })
}

#[test]
fn a_transaction_that_only_read_is_told_as_well() -> Tested {
    on_every_store(|world| {
        let (mut one, mut other) = (world.connect(), world.connect());
        one.write(None, &path("/t/a")?, b"old")?;
        let transaction = one.begin()?;
        one.read(Some(transaction), &path("/t/a")?)?;
        other.write(None, &path("/t/a")?, b"theirs")?;
        assert_eq!(one.end(transaction, End::Commit), refused(Refusal::Again));
        Ok(())
    })
}

#[test]
fn a_subtree_goes_and_comes_within_a_transaction() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.write(None, &path("/t/a/x")?, b"old")?;
        let transaction = store.begin()?;
        store.remove(Some(transaction), &path("/t/a")?)?;
        assert_eq!(store.find(Some(transaction), &path("/t/a/x")?)?, None);
        store.write(Some(transaction), &path("/t/a/y")?, b"new")?;
        assert_eq!(store.directory(Some(transaction), &path("/t/a")?)?, ["y"]);
        store.end(transaction, End::Commit)?;
        assert_eq!(store.directory(None, &path("/t/a")?)?, ["y"]);
        Ok(())
    })
}

#[test]
fn transact_tries_again_until_nobody_comes_in_between() -> Tested {
    on_every_store(|world| {
        let (mut one, mut other) = (world.connect(), world.connect());
        one.write(None, &path("/t/count")?, b"0")?;
        let mut disturbances = 3;
        transact(&mut *one, 10, |store, t| -> Result<_, StoreError> {
            let count = String::from_utf8_lossy(&store.read(Some(t), &path("/t/count")?)?).into_owned();
            if disturbances > 0 {
                disturbances -= 1;
                other.write(None, &path("/t/count")?, format!("{count}0").as_bytes())?;
            }
            Ok((vec![Change::Write(path("/t/count")?, format!("{count}1"))], ()))
        })?;
        assert_eq!(one.read(None, &path("/t/count")?)?, b"00001", "each attempt has read anew");
        Ok(())
    })
}

#[test]
fn transact_gives_up_after_the_attempts_it_was_given() -> Tested {
    on_every_store(|world| {
        let (mut one, mut other) = (world.connect(), world.connect());
        let mut attempts = 0;
        let result = transact(&mut *one, 4, |store, t| -> Result<_, StoreError> {
            attempts += 1;
            store.find(Some(t), &path("/t/a")?)?;
            other.write(None, &path("/t/a")?, b"theirs")?;
            Ok((vec![Change::Write(path("/t/a")?, "mine".into())], ()))
        });
        assert_eq!(result, Err(StoreError::Conflicts { attempts: 4 }));
        assert_eq!(attempts, 4);
        assert_eq!(one.read(None, &path("/t/a")?)?, b"theirs");
        Ok(())
    })
}

#[test]
fn transact_believes_no_error_that_came_from_half_of_a_commit() -> Tested {
    on_every_store(|world| {
        let (mut one, mut other) = (world.connect(), world.connect());
        one.write(None, &path("/t/a")?, b"1")?;
        one.write(None, &path("/t/b")?, b"1")?;
        let mut disturb = true;
        let result = transact(&mut *one, 4, |store, t| -> Result<_, StoreError> {
            let first = store.read(Some(t), &path("/t/a")?)?;
            if std::mem::take(&mut disturb) {
                transact(&mut *other, 1, |_, _| -> Result<_, StoreError> {
                    let both = vec![path("/t/a")?, path("/t/b")?].into_iter();
                    Ok((both.map(|path| Change::Write(path, "2".into())).collect(), ()))
                })?;
            }
            let second = store.read(Some(t), &path("/t/b")?)?;
            if first == second { Ok((Vec::new(), first)) } else { Err(StoreError::Malformed("torn")) }
        });
        assert_eq!(result, Ok(b"2".to_vec()));
        Ok(())
    })
}

#[test]
fn the_store_in_memory_can_refuse_commits() {
    let server = Server::new();
    let mut store = server.connect();
    server.with_database(|database| database.refuse(2));
    let write = |attempts, store: &mut dyn Store| {
        transact(store, attempts, |_, _| -> Result<_, StoreError> {
            Ok((vec![Change::Write(path("/t/a")?, "1".into())], ()))
        })
    };
    assert_eq!(write(1, &mut store), Err(StoreError::Conflicts { attempts: 1 }));
    assert_eq!(write(2, &mut store), Ok(()));
}
