//! What the host cannot do without is refused, unless the caller insists.

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeFunction};
use pcidevs::host::{Attachable, DriverType, Guard, Guarding, HostError, HostManager, Root};

use crate::scaffold::{CARD, DISK, OTHER, at, guest, machine, open, set};

fn guards(manager: &HostManager, text: &str) -> Vec<Guard> {
    match manager.detach(&set(&[text]), &DriverType::Default, Guarding::On) {
        Ok(()) => {
            manager.reattach(&set(&[text])).expect("reattached");
            vec![]
        }
        Err(HostError::Guarded(found)) => {
            assert!(found.iter().all(|(device, _)| *device == at(text)));
            found.into_iter().map(|(_, guard)| guard).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

/// `nvme0n1` is the disk at `OTHER`, `eth0` the network card at `CARD`.
fn wired() -> Fake {
    let fake = machine();
    let disk = format!("../../devices/pci0000:00/0000:00:01.0/{OTHER}/nvme/nvme0/nvme0n1");
    fake.put_link(Root::Sys, "dev/block/259:0", &disk);
    fake.put_link(Root::Sys, "class/block/nvme0n1", &disk);
    let net = format!("../../devices/pci0000:00/{CARD}/net/eth0");
    fake.put_link(Root::Sys, "class/net/eth0", &net);
    fake
}

fn disk(mounted: &str) -> Vec<Guard> {
    vec![Guard::Disk { mounted: mounted.into() }]
}

#[test]
fn the_boot_disks_controller_is_refused() {
    let fake = wired();
    fake.put_file(Root::Proc, "self/mountinfo", "22 1 259:0 / / rw shared:1 - ext4 /dev/nvme0n1 rw\n");
    let manager = open(&fake);
    assert_eq!(guards(&manager, OTHER), disk("/"));
    assert_eq!(guards(&manager, CARD), []);
    let error =
        manager.attach(&[Attachable::managed(at(OTHER))], &guest("vm"), Guarding::On).expect_err("guarded");
    assert_eq!(error.errno(), Errno::EPERM);
    assert_eq!(error.to_string(), "the host needs it: 0000:02:00.0: / is on it; --force overrides");
    manager.detach(&set(&[OTHER]), &DriverType::Default, Guarding::Off).expect("forced");
}

#[test]
fn it_is_found_below_device_mapper_raid_and_names_that_udev_made() {
    let fake = wired();
    fake.put_link(Root::Sys, "dev/block/253:0", "../../devices/virtual/block/dm-0");
    fake.put_folder(Root::Sys, "dev/block/253:0/slaves", &["md127"]);
    fake.put_link(Root::Sys, "class/block/md127", "../../devices/virtual/block/md127");
    fake.put_folder(Root::Sys, "class/block/md127/slaves", &["nvme0n1"]);
    fake.put_file(Root::Proc, "self/mountinfo", "22 1 253:0 / /usr rw - xfs /dev/mapper/usr rw\n");
    let manager = open(&fake);
    assert_eq!(guards(&manager, OTHER), disk("/usr"));
    // btrfs has a device number of its own.
    fake.put_link(Root::Dev, "mapper/root", "../nvme0n1");
    fake.put_file(Root::Proc, "self/mountinfo", "22 1 0:30 / / rw - btrfs /dev/mapper/root rw\n");
    assert_eq!(guards(&manager, OTHER), disk("/"));
    fake.put_file(Root::Proc, "self/mountinfo", "22 1 0:30 / / rw - btrfs /dev/nvme0n1 rw\n");
    assert_eq!(guards(&manager, OTHER), disk("/"));
    fake.put_file(Root::Proc, "self/mountinfo", "22 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n");
    assert_eq!(guards(&manager, OTHER), [], "the host lives on without /srv");
}

#[test]
fn the_default_routes_card_is_refused_also_below_a_bridge_and_a_bond() {
    let fake = wired();
    let heading = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
    let route = |interface: &str| {
        format!("{heading}{interface}\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    };
    fake.put_file(Root::Proc, "net/route", route("eth0"));
    let manager = open(&fake);
    assert_eq!(guards(&manager, CARD), [Guard::Network { interface: "eth0".into() }]);
    fake.put_file(Root::Proc, "net/route", route("br0"));
    fake.put_link(Root::Sys, "class/net/br0", "../../devices/virtual/net/br0");
    fake.put_folder(Root::Sys, "class/net/br0", &["lower_bond0", "lower_br0", "mtu"]);
    fake.put_link(Root::Sys, "class/net/bond0", "../../devices/virtual/net/bond0");
    fake.put_folder(Root::Sys, "class/net/bond0", &["lower_eth0"]);
    assert_eq!(guards(&manager, CARD), [Guard::Network { interface: "br0".into() }]);
    fake.put_file(Root::Proc, "net/route", heading);
    let six = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n";
    fake.put_file(Root::Proc, "net/ipv6_route", six);
    assert_eq!(guards(&manager, CARD), [Guard::Network { interface: "eth0".into() }]);
}

#[test]
fn the_boot_vga_is_refused() {
    let fake = machine();
    let vga = FakeFunction { is_boot_vga: true, ..FakeFunction::endpoint(DISK, 20) };
    fake.add(at("0000:05:00.0"), vga);
    let manager = open(&fake);
    assert_eq!(guards(&manager, "0000:05:00.0"), [Guard::Screen]);
}

#[test]
fn what_cannot_be_asked_is_refused_and_trees_that_loop_end() {
    let fake = wired();
    fake.spoil(Root::Proc, "self/mountinfo", Errno::EIO);
    let manager = open(&fake);
    let ask = || manager.detach(&set(&[OTHER]), &DriverType::Default, Guarding::On);
    assert!(matches!(ask(), Err(HostError::Unreadable { errno: Errno::EIO, .. })));
    fake.put_file(
        Root::Proc,
        "self/mountinfo",
        "x\n\n1 2 3\n22 1 a:b / / rw\n22 1 0:1 / / rw - nfs /dev/../../x rw\n22 1 9:9 / / -\n",
    );
    fake.put_link(Root::Sys, "dev/block/9:9", "../../devices/virtual/block/a");
    fake.put_folder(Root::Sys, "dev/block/9:9/slaves", &["a", "..", "b/c", ""]);
    fake.put_link(Root::Sys, "class/block/a", "a");
    fake.put_folder(Root::Sys, "class/block/a/slaves", &["a"]);
    ask().expect("nothing of it is a function");
}
