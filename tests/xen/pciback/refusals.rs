//! What is refused, and that nothing was touched then.

use pcidevs::xen::memory::{Clock, Limits, Server};
use pcidevs::xen::pciback::{Export, Outcome, PcibackError, State, Toolstack, Unsettled};
use pcidevs::xen::store::{Store, StoreError};
use pcidevs::{DomainId, Errno};

use super::{BACKEND, FRONTEND, GUEST, come_to_rest, device, dump, exports, node, set};
use crate::Tested;
use crate::stores::on_every_store;

#[test]
fn a_set_that_is_none_is_refused_before_anything_is_asked() -> Tested {
    let mut store = Server::new().connect();
    let mut guest = Toolstack::new(&mut store, GUEST);
    assert_eq!(guest.publish(&[], "guest"), Err(PcibackError::Set));
    assert_eq!(guest.publish(&exports([0, 1, 0]), "guest"), Err(PcibackError::Set));
    let wide = "10000:03:00.0".parse()?;
    assert_eq!(guest.publish(&[Export::of(wide)], "guest"), Err(PcibackError::Segment(wide)));
    for name in ["", "a\nb", "ü"] {
        let named = Export { name: Some(name.into()), ..Export::of(device(0)) };
        assert_eq!(guest.publish(&[named], "guest"), Err(PcibackError::Name(device(0))), "{name:?}");
    }
    Ok(())
}

#[test]
fn another_guests_device_is_refused_and_its_record_stays() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let other = DomainId::new(8);
        Toolstack::new(&mut *store, other).publish(&exports([1]), "other")?;
        let before = dump(&mut *store, &node("/"))?;
        let mut guest = Toolstack::new(&mut *store, GUEST);
        let held = PcibackError::Held { device: device(1), guest: other };
        assert_eq!(guest.publish(&exports([0, 1]), "guest"), Err(held.clone()));
        assert_eq!(held.to_string(), "0000:03:00.1 is domain 8's");
        assert_eq!(held.errno(), Errno::EBUSY);
        assert_eq!(dump(&mut *store, &node("/"))?, before);
        Ok(())
    })
}

#[test]
fn a_guest_with_a_backend_is_added_to_and_not_published_again() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let mut guest = Toolstack::new(&mut *store, GUEST);
        guest.publish(&exports([0]), "guest")?;
        assert_eq!(guest.publish(&exports([1]), "guest"), Err(PcibackError::Backend(State::Initialising)));
        assert_eq!(guest.list()?.len(), 1);
        Ok(())
    })
}

/// A guest in memory whose time is simulated, with two devices and everybody at rest.
fn at_rest() -> Result<(Server, pcidevs::xen::memory::Connection), Box<dyn std::error::Error>> {
    let server = Server::with(Limits::default(), Clock::Simulated);
    let mut store = server.connect();
    store.introduce(GUEST, 1, 2)?;
    Toolstack::new(&mut store, GUEST).publish(&exports([0, 1]), "guest")?;
    come_to_rest(&mut store, 2)?;
    Ok((server, store))
}

#[test]
fn a_device_that_is_there_or_is_not_is_said_so() -> Tested {
    let (_, mut store) = at_rest()?;
    let mut guest = Toolstack::new(&mut store, GUEST);
    assert_eq!(guest.add(&exports([2, 1])), Err(PcibackError::Already(device(1))));
    assert_eq!(guest.remove(device(3)), Err(PcibackError::NotExported(device(3))));
    let mut nobody = Toolstack::new(&mut store, DomainId::new(0));
    assert_eq!(nobody.add(&exports([3])), Err(PcibackError::NoBackend));
    Ok(())
}

#[test]
fn who_waits_too_long_says_in_which_states_and_changes_nothing() -> Tested {
    for (backend, frontend) in [("2", "1"), ("3", "3"), ("4", "3"), ("7", "4"), ("8", "7"), ("4", "rubbish")]
    {
        let (_, mut store) = at_rest()?;
        set(&mut store, BACKEND, "state", backend)?;
        set(&mut store, FRONTEND, "state", frontend)?;
        let before = dump(&mut store, &node("/"))?;
        let [be, fe] = [backend, frontend].map(|state| Some(State::read(state.as_bytes())));
        let stuck = PcibackError::Unsettled {
            unsettled: Unsettled::Stuck { backend: be, frontend: fe },
            outcome: Outcome::NotBegun,
        };
        let mut guest = Toolstack::new(&mut store, GUEST);
        assert_eq!(guest.add(&exports([2])), Err(stuck.clone()));
        assert_eq!(guest.remove(device(0)), Err(stuck.clone()));
        assert_eq!(stuck.errno(), Errno::ETIMEDOUT);
        assert_eq!(dump(&mut store, &node("/"))?, before);
    }
    Ok(())
}

#[test]
fn a_backend_that_has_given_up_is_said_so_and_can_be_released() -> Tested {
    for over in [State::Closing, State::Closed] {
        let (_, mut store) = at_rest()?;
        set(&mut store, BACKEND, "state", &over.number())?;
        let mut guest = Toolstack::new(&mut store, GUEST);
        let error = PcibackError::Unsettled { unsettled: Unsettled::Over(over), outcome: Outcome::NotBegun };
        assert_eq!(guest.add(&exports([2])), Err(error.clone()));
        assert_eq!(guest.remove(device(0)), Err(error));
        let released = guest.release()?;
        assert_eq!(released.devices, [device(0), device(1)]);
        assert_eq!(released.by_driver, over == State::Closed, "nobody answers here");
        assert_eq!(dump(&mut store, &node("/"))?, [""; 0]);
    }
    Ok(())
}

#[test]
fn a_dead_guest_is_said_so_and_can_be_released() -> Tested {
    let (server, mut store) = at_rest()?;
    server.with_database(|database| database.domain_dies(GUEST));
    let mut guest = Toolstack::new(&mut store, GUEST);
    let gone = PcibackError::Unsettled { unsettled: Unsettled::GuestGone, outcome: Outcome::NotBegun };
    assert_eq!(guest.add(&exports([2])), Err(gone.clone()));
    assert_eq!(guest.remove(device(0)), Err(gone));
    assert_eq!(guest.release()?.devices, [device(0), device(1)]);
    assert_eq!(dump(&mut store, &node("/"))?, [""; 0]);
    Ok(())
}

#[test]
fn release_leaves_another_guests_record_alone() -> Tested {
    let (_, mut store) = at_rest()?;
    // As after a mistake of somebody else.
    store.write(None, &node("/libxl/pci/0000-03-00-1/domid"), b"9")?;
    Toolstack::new(&mut store, GUEST).release()?;
    assert_eq!(dump(&mut store, &node("/"))?, ["/libxl/pci/0000-03-00-1/domid = 9"]);
    Ok(())
}

#[test]
fn nodes_that_say_what_they_cannot_are_an_error_and_no_panic() -> Tested {
    for (leaf, value) in [
        ("num_devs", "-1"),
        ("num_devs", ""),
        ("num_devs", "4097"),
        ("num_devs", "99999999999"),
        ("num_devs", "2 "),
        ("dev-0", ""),
        ("dev-0", "0000:03:00"),
        ("dev-1", "\u{fffd}"),
    ] {
        let (_, mut store) = at_rest()?;
        set(&mut store, BACKEND, leaf, value)?;
        let nonsense = PcibackError::Nonsense(node(BACKEND).child(leaf)?);
        let mut guest = Toolstack::new(&mut store, GUEST);
        assert_eq!(guest.list(), Err(nonsense.clone()), "{leaf} = {value:?}");
        assert_eq!(guest.add(&exports([2])), Err(nonsense), "{leaf} = {value:?}");
    }
    Ok(())
}

#[test]
fn gaps_that_libxl_leaves_are_closed_by_the_next_change() -> Tested {
    let (_, mut store) = at_rest()?;
    for leaf in ["key-0", "dev-0", "opts-0", "state-0", "vdev-0"] {
        store.remove(None, &node(BACKEND).child(leaf)?)?;
    }
    let mut guest = Toolstack::new(&mut store, GUEST);
    assert_eq!(guest.list()?.len(), 1);
    // Nobody answers, so it is taken back; the gap stays closed.
    let error = guest.add(&exports([2])).err().ok_or("nobody answered")?;
    assert!(matches!(error, PcibackError::Unsettled { outcome: Outcome::Withdrawn, .. }), "{error:?}");
    let lines = dump(&mut store, &node(BACKEND))?;
    assert!(lines.contains(&format!("{BACKEND}/num_devs = 1")), "{lines:?}");
    assert!(lines.contains(&format!("{BACKEND}/dev-0 = 0000:03:00.1")), "{lines:?}");
    assert!(lines.contains(&format!("{BACKEND}/vdev-0 = 0000:00:01.00")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("-1 = ")), "{lines:?}");
    Ok(())
}

#[test]
fn a_store_that_always_conflicts_is_an_error_after_so_many_attempts() -> Tested {
    let server = Server::new();
    let mut store = server.connect();
    server.with_database(|database| database.refuse(1000));
    let result = Toolstack::new(&mut store, GUEST).publish(&exports([0]), "guest");
    assert_eq!(result, Err(StoreError::Conflicts { attempts: 32 }.into()));
    server.with_database(|database| database.refuse(31));
    Toolstack::new(&mut store, GUEST).publish(&exports([0]), "guest")?;
    Ok(())
}
