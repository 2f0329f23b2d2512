//! Permissions, and what a guest may use up.

use pcidevs::DomainId;
use pcidevs::xen::memory::{Clock, Connection, Limits, Server};
use pcidevs::xen::store::{Access, Permission, Refusal, Special, Store};

use super::{event, path, refused};
use crate::Tested;
use crate::stores::on_every_store;

const GUEST: DomainId = DomainId::new(7);
const OTHER: DomainId = DomainId::new(8);
const HOST: DomainId = DomainId::new(0);

#[test]
fn permissions_are_what_was_set_and_children_begin_with_them() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        // Permissions that name a guest nobody knows are not kept by every store.
        store.introduce(GUEST, 1, 2)?;
        store.mkdir(None, &path("/t")?)?;
        let set = [Permission::new(HOST, Access::None), Permission::new(GUEST, Access::Read)];
        store.set_permissions(None, &path("/t")?, &set)?;
        assert_eq!(store.permissions(None, &path("/t")?)?, set);
        store.write(None, &path("/t/a/b")?, b"")?;
        assert_eq!(store.permissions(None, &path("/t/a/b")?)?, set);
        Ok(())
    })
}

/// A store in memory with what the host has, the guest owns, and the guest may read.
fn guests_store(limits: Limits) -> Result<(Server, Connection, Connection), Box<dyn std::error::Error>> {
    let server = Server::with(limits, Clock::Simulated);
    let mut host = server.connect();
    host.introduce(GUEST, 1, 2)?;
    let nodes =
        [("/host", HOST, Access::None), ("/own", GUEST, Access::None), ("/shown", HOST, Access::None)];
    for (at, owner, everybody) in nodes {
        host.mkdir(None, &path(at)?)?;
        host.set_permissions(None, &path(at)?, &[Permission::new(owner, everybody)])?;
    }
    let shown = [Permission::new(HOST, Access::None), Permission::new(GUEST, Access::Read)];
    host.set_permissions(None, &path("/shown")?, &shown)?;
    let guest = server.connect_as(GUEST);
    Ok((server, host, guest))
}

#[test]
fn a_guest_may_do_what_the_permissions_say() -> Tested {
    let (_, mut host, mut guest) = guests_store(Limits::default())?;
    assert_eq!(guest.read(None, &path("/host")?), refused(Refusal::Denied));
    assert_eq!(
        guest.read(None, &path("/host/none")?),
        refused(Refusal::Denied),
        "not even what is not there"
    );
    assert_eq!(guest.read(None, &path("/shown")?)?, b"");
    assert_eq!(guest.read(None, &path("/shown/none")?), refused(Refusal::NotFound));
    assert_eq!(guest.write(None, &path("/shown")?, b""), refused(Refusal::Denied));
    assert_eq!(guest.write(None, &path("/shown/new")?, b""), refused(Refusal::Denied));
    assert_eq!(guest.remove(None, &path("/shown")?), refused(Refusal::Denied));
    assert_eq!(guest.mkdir(None, &path("/shown/new")?), refused(Refusal::Denied));
    guest.write(None, &path("/own/new")?, b"1")?;
    assert_eq!(host.permissions(None, &path("/own/new")?)?, [Permission::new(GUEST, Access::None)]);
    assert_eq!(guest.introduce(OTHER, 1, 2), refused(Refusal::Denied));
    assert_eq!(guest.watch(&Special::ReleaseDomain.into(), "t"), refused(Refusal::Denied));
    Ok(())
}

#[test]
fn only_the_owner_sets_permissions_and_gives_nothing_away() -> Tested {
    let (server, _, mut guest) = guests_store(Limits::default())?;
    let to_all = [Permission::new(GUEST, Access::Both)];
    assert_eq!(guest.set_permissions(None, &path("/shown")?, &to_all), refused(Refusal::Denied));
    let to_other = [Permission::new(OTHER, Access::Both)];
    assert_eq!(guest.set_permissions(None, &path("/own")?, &to_other), refused(Refusal::Denied));
    assert_eq!(guest.set_permissions(None, &path("/own")?, &[]), refused(Refusal::Invalid));
    assert_eq!(server.connect_as(OTHER).write(None, &path("/own")?, b""), refused(Refusal::Denied));
    guest.set_permissions(None, &path("/own")?, &to_all)?;
    assert_eq!(server.connect_as(OTHER).write(None, &path("/own")?, b""), Ok(()));
    Ok(())
}

#[test]
fn a_guest_hears_of_what_it_can_read_and_of_nothing_else() -> Tested {
    let (_, mut host, mut guest) = guests_store(Limits::default())?;
    guest.watch(&path("/")?.into(), "all")?;
    event(&mut guest)?;
    host.write(None, &path("/host/secret")?, b"")?;
    host.write(None, &path("/shown/a")?, b"")?;
    host.remove(None, &path("/shown/a")?)?;
    let mut heard = Vec::new();
    while let Some(event) = guest.next_event(std::time::Duration::ZERO)? {
        heard.push(event.path.as_str().to_owned());
    }
    assert_eq!(heard, ["/shown/a"], "created and removed, which is one event to read again");
    Ok(())
}

#[test]
fn a_guests_quotas_hold_and_the_host_has_none() -> Tested {
    let limits = Limits { nodes: 3, node_bytes: 40, watches: 2, transactions: 1 };
    let (_, mut host, mut guest) = guests_store(limits)?;
    // "/own" is one of the three.
    guest.write(None, &path("/own/a")?, b"")?;
    assert_eq!(
        guest.write(None, &path("/own/b/c")?, b""),
        refused(Refusal::NoSpace),
        "two more would be four"
    );
    guest.write(None, &path("/own/b")?, b"")?;
    assert_eq!(guest.write(None, &path("/own/c")?, b""), refused(Refusal::NoSpace));
    guest.remove(None, &path("/own/b")?)?;
    guest.write(None, &path("/own/c")?, b"")?;
    assert_eq!(guest.write(None, &path("/own/c")?, &[0; 40]), refused(Refusal::NoSpace));
    guest.watch(&path("/own")?.into(), "1")?;
    guest.watch(&path("/own")?.into(), "2")?;
    assert_eq!(guest.watch(&path("/own")?.into(), "3"), refused(Refusal::TooBig));
    guest.begin()?;
    assert_eq!(guest.begin(), refused(Refusal::NoSpace));
    for number in 0..10 {
        host.write(None, &path(&format!("/host/{number}"))?, &[0; 100])?;
        host.watch(&path("/host")?.into(), &number.to_string())?;
        host.begin()?;
    }
    assert_eq!(host.directory(None, &path("/host")?)?.len(), 10);
    Ok(())
}
