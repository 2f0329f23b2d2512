//! One rule each.

use pcidevs::Errno;
use pcidevs::Owner;
use pcidevs::host::fake::FakeFunction;
use pcidevs::xen::assignable::{Added, Afterwards, AssignableError, AssignableState};
use pcidevs::xen::store::{NodePath, Store};

use super::{Seen, World, at, bare, bridge, card};
use crate::Tested;

#[test]
fn add_unbinds_lists_binds_and_puts_into_quarantine() -> Tested {
    let world = World::new();
    world.kernel.take_written();
    world.add(card(), Some("uplink"))?;
    assert_eq!(
        world.kernel.take_written(),
        [
            "\"0000:03:00.0\" > /sys/bus/pci/drivers/igb/unbind",
            "\"0000:03:00.0\" > /sys/bus/pci/drivers/pciback/new_slot",
            "\"0000:03:00.0\" > /sys/bus/pci/drivers/pciback/bind",
        ]
    );
    assert_eq!(
        world.look(card()),
        Seen {
            driver: Some("pciback".into()),
            has_slot: true,
            owner: Some(Owner::Quarantine),
            records: vec![
                "/libxl/pci/0000-03-00-0/driver_path = /sys/bus/pci/drivers/igb".into(),
                "/libxl/pci/0000-03-00-0/name = uplink".into(),
            ],
        }
    );
    Ok(())
}

#[test]
fn add_records_the_original_driver_before_anything_is_touched() -> Tested {
    let world = World::new();
    let server = world.server.clone();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
    let at_first = seen.clone();
    world.kernel.restart();
    world.kernel.on_write(move |number, _| {
        if number == 1 {
            let path = "/libxl/pci/0000-03-00-0/driver_path";
            *at_first.lock().expect("no panic") =
                server.with_database(|database| database.text(path).map(str::to_owned));
        }
        None
    });
    let mut store = world.server.connect();
    pcidevs::xen::assignable::Assignable::new(&world.kernel, &*world.xen, &mut store).add(card(), None)?;
    assert_eq!(seen.lock().expect("no panic").as_deref(), Some("/sys/bus/pci/drivers/igb"));
    Ok(())
}

#[test]
fn remove_takes_the_slot_away_binds_the_original_and_then_forgets_the_record() -> Tested {
    let world = World::new();
    let before = world.look(card());
    world.add(card(), None)?;
    assert_eq!(world.remove(card())?.map(String::from).as_deref(), Some("igb"));
    assert_eq!(world.look(card()), before);
    Ok(())
}

#[test]
fn remove_can_leave_it_without_a_driver() -> Tested {
    let world = World::new();
    world.add(card(), None)?;
    let left = world.run(&[], |all| all.remove(card(), Afterwards::LeaveUnbound))?;
    assert_eq!(left, None);
    let seen = world.look(card());
    assert_eq!((seen.driver, seen.has_slot, seen.records.len()), (None, false, 0));
    Ok(())
}

#[test]
fn a_device_that_had_no_driver_has_none_afterwards() -> Tested {
    let world = World::new();
    let before = world.look(bare());
    world.add(bare(), None)?;
    assert_eq!(world.look(bare()).driver.as_deref(), Some("pciback"));
    assert_eq!(world.remove(bare())?, None);
    assert_eq!(world.look(bare()), before);
    Ok(())
}

#[test]
fn add_again_forgets_no_original_driver() -> Tested {
    let world = World::new();
    world.add(card(), None)?;
    let before = world.look(card());
    assert_eq!(world.run(&[], |all| all.add(card(), None))?, Added::Before);
    assert_eq!(world.look(card()), before);
    Ok(())
}

#[test]
fn a_slot_that_was_listed_already_is_not_written_again() -> Tested {
    let world = World::new();
    world.kernel.add_pciback(&[card()]);
    world.add(card(), None)?;
    assert!(!world.kernel.take_written().iter().any(|line| line.contains("new_slot")));
    Ok(())
}

#[test]
fn what_a_guest_has_is_refused_with_its_name_and_pciback_never_warns() -> Tested {
    let world = World::new();
    world.add(card(), None)?;
    world.kernel.use_through_pciback(card(), true);
    let at_guest = NodePath::new("/libxl/pci/0000-03-00-0/domid")?;
    world.server.connect().write(None, &at_guest, b"7")?;
    let before = world.look(card());
    for refused in [world.remove(card()), world.revert(card())] {
        let error = refused.err().ok_or("refused")?;
        assert_eq!(
            error.to_string(),
            "0000:03:00.0 is busy: pciback export of domain 7; detach it there first"
        );
        assert_eq!(error.errno(), Errno::EBUSY);
    }
    assert_eq!(world.look(card()), before);
    assert_eq!(world.kernel.pciback_warnings(), 0);
    Ok(())
}

#[test]
fn what_cannot_become_assignable_is_refused_before_anything_is_touched() -> Tested {
    let world = World::new();
    world.kernel.add(at("10000:01:00.0"), FakeFunction::endpoint((1, 2), 7));
    let nobody = at("0000:09:00.0");
    world.kernel.add(at("0000:04:00.0"), FakeFunction::endpoint((1, 2), 8));
    world
        .kernel
        .write_as_somebody("bus/pci/devices/0000:04:00.0/driver_override", "vfio-pci\n")
        .map_err(|errno| errno.to_string())?;
    world.kernel.add(at("0000:05:00.0"), FakeFunction::endpoint((1, 2), 9));
    world
        .kernel
        .write_as_somebody("bus/pci/devices/0000:05:00.0/driver_override", "vfio-pci\n")
        .map_err(|errno| errno.to_string())?;
    world
        .kernel
        .write_as_somebody("bus/pci/drivers_probe", "0000:05:00.0")
        .map_err(|errno| errno.to_string())?;
    world
        .kernel
        .write_as_somebody("bus/pci/devices/0000:05:00.0/driver_override", "\n")
        .map_err(|errno| errno.to_string())?;
    world.kernel.take_written();
    let refused = [
        (at("10000:01:00.0"), "10000:01:00.0 has a segment that xen-pciback does not know"),
        (nobody, "there is no device at 0000:09:00.0"),
        (bridge(), "0000:00:01.0 is not an endpoint, and cannot be given to a guest"),
        (
            at("0000:04:00.0"),
            "0000:04:00.0 is kept for \"vfio-pci\" by its driver_override: clear that first",
        ),
        (
            at("0000:05:00.0"),
            "0000:05:00.0 is on vfio-pci, which somebody else wanted: give it back there first (pcidevs reattach)",
        ),
    ];
    for (device, text) in refused {
        assert_eq!(world.add(device, None).map_err(|error| error.to_string()), Err(text.to_owned()));
    }
    for name in ["", "a\nb"] {
        assert_eq!(world.add(card(), Some(name)), Err(AssignableError::Name));
    }
    assert_eq!(world.remove(card()), Err(AssignableError::NotAssignable(card())));
    assert_eq!(world.kernel.take_written(), [""; 0]);
    assert_eq!(world.look(card()).records, [""; 0]);
    Ok(())
}

#[test]
fn without_pciback_the_error_says_what_to_do() {
    let kernel = pcidevs::host::fake::Fake::new();
    kernel.add(card(), FakeFunction::endpoint((1, 2), 1));
    let (xen, server) = (pcidevs::xen::hypercall::Simulated::new(), pcidevs::xen::memory::Server::new());
    let mut store = server.connect();
    let refused = pcidevs::xen::assignable::Assignable::new(&kernel, &xen, &mut store).add(card(), None);
    assert_eq!(refused, Err(AssignableError::NoPciback));
    assert!(AssignableError::NoPciback.to_string().contains("modprobe xen-pciback"));
}

#[test]
fn a_name_is_one_devices_and_finds_it() -> Tested {
    let world = World::new();
    world.add(card(), Some("uplink"))?;
    assert_eq!(world.add(bare(), Some("uplink")), Err(AssignableError::NameTaken(card())));
    assert_eq!(world.run(&[], |all| all.named("uplink"))?, Some(card()));
    assert_eq!(world.run(&[], |all| all.named("downlink"))?, None);
    Ok(())
}

/// As a function, for a closure here would be the method's name, whose lifetime is another.
fn list(world: &World) -> Result<Vec<pcidevs::xen::assignable::AssignableDevice>, AssignableError> {
    world.run(&[], |all| {
        let listed = all.list()?;
        Ok(listed)
    })
}

#[test]
fn the_list_tells_what_is_free_exported_interrupted_and_vanished() -> Tested {
    let world = World::new();
    world.add(card(), Some("uplink"))?;
    world.add(bare(), None)?;
    let mut store = world.server.connect();
    store.write(None, &NodePath::new("/libxl/pci/0000-03-00-1/domid")?, b"7")?;
    let driver = b"/sys/bus/pci/drivers/igb";
    store.write(None, &NodePath::new("/libxl/pci/0000-09-00-0/driver_path")?, driver)?;
    // Somebody's probe, behind our back.
    world.kernel.add(at("0000:04:00.0"), FakeFunction::endpoint((1, 2), 8));
    store.write(None, &NodePath::new("/libxl/pci/0000-04-00-0/driver_path")?, driver)?;
    // What libxl leaves behind.
    world.kernel.add(at("0000:05:00.0"), FakeFunction::endpoint((1, 2), 9));
    store.mkdir(None, &NodePath::new("/libxl/pci/0000-05-00-0")?)?;
    store.mkdir(None, &NodePath::new("/libxl/pci/rubbish")?)?;
    let listed = list(&world)?;
    let states: Vec<_> = listed.iter().map(|one| (one.device, one.state)).collect();
    assert_eq!(
        states,
        [
            (card(), AssignableState::Free),
            (bare(), AssignableState::Exported(pcidevs::DomainId::new(7))),
            (at("0000:04:00.0"), AssignableState::Interrupted),
            (at("0000:09:00.0"), AssignableState::Vanished),
        ]
    );
    assert_eq!(listed[0].name.as_deref(), Some("uplink"));
    assert_eq!(listed[0].original.as_ref().map(pcidevs::host::DriverName::as_str), Some("igb"));
    Ok(())
}

#[test]
fn a_record_that_says_what_it_cannot_is_an_error_and_no_rebind_by_guess() -> Tested {
    for (leaf, value) in
        [("driver_path", "/etc/passwd"), ("driver_path", "/sys/bus/pci/drivers/../x"), ("domid", "-1")]
    {
        let world = World::new();
        world.add(card(), None)?;
        let node = NodePath::new("/libxl/pci/0000-03-00-0")?.child(leaf)?;
        world.server.connect().write(None, &node, value.as_bytes())?;
        let before = world.look(card());
        assert_eq!(world.remove(card()), Err(AssignableError::Nonsense(node)));
        assert_eq!(world.look(card()), before);
    }
    Ok(())
}
