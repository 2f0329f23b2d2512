//! Orders of writes that are wrong: the model shows what each of them leads to, so it would show it of ours.

use pcidevs::xen::pciback::{PcibackError, State};
use pcidevs::xen::store::{Change, Store, StoreError, transact};

use super::actor::{Actor, Deed, Tool};
use super::driver::{Driver, Version};
use super::explorer::{Rules, Situation};
use super::frontend::Manners;
use super::kernel::{ATTEMPTS, GUEST, HOST, PLACE, be, device, fe, node, state, store_with_guest};
use super::replay::Replay;
use super::scenarios::{
    ADD_TWO, PUBLISH_ONE, PUBLISH_TWO, REMOVE_ONE, all_well, connected, exported, fails, hold, machine,
    settled_with, sound,
};
use crate::Tested;

fn commit(store: &mut Replay<'_>, changes: &[(&str, String)]) -> Result<(), StoreError> {
    let changes: Vec<Change> =
        changes.iter().map(|(leaf, value)| Change::Write(be(leaf), value.clone())).collect();
    transact(store, ATTEMPTS, |_, _| Ok((changes.clone(), ())))
}

/// The nodes of a device at an index, with a record of whose it is, as ours have it.
fn at_index(index: u8, function: u8) -> Vec<Change> {
    let address = device(function).to_string();
    let record = format!("/libxl/pci/0000-03-00-{function}/domid");
    let leaf = |name: &str, value: &str| Change::Write(be(&format!("{name}-{index}")), value.to_owned());
    vec![
        leaf("key", &address),
        leaf("dev", &address),
        leaf("opts", "permissive=0"),
        leaf("state", "1"),
        Change::Write(node(&record), GUEST.to_string()),
    ]
}

/// Everything but the devices.
fn folders() -> Vec<Change> {
    use pcidevs::xen::store::{Access, Permission};
    let permissions =
        |owner, reader| vec![Permission::new(owner, Access::None), Permission::new(reader, Access::Read)];
    let (backend, frontend) = (PLACE.backend().expect("a path"), PLACE.frontend().expect("a path"));
    vec![
        Change::Mkdir(frontend.clone()),
        Change::SetPermissions(frontend, permissions(GUEST, HOST)),
        Change::Mkdir(backend.clone()),
        Change::SetPermissions(backend, permissions(HOST, GUEST)),
        Change::Write(fe("state"), "1".into()),
        Change::Write(be("state"), "1".into()),
    ]
}

/// libxl's: a transaction for each device, the number of devices growing with them.
const LIBXL_THREE: Deed = |store| {
    for function in 0..3 {
        transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
            let mut changes = if function == 0 { folders() } else { Vec::new() };
            changes.extend(at_index(function, function));
            changes.push(Change::Write(be("num_devs"), (function + 1).to_string()));
            Ok((changes, ()))
        })?;
    }
    Ok(())
};

#[test]
fn a_transaction_for_each_device_loses_devices_with_the_driver_that_looks_once() -> Tested {
    let start = machine(Version::LooksOnce, Manners::Linux).with(Tool::patient(&[LIBXL_THREE]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0, 1, 2]));
    let told = fails(&start, &Rules { always: |_| Ok(()), finally })?;
    println!("{told}");
    assert!(told.starts_with("the guest has {Sbdf"), "{told}");
    Ok(())
}

#[test]
fn a_transaction_for_each_device_loses_devices_with_any_driver_if_the_guest_attaches_meanwhile() -> Tested {
    let start = machine(Version::LooksAgain, Manners::Linux).with(Tool::patient(&[LIBXL_THREE]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0, 1, 2]));
    let told = fails(&start, &Rules { always: |_| Ok(()), finally })?;
    assert!(told.starts_with("the guest has {Sbdf"), "{told}");
    Ok(())
}

#[test]
fn a_driver_that_looks_again_is_a_remedy_only_before_the_guest_starts() -> Tested {
    let without_guest = |version| {
        let driver = Actor::Driver(Driver::new(version));
        Situation::new(store_with_guest()).with(driver, HOST).with(Tool::patient(&[LIBXL_THREE]), HOST)
    };
    let finally = |end: &Situation| match exported(&end.store).len() {
        3 => Ok(()),
        number => Err(format!("the driver has {number} devices")),
    };
    let rules = Rules { always: |_| Ok(()), finally };
    hold("libxl's order, no guest, looks again", &without_guest(Version::LooksAgain), &rules)?;
    assert!(fails(&without_guest(Version::LooksOnce), &rules)?.starts_with("the driver has"));
    Ok(())
}

/// The number of devices last, so that the driver would wait for it.
const NUMBER_LAST: Deed = |store| {
    transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
        let devices = (0..2).flat_map(|function| at_index(function, function));
        Ok((folders().into_iter().chain(devices).collect(), ()))
    })?;
    Ok(commit(store, &[("num_devs", "2".into())])?)
};

#[test]
fn a_number_of_devices_that_comes_later_is_fatal_to_the_driver() -> Tested {
    let start = machine(Version::LooksOnce, Manners::Linux).with(Tool::patient(&[NUMBER_LAST]), HOST);
    let told = fails(&start, &Rules { always: sound, finally: |_| Ok(()) })?;
    assert!(told.starts_with("the driver gave up: it found no number of devices"), "{told}");
    Ok(())
}

/// Waits for a state of the backend.
fn await_backend(store: &mut Replay<'_>, wanted: State) -> Result<(), PcibackError> {
    store.watch(&be("state").into(), "mutant")?;
    while state(store, &be("state"))? != wanted {
        store.next_event(store.now())?;
    }
    Ok(store.unwatch(&be("state").into(), "mutant")?)
}

/// Removes the first device and gives its index to another as soon as the driver has said that it is done.
const REUSE_EARLY: Deed = |store| {
    commit(store, &[("state-0", "5".into()), ("state", "7".into())])?;
    await_backend(store, State::Reconfigured)?;
    transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
        let mut changes = at_index(0, 2);
        changes.push(Change::Write(be("state"), "7".into()));
        changes.push(Change::Remove(node("/libxl/pci/0000-03-00-0")));
        Ok((changes, ()))
    })?;
    Ok(())
};

#[test]
fn an_index_that_is_used_again_before_rest_loses_the_device() -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO])
        .with(Tool::patient(&[REUSE_EARLY]), HOST);
    let finally = |end: &Situation| {
        let taken = exported(&end.store).contains(&device(2));
        if taken { Ok(()) } else { Err("the driver never took the new device".to_owned()) }
    };
    let told = fails(&start, &Rules { always: |_| Ok(()), finally })?;
    assert!(told.starts_with("the driver never took the new device"), "{told}");
    Ok(())
}

/// Asks for a removal and leaves its mark, as a tool stack does that dies then.
const REMOVE_AND_LEAVE: Deed = |store| Ok(commit(store, &[("state-0", "5".into()), ("state", "7".into())])?);

/// Asks for another one at rest, without clearing up.
const REMOVE_AGAIN: Deed = |store| Ok(commit(store, &[("state-1", "5".into()), ("state", "7".into())])?);

#[test]
fn a_mark_of_removal_that_stays_is_fatal_to_the_driver_at_the_next_reconfiguration() -> Tested {
    let left = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO, REMOVE_AND_LEAVE]);
    let start = left.clone().with(Tool::patient(&[REMOVE_AGAIN]), HOST);
    let told = fails(&start, &Rules { always: sound, finally: |_| Ok(()) })?;
    assert!(
        told.starts_with("the driver gave up: it was to remove a device that it does not have"),
        "{told}"
    );
    // Ours clears up what the other one left.
    let start = left.with(Tool::patient(&[REMOVE_ONE]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[]));
    hold("remove after a tool stack that died", &start, &Rules { always: sound, finally })
}

/// Adds a device without looking at the front end.
const ADD_UNSEEN: Deed = |store| {
    transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
        let mut changes = at_index(1, 2);
        changes.push(Change::Write(be("num_devs"), "2".into()));
        changes.push(Change::Write(be("state"), "7".into()));
        Ok((changes, ()))
    })?;
    Ok(())
};

/// The backend is Connected, and the front end does not know it yet.
fn half_way() -> Situation {
    let is = |now: &Situation, at: &pcidevs::xen::store::NodePath, state: State| {
        now.store.text(at.as_str()) == Some(state.number().as_str())
    };
    machine(Version::LooksOnce, Manners::Linux)
        .with(Tool::patient(&[PUBLISH_ONE]), HOST)
        .until(|now| is(now, &be("state"), State::Connected) && is(now, &fe("state"), State::Initialised))
        .without_tools()
}

#[test]
fn a_backend_that_is_connected_is_not_enough_to_add_to() -> Tested {
    let start = half_way().with(Tool::patient(&[ADD_UNSEEN]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0, 2]));
    let told = fails(&start, &Rules { always: sound, finally })?;
    assert!(told.starts_with("the guest has {}, "), "{told}");
    Ok(())
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn an_add_waits_for_both_sides() -> Tested {
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0, 2]));
    hold("add half way", &half_way().with(Tool::patient(&[ADD_TWO]), HOST), &Rules { always: sound, finally })
}

/// Adds, does not wait, and takes everything back, "Reconfiguring" included, if the guest has not answered.
const ADD_AND_WITHDRAW_ALL: Deed = |store| {
    transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
        let mut changes = at_index(1, 3);
        changes.extend([Change::Write(be("num_devs"), "2".into()), Change::Write(be("state"), "7".into())]);
        Ok((changes, ()))
    })?;
    transact(store, ATTEMPTS, |store, t| -> Result<_, StoreError> {
        let unanswered =
            store.read(Some(t), &be("state"))? == b"7" && store.read(Some(t), &fe("state"))? == b"4";
        if !unanswered {
            return Ok((Vec::new(), ()));
        }
        let leaves = ["key-1", "dev-1", "opts-1", "state-1"];
        let mut changes: Vec<Change> = leaves.iter().map(|leaf| Change::Remove(be(leaf))).collect();
        changes.push(Change::Remove(node("/libxl/pci/0000-03-00-3")));
        changes.extend([Change::Write(be("num_devs"), "1".into()), Change::Write(be("state"), "4".into())]);
        Ok((changes, ()))
    })?;
    Ok(())
};

#[test]
fn a_request_that_is_taken_back_from_a_slow_guest_leaves_it_waiting_for_ever() -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_ONE])
        .with(Tool::patient(&[ADD_AND_WITHDRAW_ALL]), HOST);
    let finally = |end: &Situation| match end.store.text(fe("state").as_str()) {
        Some("4") => Ok(()),
        other => Err(format!("the front end stays in {other:?}")),
    };
    let told = fails(&start, &Rules { always: |_| Ok(()), finally })?;
    assert!(told.starts_with("the front end stays in"), "{told}");
    Ok(())
}
