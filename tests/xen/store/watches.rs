//! Watches.

use std::time::Duration;

use pcidevs::xen::memory::{Clock, Limits, Server};
use pcidevs::xen::store::{End, Refusal, Store, Watched};

use super::{event, events, named, path, refused};
use crate::Tested;
use crate::stores::on_every_store;

#[test]
fn a_watch_fires_at_once_even_where_nothing_is() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.watch(&path("/t/none")?.into(), "tok")?;
        assert_eq!(event(&mut *store)?, named("/t/none", "tok"));
        assert_eq!(events(&mut *store)?, []);
        Ok(())
    })
}

#[test]
fn a_watch_hears_of_changes_below_and_of_no_others() -> Tested {
    on_every_store(|world| {
        let (mut watcher, mut writer) = (world.connect(), world.connect());
        watcher.watch(&path("/t/a")?.into(), "tok")?;
        event(&mut *watcher)?;
        for elsewhere in ["/t/b", "/t/a-b", "/t/ab/c", "/u"] {
            writer.write(None, &path(elsewhere)?, b"")?;
        }
        assert_eq!(events(&mut *watcher)?, []);
        writer.write(None, &path("/t/a/b/c")?, b"new")?;
        assert_eq!(events(&mut *watcher)?, [named("/t/a/b/c", "tok")], "not of the parents made for it");
        writer.write(None, &path("/t/a/b/c")?, b"new")?;
        assert_eq!(
            events(&mut *watcher)?,
            [named("/t/a/b/c", "tok")],
            "a write of the same value is a change"
        );
        writer.mkdir(None, &path("/t/a/b")?)?;
        assert_eq!(events(&mut *watcher)?, [], "a mkdir of what is there is none");
        writer.mkdir(None, &path("/t/a/d")?)?;
        assert_eq!(events(&mut *watcher)?, [named("/t/a/d", "tok")]);
        let permissions = writer.permissions(None, &path("/t/a")?)?;
        writer.set_permissions(None, &path("/t/a")?, &permissions)?;
        assert_eq!(events(&mut *watcher)?, [named("/t/a", "tok")]);
        Ok(())
    })
}

#[test]
fn a_watch_hears_of_its_own_connections_writes() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.watch(&path("/t")?.into(), "tok")?;
        event(&mut *store)?;
        store.write(None, &path("/t/a")?, b"")?;
        assert_eq!(event(&mut *store)?, named("/t/a", "tok"));
        Ok(())
    })
}

#[test]
fn a_removal_is_told_above_and_exactly_at_what_went() -> Tested {
    on_every_store(|world| {
        let (mut watcher, mut writer) = (world.connect(), world.connect());
        writer.write(None, &path("/t/a/b/c")?, b"")?;
        for (at, token) in [("/t", "above"), ("/t/a", "top"), ("/t/a/b", "middle"), ("/t/a/b/c", "leaf")] {
            watcher.watch(&path(at)?.into(), token)?;
        }
        watcher.watch(&path("/t/a/none")?.into(), "none")?;
        events(&mut *watcher)?;
        writer.remove(None, &path("/t/a")?)?;
        let mut heard = events(&mut *watcher)?;
        heard.sort();
        let expected = [
            named("/t/a", "above"),
            named("/t/a", "top"),
            named("/t/a/b", "middle"),
            named("/t/a/b/c", "leaf"),
        ];
        assert_eq!(heard, expected);
        Ok(())
    })
}

#[test]
fn a_transaction_is_told_when_it_ends_and_only_if_it_happened() -> Tested {
    on_every_store(|world| {
        let (mut watcher, mut writer) = (world.connect(), world.connect());
        watcher.watch(&path("/t")?.into(), "tok")?;
        event(&mut *watcher)?;
        let transaction = writer.begin()?;
        writer.write(Some(transaction), &path("/t/a")?, b"1")?;
        writer.write(Some(transaction), &path("/t/b/c")?, b"1")?;
        assert_eq!(events(&mut *watcher)?, []);
        writer.end(transaction, End::Commit)?;
        let mut heard = events(&mut *watcher)?;
        heard.sort();
        assert_eq!(heard, [named("/t/a", "tok"), named("/t/b/c", "tok")]);
        let transaction = writer.begin()?;
        writer.write(Some(transaction), &path("/t/a")?, b"2")?;
        writer.end(transaction, End::Discard)?;
        assert_eq!(events(&mut *watcher)?, []);
        Ok(())
    })
}

#[test]
fn a_watch_is_registered_once_and_can_end() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let watched = Watched::from(path("/t")?);
        store.watch(&watched, "one")?;
        assert_eq!(store.watch(&watched, "one"), refused(Refusal::Exists));
        store.watch(&watched, "two")?;
        events(&mut *store)?;
        store.unwatch(&watched, "one")?;
        assert_eq!(store.unwatch(&watched, "one"), refused(Refusal::NotFound));
        store.write(None, &path("/t/a")?, b"")?;
        assert_eq!(events(&mut *store)?, [named("/t/a", "two")]);
        Ok(())
    })
}

#[test]
fn events_come_while_requests_are_answered_and_none_is_lost() -> Tested {
    on_every_store(|world| {
        let (mut watcher, mut writer) = (world.connect(), world.connect());
        watcher.watch(&path("/t")?.into(), "tok")?;
        event(&mut *watcher)?;
        for number in 0..50 {
            writer.write(None, &path(&format!("/t/{number}"))?, b"")?;
            watcher.write(None, &path("/elsewhere")?, b"")?;
        }
        let heard = events(&mut *watcher)?;
        assert_eq!(heard, (0..50).map(|number| named(&format!("/t/{number}"), "tok")).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn who_waits_waits_until_the_time_it_said() -> Tested {
    let server = Server::with(Limits::default(), Clock::Simulated);
    let mut store = server.connect();
    assert_eq!(store.next_event(Duration::from_hours(1))?, None);
    assert_eq!(store.now(), Duration::from_hours(1), "an hour, at once");
    assert_eq!(store.next_event(Duration::from_secs(1))?, None);
    assert_eq!(store.now(), Duration::from_hours(1), "time does not go back");
    Ok(())
}
