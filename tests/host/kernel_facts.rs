//! What the kernel does when its files are written to: the facts of the host contract.
//!
//! The checks ask nothing but [`Kernel`] and a [`Rig`], so that they can be run on a real machine as well.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction, Release};
use pcidevs::host::{Kernel, Place, Root};
use pcidevs::platform::GroupId;

use crate::scaffold::{CARD, NIC, at, machine};

/// A kernel, one of its functions that a host driver has, and somebody who can open it.
struct Rig {
    kernel: Arc<dyn Kernel>,
    device: String,
    driver: &'static str,
    group: u32,
    open: Box<dyn Fn() -> Box<dyn Any>>,
}

impl Rig {
    fn of(fake: &Fake) -> Self {
        let opener = fake.clone();
        let open = move || Box::new(opener.open_device(at(CARD)).expect("on VFIO")) as Box<dyn Any>;
        Self {
            kernel: Arc::new(fake.clone()),
            device: CARD.into(),
            driver: "igb",
            group: 10,
            open: Box::new(open),
        }
    }

    fn place(&self, file: &str) -> Place {
        Place::new(Root::Sys, format!("bus/pci/devices/{}/{file}", self.device)).expect("a place")
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Errno> {
        self.kernel.write(&self.place(file), text.as_bytes())
    }

    fn write_driver(&self, driver: &str, file: &str) -> Result<(), Errno> {
        self.kernel.write(&driver_file(driver, file), self.device.as_bytes())
    }

    fn probe(&self) -> Result<(), Errno> {
        let place = Place::new(Root::Sys, "bus/pci/drivers_probe").expect("a place");
        self.kernel.write(&place, self.device.as_bytes())
    }

    fn read(&self, file: &str) -> String {
        let bytes = self.kernel.read(&self.place(file), 4096).expect("read");
        String::from_utf8(bytes).expect("text").trim_end().to_owned()
    }

    fn bound_to(&self) -> Option<String> {
        let link = self.kernel.read_link(&self.place("driver"));
        link.ok().map(|target| target.rsplit('/').next().expect("a name").to_owned())
    }

    fn to_vfio(&self) {
        self.write("driver_override", "vfio-pci").expect("written");
        self.write_driver(self.driver, "unbind").expect("unbound");
        self.probe().expect("probed");
        assert_eq!(self.bound_to().as_deref(), Some("vfio-pci"));
    }

    /// Starts a call that may block; whether it has returned is asked with [`returns`].
    fn start<R: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Kernel) -> R + Send + 'static,
    ) -> mpsc::Receiver<R> {
        let (done, end) = mpsc::channel();
        let kernel = self.kernel.clone();
        std::thread::spawn(move || done.send(call(&*kernel)));
        end
    }
}

fn driver_file(driver: &str, file: &str) -> Place {
    Place::new(Root::Sys, format!("bus/pci/drivers/{driver}/{file}")).expect("a place")
}

/// Whether a call still blocks after a while.
fn blocks<R>(end: &mpsc::Receiver<R>) -> bool {
    matches!(end.recv_timeout(Duration::from_millis(40)), Err(RecvTimeoutError::Timeout))
}

/// What a call returns in the end.
fn returns<R>(end: &mpsc::Receiver<R>) -> R {
    end.recv_timeout(Duration::from_secs(20)).expect("it returns")
}

#[test]
fn fact_an_override_is_read_as_it_was_written_and_unbinds_nothing() {
    let rig = Rig::of(&machine());
    assert!(["", "(null)"].contains(&rig.read("driver_override").as_str()));
    rig.write("driver_override", "vfio-pci\n").expect("written");
    assert_eq!(rig.read("driver_override"), "vfio-pci");
    assert_eq!(rig.bound_to().as_deref(), Some(rig.driver));
    rig.write("driver_override", "").expect("written");
    assert_eq!(rig.read("driver_override"), "vfio-pci", "an empty write does nothing");
    rig.write("driver_override", "\n").expect("written");
    assert!(["", "(null)"].contains(&rig.read("driver_override").as_str()));
}

#[test]
fn fact_an_absent_name_binds_nothing_and_the_probe_succeeds_all_the_same() {
    let rig = Rig::of(&machine());
    rig.write("driver_override", "no-such-driver").expect("written");
    rig.write_driver(rig.driver, "unbind").expect("unbound");
    rig.probe().expect("succeeds");
    assert_eq!(rig.bound_to(), None);
    assert_eq!(rig.write_driver(rig.driver, "bind"), Err(Errno::ENODEV), "the override names another one");
}

#[test]
fn fact_unbind_is_enodev_if_the_device_is_not_on_that_driver() {
    let rig = Rig::of(&machine());
    assert_eq!(rig.write_driver("vfio-pci", "unbind"), Err(Errno::ENODEV));
    rig.write_driver(rig.driver, "unbind").expect("unbound");
    assert_eq!(rig.write_driver(rig.driver, "unbind"), Err(Errno::ENODEV));
}

#[test]
fn fact_a_probe_hides_the_error_that_a_bind_tells() {
    let fake = machine();
    let rig = Rig::of(&fake);
    rig.write("driver_override", "vfio-pci").expect("written");
    rig.write_driver(rig.driver, "unbind").expect("unbound");
    fake.add_driver("vfio-pci", FakeDriver { refuses: Some(Errno::EIO), ..FakeDriver::vfio() });
    rig.probe().expect("succeeds");
    assert_eq!(rig.bound_to(), None);
    assert_eq!(rig.write_driver("vfio-pci", "bind"), Err(Errno::EIO));
}

#[test]
fn fact_unbind_from_vfio_blocks_while_the_device_is_open_and_the_link_is_gone_at_once() {
    for release in [Release::V6_1, Release::V6_12] {
        let fake = machine();
        fake.set_release(release);
        let rig = Rig::of(&fake);
        rig.to_vfio();
        let opened = (rig.open)();
        let device = rig.device.clone();
        let unbind =
            rig.start(move |kernel| kernel.write(&driver_file("vfio-pci", "unbind"), device.as_bytes()));
        assert!(blocks(&unbind));
        assert_eq!(rig.bound_to(), None);
        // What stays usable.
        assert_eq!(rig.read("vendor"), "0x8086");
        rig.read("reset_method");
        let place = rig.place("config");
        assert_eq!(rig.kernel.read_at(&place, 0, &mut [0; 4]), Ok(4));
        // What blocks with it.
        let place = rig.place("reset");
        let reset = rig.start(move |kernel| kernel.write(&place, b"1"));
        assert!(blocks(&reset));
        let place = rig.place("driver_override");
        let text = rig.start(move |kernel| kernel.read(&place, 4096));
        let overridden = blocks(&text);
        assert_eq!(overridden, release == Release::V6_1);
        drop(opened);
        assert_eq!(returns(&unbind), Ok(()));
        assert_eq!(returns(&reset), Ok(()));
        if overridden {
            returns(&text).expect("read");
        }
    }
}

#[test]
fn fact_a_group_is_ebusy_while_it_or_a_device_of_it_is_open() {
    let fake = machine();
    let rig = Rig::of(&fake);
    let try_open = || rig.kernel.open_group(GroupId(rig.group)).map(drop);
    assert!(
        try_open().is_err_and(|errno| [Errno::ENOENT, Errno::ENODEV].contains(&errno)),
        "none is on VFIO"
    );
    rig.to_vfio();
    let group = rig.kernel.open_group(GroupId(rig.group)).expect("opened");
    assert_eq!(try_open(), Err(Errno::EBUSY));
    drop(group);
    let opened = (rig.open)();
    assert_eq!(try_open(), Err(Errno::EBUSY));
    drop(opened);
    assert_eq!(try_open(), Ok(()));
}

#[test]
fn fact_a_group_that_is_open_does_not_keep_a_device_from_being_unbound() {
    let rig = Rig::of(&machine());
    rig.to_vfio();
    let group = rig.kernel.open_group(GroupId(rig.group)).expect("opened");
    rig.write_driver("vfio-pci", "unbind").expect("unbound");
    drop(group);
}

#[test]
fn fact_a_host_driver_is_refused_in_a_group_that_a_guest_owns() {
    let fake = machine();
    fake.add(at("0000:01:00.1"), FakeFunction::endpoint(NIC, 10));
    let rig = Rig::of(&fake);
    rig.to_vfio();
    let sibling = Rig { device: "0000:01:00.1".into(), ..Rig::of(&fake) };
    sibling.write_driver("igb", "unbind").expect("unbound");
    let _opened = (rig.open)();
    let refused = sibling.write_driver("igb", "bind").expect_err("owned");
    assert!([Errno::EBUSY, Errno::EINVAL].contains(&refused), "{refused}");
}

#[test]
fn fact_vfio_refuses_bridges_and_functions_with_virtual_ones() {
    let fake = machine();
    let bridge = Rig { device: "0000:00:01.0".into(), ..Rig::of(&fake) };
    bridge.write("driver_override", "vfio-pci").expect("written");
    bridge.probe().expect("succeeds");
    assert_eq!(bridge.bound_to(), None);
    assert_eq!(bridge.write_driver("vfio-pci", "bind"), Err(Errno::EINVAL));

    fake.add_driver("igb", FakeDriver { makes_vfs: true, ..FakeDriver::of(NIC) });
    fake.add(at("0000:05:00.0"), FakeFunction { total_vfs: 4, ..FakeFunction::endpoint(NIC, 20) });
    let pf = Rig { device: "0000:05:00.0".into(), ..Rig::of(&fake) };
    pf.write("sriov_numvfs", "2").expect("made");
    pf.write("driver_override", "vfio-pci").expect("written");
    pf.write_driver("igb", "unbind").expect("unbound");
    assert_eq!(pf.write_driver("vfio-pci", "bind"), Err(Errno::EBUSY));
}

#[test]
fn fact_virtual_functions_come_and_go_by_count() {
    let fake = machine();
    fake.add(at("0000:05:00.0"), FakeFunction { total_vfs: 4, ..FakeFunction::endpoint(NIC, 20) });
    let pf = Rig { device: "0000:05:00.0".into(), ..Rig::of(&fake) };
    assert_eq!(pf.write("sriov_numvfs", "2"), Err(Errno::ENOENT), "the driver cannot");
    fake.add_driver("igb", FakeDriver { makes_vfs: true, ..FakeDriver::of(NIC) });
    assert_eq!(pf.write("sriov_numvfs", "x"), Err(Errno::EINVAL));
    assert_eq!(pf.write("sriov_numvfs", "5"), Err(Errno::ERANGE));
    pf.write("sriov_numvfs", "2").expect("made");
    assert_eq!(pf.write("sriov_numvfs", "3"), Err(Errno::EBUSY), "not without 0 between");
    let link = pf.kernel.read_link(&pf.place("virtfn1")).expect("a link");
    let vf = Rig { device: link.rsplit('/').next().expect("a name").to_owned(), ..Rig::of(&fake) };
    assert!(vf.kernel.read_link(&vf.place("physfn")).expect("a link").ends_with("0000:05:00.0"));
    pf.write("sriov_numvfs", "0").expect("gone");
    assert!(vf.kernel.read(&vf.place("vendor"), 4096).is_err());
}

#[test]
fn fact_virtual_functions_under_vfio_come_with_an_override() {
    let fake = machine();
    fake.add(at("0000:05:00.0"), FakeFunction { total_vfs: 4, ..FakeFunction::endpoint(NIC, 20) });
    let pf = Rig { device: "0000:05:00.0".into(), ..Rig::of(&fake) };
    pf.to_vfio();
    pf.write("sriov_numvfs", "1").expect("made");
    let link = pf.kernel.read_link(&pf.place("virtfn0")).expect("a link");
    let vf = Rig { device: link.rsplit('/').next().expect("a name").to_owned(), ..Rig::of(&fake) };
    assert_eq!(vf.read("driver_override"), "vfio-pci");
}

#[test]
fn fact_a_bus_reset_is_refused_for_a_function_with_siblings() {
    let fake = machine();
    for (text, group) in [("0000:05:00.0", 20), ("0000:06:00.0", 21), ("0000:06:00.1", 21)] {
        let only_bus =
            FakeFunction { reset_method: Some("bus".into()), ..FakeFunction::endpoint(NIC, group) };
        fake.add(at(text), only_bus);
    }
    let alone = Rig { device: "0000:05:00.0".into(), ..Rig::of(&fake) };
    assert_eq!(alone.write("reset", "1"), Ok(()));
    let sibling = Rig { device: "0000:06:00.0".into(), ..Rig::of(&fake) };
    assert!(sibling.write("reset", "1").is_err());
}
