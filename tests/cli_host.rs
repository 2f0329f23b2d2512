//! The commands that move devices, run as a user runs them: on a copy of a machine, so nothing real is written.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction};
use pcidevs::host::{Attachable, Guarding, GuestName, HostManager, NetworkIdentity, Options, Root};
use serde_json::Value;

const CARD: &str = "0000:01:00.0";
const PORTS: [&str; 2] = ["0000:03:00.0", "0000:03:00.1"];

/// A machine in a folder that goes with the test.
struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("pcidevs-cli-host-{}-{name}", std::process::id()));
        let _old = fs::remove_dir_all(&root);
        let machine = Self(root);
        machine.file("proc/sys/kernel/random/boot_id", "11\n");
        machine.file("proc/sys/kernel/osrelease", "6.12.0\n");
        for driver in ["igb", "vfio-pci"] {
            machine.folder(&format!("sys/bus/pci/drivers/{driver}"));
        }
        for (device, group) in [(CARD, 10), (PORTS[0], 12), (PORTS[1], 12)] {
            machine.function(device, group);
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.path(path)).expect("made");
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn function(&self, device: &str, group: u32) {
        let folder = format!("sys/bus/pci/devices/{device}");
        let mut config = vec![0; 256];
        config[..4].copy_from_slice(&[0x86, 0x80, 0x33, 0x15]);
        self.file(&format!("{folder}/config"), config);
        for (name, text) in [
            ("vendor", "0x8086\n"),
            ("device", "0x1533\n"),
            ("subsystem_vendor", "0x8086\n"),
            ("subsystem_device", "0x0001\n"),
            ("class", "0x020000\n"),
            ("driver_override", "(null)\n"),
            ("reset_method", "flr bus\n"),
        ] {
            self.file(&format!("{folder}/{name}"), text);
        }
        symlink("../../drivers/igb", self.path(&format!("{folder}/driver"))).expect("linked");
        let link = format!("../../../../kernel/iommu_groups/{group}");
        symlink(link, self.path(&format!("{folder}/iommu_group"))).expect("linked");
        self.folder(&format!("sys/kernel/iommu_groups/{group}/devices/{device}"));
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pcidevs"));
        command.args(arguments).arg("--root").arg(&self.0).arg("--state").arg(self.path("state"));
        command.output().expect("the command runs").into()
    }

    /// Everything in the folder, so that what was written shows.
    fn dump(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("read") {
        let path = entry.expect("read").path();
        if path.is_symlink() {
            found.push((
                path.clone(),
                fs::read_link(&path).expect("read").into_os_string().into_encoded_bytes(),
            ));
        } else if path.is_dir() {
            collect(&path, found);
        } else {
            found.push((path.clone(), fs::read(&path).expect("read")));
        }
    }
}

struct Ran {
    out: String,
    err: String,
    status: Option<i32>,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { out: text(output.stdout), err: text(output.stderr), status: output.status.code() }
    }
}

#[test]
fn a_dry_run_says_every_write_in_order_and_writes_nothing() {
    let machine = Machine::new("dry");
    let before = machine.dump();
    let ran = machine.run(&["attach", "--dry-run", "--guest", "vm", CARD]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let expected = "write journal.a.new\n\
        rename journal.a.new\n\
        \"vfio-pci\" > /sys/bus/pci/devices/0000:01:00.0/driver_override\n\
        \"0000:01:00.0\" > /sys/bus/pci/drivers/igb/unbind\n\
        \"1\" > /sys/bus/pci/devices/0000:01:00.0/reset\n\
        \"0000:01:00.0\" > /sys/bus/pci/drivers_probe\n\
        write journal.b.new\n\
        rename journal.b.new\n";
    assert_eq!(ran.out, expected);
    assert_eq!(machine.dump(), before);
}

#[test]
fn a_dry_run_is_refused_where_the_operation_would_be() {
    let machine = Machine::new("refused");
    let ran = machine.run(&["attach", "--dry-run", "--guest", "vm", PORTS[0]]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""));
    assert_eq!(ran.err, "pcidevs: group 12: 0000:03:00.1 is bound to igb: detach them too\n");
    let ran = machine.run(&["detach", "--dry-run", "--json", "0000:77:00.0"]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.status, &json["ok"]), (Some(1), &Value::Bool(false)));
    assert_eq!(json["error"], "there is no device 0000:77:00.0");
    assert_eq!(json["writes"], Value::Array(vec![]));
}

#[test]
fn status_shows_devices_and_makes_no_folder() {
    let machine = Machine::new("status");
    let before = machine.dump();
    let ran = machine.run(&["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let first = ran.out.lines().next().expect("a line");
    assert_eq!(first, "0000:01:00.0  igb                      group 10    host");
    assert_eq!(ran.out.lines().count(), 3);
    let ran = machine.run(&["status", "--json", PORTS[1]]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    let [device] = &json["devices"].as_array().expect("a list")[..] else { panic!("{json}") };
    assert_eq!((&device["address"], &device["state"]), (&Value::from(PORTS[1]), &Value::from("host")));
    assert_eq!((&device["group"], &device["driver"]), (&Value::from(12), &Value::from("igb")));
    let ran = machine.run(&["status", "0000:77:00.0"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(2), "pcidevs: there is no device 0000:77:00.0\n"));
    assert_eq!(machine.dump(), before);
}

#[test]
fn what_the_platform_cannot_do_is_refused_when_it_is_read() {
    let machine = Machine::new("unsupported");
    for arguments in [
        ["detach", "--driver", "xen", CARD],
        ["detach", "--driver", "igb", CARD],
        ["detach", "--driver", "a/b", CARD],
        ["detach", "--driver", "default", "01:00"],
    ] {
        let ran = machine.run(&arguments);
        assert_eq!(ran.status, Some(2), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn an_operation_on_files_that_bind_nothing_fails_and_says_so() {
    // Plain files take every write, and no link changes: the manager does not believe them.
    let machine = Machine::new("plain");
    machine.file("sys/bus/pci/drivers/igb/unbind", "");
    let ran = machine.run(&["detach", CARD]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.err.contains("unbind igb: it is bound to igb: EBUSY"), "{}", ran.err);
    // It is as before, so the journal has nothing to say, and there is nothing to recover.
    let ran = machine.run(&["recover"]);
    assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
}

#[test]
fn a_network_identity_is_of_one_virtual_function() {
    let machine = Machine::new("network");
    let attach = |options: &[&str]| {
        let mut arguments = vec!["attach", "--dry-run", "--guest", "vm"];
        arguments.extend(options);
        machine.run(&arguments)
    };
    let mac = "52:54:00:00:00:01";
    let ran = attach(&["--mac", mac, "--vlan", "5:2", CARD]);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.err.contains("0000:01:00.0 is no virtual function"), "{}", ran.err);
    let ran = attach(&["--vlan", "5", PORTS[0], PORTS[1]]);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.err.contains("--mac and --vlan are of one device"), "{}", ran.err);
    for (options, why) in [
        (["--mac", "01:00:5e:00:00:01"], "unicast"),
        (["--mac", "00:00:00:00:00:00"], "not zero"),
        (["--mac", "52-54-00-00-00-01"], "six pairs"),
        (["--vlan", "4095"], "from 0 (none) to 4094"),
        (["--vlan", "1:8"], "from 0 to 7"),
    ] {
        let ran = attach(&[options[0], options[1], CARD]);
        assert_eq!(ran.status, Some(2), "refused when it is read: {}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn status_shows_the_network_identity_of_a_guests_virtual_function() {
    let (pf, vf) = ("0000:05:00.0", "0000:05:10.0");
    let fake = Fake::new();
    fake.put_file(Root::Proc, "sys/kernel/random/boot_id", "11\n");
    let is = FakeFunction { total_vfs: 1, ..FakeFunction::endpoint((0x8086, 0x1572), 5) };
    fake.add_driver("ixgbe", FakeDriver { makes_vfs: true, ..FakeDriver::of(is.id) });
    fake.add(pf.parse().expect("an address"), is);
    fake.add_interface(pf.parse().expect("an address"), "enp5s0");
    fake.write_as_somebody(&format!("bus/pci/devices/{pf}/sriov_numvfs"), "1").expect("switched on");
    let opened = HostManager::open(Arc::new(fake.clone()), Arc::new(fake.clone()), Options::default());
    let (manager, _) = opened.expect("opened");
    let mac = "52:54:00:00:00:01".parse().expect("a MAC");
    let identity = NetworkIdentity::new(Some(mac), Some("5:2".parse().expect("a VLAN"))).expect("good");
    let wanted = Attachable::managed(vf.parse().expect("an address")).with_network(identity);
    let guest = GuestName::new("pcidevs", "vm").expect("a name");
    manager.attach(&[wanted], &guest, Guarding::On).expect("attached");
    // The command reads what the library wrote.
    let machine = Machine::new("network-status");
    for name in ["journal.a", "journal.b"] {
        if let Some(bytes) = fake.stored(name) {
            machine.file(&format!("state/{name}"), bytes);
        }
    }
    let ran = machine.run(&["status", "--json", vf]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    let network = &json["devices"][0]["network"];
    assert_eq!(
        (&network["wanted"]["mac"], &network["wanted"]["vlan"]),
        (&"52:54:00:00:00:01".into(), &"5:2".into())
    );
    assert_eq!(
        (&network["saved"]["mac"], &network["saved"]["vlan"]),
        (&"00:00:00:00:00:00".into(), &"0".into())
    );
    let ran = machine.run(&["status", vf]);
    assert!(ran.out.contains("to be reset, mac 52:54:00:00:00:01, vlan 5:2"), "{}", ran.out);
    let json: Value = serde_json::from_str(&machine.run(&["status", "--json", CARD]).out).expect("JSON");
    assert_eq!(json["devices"][0]["network"], Value::Null);
}
