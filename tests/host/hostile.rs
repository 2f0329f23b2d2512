//! A sysfs that lies, or is damaged: no panic, no endless loop, nothing written that was not asked for.

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeFunction};
use pcidevs::host::{Attachable, DriverType, Guarding, HostState, Place, Root};

use crate::scaffold::{CARD, NIC, PORTS, at, guest, machine, reopen, set};

/// Everything that can be asked of a machine. None of it may panic; what it answers is not the point.
fn exercise(fake: &Fake, text: &str) {
    let (manager, _) = reopen(fake);
    let list = manager.list();
    let _ = (manager.status(at(text)), manager.rescan());
    let _ = manager.detach(&set(&[text]), &DriverType::Default, Guarding::On);
    let _ = manager.attach(&[Attachable::managed(at(text))], &guest("vm"), Guarding::On);
    let _ = manager.release(&set(&[text]), &guest("vm"));
    let _ = (manager.reattach(&set(&[text])), manager.adopt(&set(&[text])), manager.reset(at(text)));
    let _ = (manager.repair(at(text)), manager.retry_deferred());
    drop((list, manager));
    reopen(fake);
}

fn file(name: &str) -> String {
    format!("bus/pci/devices/{CARD}/{name}")
}

const FILES: [&str; 12] = [
    "vendor",
    "device",
    "subsystem_vendor",
    "class",
    "modalias",
    "driver_override",
    "config",
    "reset_method",
    "boot_vga",
    "numa_node",
    "sriov_numvfs",
    "reset",
];
const LINKS: [&str; 3] = ["driver", "iommu_group", "physfn"];

#[test]
fn files_with_nonsense_in_them() {
    let long = "9".repeat(64 << 10);
    let contents: [&[u8]; 9] = [
        b"",
        b"\n",
        b"\0\0",
        b"0x",
        b"0xfffffffffffffffff\n",
        b"-1\n",
        b"\xff\xfe",
        b"../..\n",
        long.as_bytes(),
    ];
    for name in FILES {
        for content in contents {
            let fake = machine();
            fake.put_file(Root::Sys, &file(name), content);
            exercise(&fake, CARD);
        }
        for errno in [Errno::EIO, Errno::EACCES, Errno::ENODEV] {
            let fake = machine();
            fake.spoil(Root::Sys, &file(name), errno);
            exercise(&fake, CARD);
        }
    }
}

#[test]
fn links_to_nowhere_to_themselves_and_to_things_that_are_none() {
    let long = "x/".repeat(32 << 10);
    let targets =
        ["", "/", "..", "nowhere", "a\nb", "a\0b", "../4294967296", "../-1", CARD, "0000:ff:1f.7", &long];
    for name in LINKS {
        for target in targets {
            let fake = machine();
            fake.put_link(Root::Sys, &file(name), target);
            exercise(&fake, CARD);
        }
        let fake = machine();
        fake.spoil(Root::Sys, &file(name), Errno::EIO);
        exercise(&fake, CARD);
        let fake = machine();
        fake.put_file(Root::Sys, &file(name), "a file");
        exercise(&fake, CARD);
    }
}

#[test]
fn configuration_spaces_of_odd_sizes_and_with_capability_lists_that_loop() {
    for size in [0, 1, 17, 63, 64, 255, 256, 257, 4095, 4096, 8192] {
        for byte in [0x00, 0x40, 0xff] {
            let fake = machine();
            let mut config = vec![byte; size];
            // An endpoint with a list, as far as there is room for it.
            for (place, value) in [(0x06, 0x10), (0x07, 0), (0x0e, 0), (0x34, 0x40), (0x41, 0x40)] {
                if let Some(into) = config.get_mut(place) {
                    *into = value;
                }
            }
            fake.put_file(Root::Sys, &file("config"), config);
            exercise(&fake, CARD);
        }
    }
}

#[test]
fn functions_that_are_their_own_physical_function_or_have_each_other() {
    let fake = machine();
    fake.put_link(Root::Sys, &file("physfn"), &format!("../{CARD}"));
    exercise(&fake, CARD);
    let (manager, recovery) = reopen(&fake);
    assert_eq!((recovery.refused, manager.status(at(CARD)).expect("known").state), (vec![], HostState::Host));
    drop(manager);
    let fake = machine();
    fake.put_link(Root::Sys, &format!("bus/pci/devices/{}/physfn", PORTS[0]), &format!("../{}", PORTS[1]));
    fake.put_link(Root::Sys, &format!("bus/pci/devices/{}/physfn", PORTS[1]), &format!("../{}", PORTS[0]));
    exercise(&fake, PORTS[0]);
    // A `virtfn7` without `virtfn0`: it is the virtual function's own link that counts.
    fake.put_link(Root::Sys, &file("virtfn7"), "../nowhere");
    exercise(&fake, CARD);
}

#[test]
fn names_in_folders_that_are_no_addresses_groups_or_drivers() {
    let long = "0".repeat(64 << 10);
    let names = [
        "..",
        ".",
        "",
        "a/b",
        "0000:01:00.0 ",
        "0000:01:00.0\n",
        "01:00.0",
        "0000:01:00.8",
        CARD,
        CARD,
        &long,
    ];
    for folder in ["bus/pci/devices", "bus/pci/drivers", "kernel/iommu_groups/10/devices"] {
        let fake = machine();
        fake.put_folder(Root::Sys, folder, &names);
        exercise(&fake, CARD);
        let fake = machine();
        fake.put_folder(Root::Sys, folder, &[]);
        exercise(&fake, CARD);
        let fake = machine();
        fake.spoil(Root::Sys, folder, Errno::EIO);
        // Without the list of devices there is no manager, and no panic.
        let kernel = std::sync::Arc::new(fake.clone());
        let _opened = pcidevs::host::HostManager::open(kernel.clone(), kernel, crate::scaffold::options());
    }
}

#[test]
fn places_lead_nowhere_else() {
    let long = "x".repeat(64 << 10);
    for path in ["", "/", "/etc", "a//b", "a/", "../a", "a/../b", "a/..", ".", "a/./b", "a\0b", long.as_str()]
    {
        assert_eq!(Place::new(Root::Sys, path), Err(Errno::EINVAL), "{:?}", &path[..path.len().min(9)]);
    }
    let place = Place::new(Root::Sys, "a\nb\x1b[2J").expect("a name may hold that");
    assert_eq!(place.to_string(), "/sys/a\\nb\\u{1b}[2J", "and is shown so");
}

#[test]
fn an_override_that_somebody_has_filled_with_anything_is_put_back_as_it_was() {
    for text in ["x", "no-such-driver", "a b c", &"y".repeat(4000)] {
        let fake = machine();
        let path = file("driver_override");
        fake.write_as_somebody(&path, text).expect("written");
        let (manager, _) = reopen(&fake);
        manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On).expect("detached");
        assert_eq!(fake.driver_override(at(CARD)).as_deref(), Some("vfio-pci"));
        // Its driver does not match while the override names another one, and was bound before that did.
        let released = manager.reattach(&set(&[CARD])).expect("tried");
        assert_eq!(released.returned, set(&[CARD]), "{released:?}");
        let now = (fake.driver(at(CARD)), fake.driver_override(at(CARD)));
        assert_eq!(now, (Some("igb".into()), Some(text.into())));
    }
}

#[test]
fn many_devices_and_one_group_of_them_all() {
    let fake = Fake::new();
    for n in 0..2000u32 {
        let address = pcidevs::Sbdf::from_u32(0x1000 + n);
        fake.add(address, FakeFunction::endpoint(NIC, 1));
    }
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.refused, []);
    let all: Vec<_> = manager.list().expect("listed").into_iter().map(|device| device.address).collect();
    manager.detach(&all[..100], &DriverType::Default, Guarding::On).expect("detached");
    let released = manager.reattach(&all[..100]).expect("reattached");
    assert_eq!(released.returned.len(), 100);
}
