//! What the kernel does when its files are written to: the facts of the host contract.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pcidevs::Errno;
use pcidevs::host::Kernel;
use pcidevs::host::fake::Release;

use super::rig::{Card, Rig, driver_file};

/// "Not a typewriter": there is no such reset.
const ENOTTY: Errno = Errno::new(25);

/// Starts a call that may block; whether it has returned is asked with [`returns`].
fn start<R: Send + 'static>(
    card: &Card,
    call: impl FnOnce(&dyn Kernel) -> R + Send + 'static,
) -> mpsc::Receiver<R> {
    let (done, end) = mpsc::channel();
    let kernel = card.kernel.clone();
    std::thread::spawn(move || done.send(call(&*kernel)));
    end
}

/// Starts to take a card from VFIO.
fn start_unbind(card: &Card) -> mpsc::Receiver<Result<(), Errno>> {
    let address = card.address.clone();
    start(card, move |kernel| kernel.write(&driver_file("vfio-pci", "unbind"), address.as_bytes()))
}

/// Whether a call still blocks after a while.
fn blocks<R>(end: &mpsc::Receiver<R>) -> bool {
    matches!(end.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout))
}

/// What a call returns in the end.
fn returns<R>(end: &mpsc::Receiver<R>) -> R {
    end.recv_timeout(Duration::from_secs(60)).expect("it returns")
}

#[test]
fn an_override_is_read_as_it_was_written_and_unbinds_nothing() {
    for Rig { card, .. } in Rig::each() {
        assert!(["", "(null)"].contains(&card.read("driver_override").as_str()));
        card.write("driver_override", "vfio-pci\n").expect("written");
        assert_eq!(card.read("driver_override"), "vfio-pci");
        assert_eq!(card.bound_to(), Some(card.driver.clone()));
        card.write("driver_override", "").expect("written");
        assert_eq!(card.read("driver_override"), "vfio-pci", "an empty write does nothing");
        card.write("driver_override", "\n").expect("written");
        assert!(["", "(null)"].contains(&card.read("driver_override").as_str()));
    }
}

#[test]
fn an_absent_name_binds_nothing_and_the_probe_succeeds_all_the_same() {
    for Rig { card, .. } in Rig::each() {
        card.write("driver_override", "no-such-driver").expect("written");
        card.write_driver(&card.driver, "unbind").expect("unbound");
        card.probe().expect("succeeds");
        assert_eq!(card.bound_to(), None);
        let bound = card.write_driver(&card.driver, "bind");
        assert_eq!(bound, Err(Errno::ENODEV), "the override names another one");
    }
}

#[test]
fn unbind_is_enodev_if_the_device_is_not_on_that_driver() {
    for Rig { card, .. } in Rig::each() {
        assert_eq!(card.write_driver("vfio-pci", "unbind"), Err(Errno::ENODEV));
        card.write_driver(&card.driver, "unbind").expect("unbound");
        assert_eq!(card.write_driver(&card.driver, "unbind"), Err(Errno::ENODEV));
    }
}

#[test]
fn a_probe_hides_the_error_that_a_bind_tells_and_vfio_refuses_bridges() {
    for Rig { bridge, .. } in Rig::each() {
        bridge.write("driver_override", "vfio-pci").expect("written");
        bridge.probe().expect("succeeds");
        assert_eq!(bridge.bound_to(), None);
        assert_eq!(bridge.write_driver("vfio-pci", "bind"), Err(Errno::EINVAL));
    }
}

#[test]
fn unbind_from_vfio_blocks_while_the_device_is_open_and_the_link_is_gone_at_once() {
    for rig in Rig::each() {
        let Rig { card, other, release, .. } = &rig;
        card.to_vfio();
        let opened = rig.hold(card).expect("opened");
        let unbind = start_unbind(card);
        assert!(blocks(&unbind));
        assert_eq!(card.bound_to(), None);
        // What stays usable.
        assert!(card.read("vendor").starts_with("0x"));
        card.read("reset_method");
        card.group();
        assert_eq!(card.kernel.read_at(&card.place("config"), 0, &mut [0; 4]), Ok(4));
        other.write("driver_override", "vfio-pci").expect("other devices do not wait");
        other.write("driver_override", "\n").expect("nor now");
        // What blocks with it.
        let place = card.place("reset");
        let reset = start(card, move |kernel| kernel.write(&place, b"1"));
        assert!(blocks(&reset));
        let place = card.place("driver_override");
        let text = start(card, move |kernel| kernel.read(&place, 4096));
        let overridden = blocks(&text);
        assert_eq!(overridden, *release == Release::V6_1);
        drop(opened);
        assert_eq!(returns(&unbind), Ok(()));
        assert_eq!(returns(&reset), Ok(()));
        if overridden {
            returns(&text).expect("read");
        }
    }
}

#[test]
fn a_group_is_ebusy_while_it_or_a_device_of_it_is_open() {
    for rig in Rig::each() {
        let card = &rig.card;
        let group = card.group_id();
        let try_open = || card.kernel.open_group(group).map(drop);
        let is_none = try_open().is_err_and(|errno| [Errno::ENOENT, Errno::ENODEV].contains(&errno));
        assert!(is_none, "none is on VFIO");
        card.to_vfio();
        let kept = card.kernel.open_group(group).expect("opened");
        assert_eq!(try_open(), Err(Errno::EBUSY));
        drop(kept);
        let opened = rig.hold(card).expect("opened");
        assert_eq!(try_open(), Err(Errno::EBUSY));
        drop(opened);
        assert_eq!(try_open(), Ok(()));
    }
}

#[test]
fn a_group_is_ebusy_while_a_device_of_it_is_open_that_is_being_unbound() {
    for rig in Rig::each() {
        let card = &rig.card;
        let group = card.group_id();
        card.to_vfio();
        let opened = rig.hold(card).expect("opened");
        let unbind = start_unbind(card);
        assert!(blocks(&unbind));
        assert_eq!(card.kernel.open_group(group).map(drop), Err(Errno::EBUSY));
        drop(opened);
        assert_eq!(returns(&unbind), Ok(()));
    }
}

#[test]
fn a_group_that_is_open_does_not_keep_a_device_from_being_unbound() {
    for Rig { card, .. } in Rig::each() {
        card.to_vfio();
        let group = card.kernel.open_group(card.group_id()).expect("opened");
        card.write_driver("vfio-pci", "unbind").expect("unbound");
        drop(group);
    }
}

#[test]
fn a_host_driver_is_refused_in_a_group_that_a_guest_owns() {
    for rig in Rig::each() {
        let [first, second] = &rig.ports;
        first.to_vfio();
        assert_eq!(rig.hold(first).map(drop), Err(Errno::EPERM), "the host uses its sibling");
        second.write_driver(&second.driver, "unbind").expect("unbound");
        let _opened = rig.hold(first).expect("opened");
        let refused = second.write_driver(&second.driver, "bind").expect_err("owned");
        assert!([Errno::EBUSY, Errno::EINVAL].contains(&refused), "{refused}");
    }
}

#[test]
fn virtual_functions_come_and_go_by_count() {
    for Rig { pf, .. } in Rig::each() {
        pf.write_driver(&pf.driver, "unbind").expect("unbound");
        assert_eq!(pf.write("sriov_numvfs", "2"), Err(Errno::ENOENT), "there is no driver that could");
        pf.write_driver(&pf.driver, "bind").expect("bound");
        pf.write("sriov_drivers_autoprobe", "0").expect("written");
        assert_eq!(pf.write("sriov_numvfs", "x"), Err(Errno::EINVAL));
        assert_eq!(pf.write("sriov_numvfs", "5"), Err(Errno::ERANGE));
        pf.write("sriov_numvfs", "2").expect("made");
        assert_eq!(pf.write("sriov_numvfs", "3"), Err(Errno::EBUSY), "not without 0 between");
        let vf = pf.virtual_function(1);
        assert_eq!(vf.bound_to(), None, "nobody was to probe it");
        let link = vf.kernel.read_link(&vf.place("physfn")).expect("a link");
        assert!(link.ends_with(&pf.address), "{link}");
        pf.write("sriov_numvfs", "0").expect("gone");
        assert!(vf.kernel.read(&vf.place("vendor"), 4096).is_err());
    }
}

#[test]
fn vfio_refuses_a_function_with_virtual_ones() {
    for Rig { pf, .. } in Rig::each() {
        pf.write("sriov_drivers_autoprobe", "0").expect("written");
        pf.write("sriov_numvfs", "2").expect("made");
        pf.write("driver_override", "vfio-pci").expect("written");
        pf.write_driver(&pf.driver, "unbind").expect("unbound");
        assert_eq!(pf.write_driver("vfio-pci", "bind"), Err(Errno::EBUSY));
        pf.write("driver_override", "\n").expect("cleared");
        pf.write_driver(&pf.driver, "bind").expect("bound");
        pf.write("sriov_numvfs", "0").expect("gone");
    }
}

#[test]
fn virtual_functions_under_vfio_come_with_an_override_where_it_may_make_them() {
    for rig in Rig::each() {
        let pf = &rig.pf;
        pf.to_vfio();
        assert_eq!(pf.write("sriov_numvfs", "1"), Err(Errno::ENOENT), "it may not");
        rig.set_sriov_of_vfio("Y");
        pf.write("sriov_numvfs", "1").expect("made");
        assert_eq!(pf.virtual_function(0).read("driver_override"), "vfio-pci");
        pf.write("sriov_numvfs", "0").expect("gone");
        rig.set_sriov_of_vfio("N");
    }
}

#[test]
fn a_bus_reset_is_refused_for_a_function_with_siblings_though_it_is_listed() {
    for Rig { old: [first, second], .. } in Rig::each() {
        assert_eq!(first.read("reset_method"), "bus", "it was alone when it was found");
        assert_eq!(first.write("reset", "1"), Err(ENOTTY));
        assert!(second.kernel.read(&second.place("reset_method"), 64).is_err(), "it was not");
        assert_eq!(second.write("reset", "1"), Err(Errno::ENOENT));
    }
}

#[test]
fn an_override_is_lost_when_the_device_is_removed_and_found_again() {
    for rig in Rig::each() {
        let card = &rig.card;
        card.to_vfio();
        card.write("remove", "1").expect("removed");
        assert!(card.kernel.read(&card.place("vendor"), 64).is_err());
        rig.rescan();
        assert_eq!(card.driver_override(), "");
        assert_eq!(card.bound_to(), Some(card.driver.clone()), "the host takes it");
    }
}
