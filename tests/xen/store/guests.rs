//! Guests: made known, released, dead.

use pcidevs::DomainId;
use pcidevs::xen::store::{Access, Permission, Refusal, Special};

use super::{event, path, refused};
use crate::Tested;
use crate::stores::on_every_store;

const GUEST: DomainId = DomainId::new(7);

#[test]
fn a_guest_is_known_from_its_introduction_to_its_release() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        assert!(!store.is_introduced(GUEST)?);
        store.introduce(GUEST, 1, 2)?;
        assert!(store.is_introduced(GUEST)?);
        store.release(GUEST)?;
        assert!(!store.is_introduced(GUEST)?);
        assert_eq!(store.release(GUEST), refused(Refusal::NotFound));
        assert!(store.is_introduced(DomainId::new(0))?, "the host always is");
        Ok(())
    })
}

#[test]
fn a_guests_path_is_a_matter_of_its_number() -> Tested {
    on_every_store(|world| {
        assert_eq!(world.connect().domain_path(GUEST)?, path("/local/domain/7")?);
        Ok(())
    })
}

#[test]
fn introduction_and_release_are_told() -> Tested {
    on_every_store(|world| {
        let (mut store, mut watcher) = (world.connect(), world.connect());
        watcher.watch(&Special::IntroduceDomain.into(), "in")?;
        watcher.watch(&Special::ReleaseDomain.into(), "out")?;
        assert_eq!(event(&mut *watcher)?.1, "in");
        assert_eq!(event(&mut *watcher)?.1, "out");
        store.introduce(GUEST, 1, 2)?;
        assert_eq!(event(&mut *watcher)?, ("@introduceDomain".into(), "in".into()));
        store.release(GUEST)?;
        assert_eq!(event(&mut *watcher)?, ("@releaseDomain".into(), "out".into()));
        Ok(())
    })
}

#[test]
fn a_death_is_told_and_the_guest_is_not_known_any_more() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.introduce(GUEST, 1, 2)?;
        store.watch(&Special::ReleaseDomain.into(), "out")?;
        event(&mut *store)?;
        world.kill(GUEST);
        assert_eq!(event(&mut *store)?, ("@releaseDomain".into(), "out".into()));
        assert!(!store.is_introduced(GUEST)?);
        Ok(())
    })
}

#[test]
fn what_a_dead_guest_owned_is_gone() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.introduce(GUEST, 1, 2)?;
        let (own, kept) = (path("/local/domain/7/own")?, path("/local/domain/7/hosts")?);
        store.write(None, &own.child("below")?, b"")?;
        store.write(None, &kept, b"")?;
        for guests in [own.child("below")?, own.clone()] {
            store.set_permissions(None, &guests, &[Permission::new(GUEST, Access::None)])?;
        }
        store.watch(&Special::ReleaseDomain.into(), "out")?;
        event(&mut *store)?;
        world.kill(GUEST);
        event(&mut *store)?;
        assert_eq!(store.find(None, &own)?, None);
        assert_eq!(store.find(None, &kept)?, Some(Vec::new()));
        Ok(())
    })
}
