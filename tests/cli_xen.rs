//! `pcidevs xen`, run as a user runs it: on a copy of a machine, so nothing real is written; and where there is no Xen.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// With its driver.
const CARD: &str = "0000:01:00.0";
/// On pciback already.
const PORTS: [&str; 2] = ["0000:03:00.0", "0000:03:00.1"];

/// A machine in a folder that goes with the test.
struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

struct Ran {
    out: String,
    err: String,
    status: Option<i32>,
}

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("pcidevs-cli-xen-{}-{name}", std::process::id()));
        let _old = fs::remove_dir_all(&root);
        let machine = Self(root);
        fs::create_dir_all(machine.0.join("sys/bus/pci/drivers/igb")).expect("made");
        machine.file("sys/bus/pci/drivers/pciback/slots", &format!("{}\n{}\n", PORTS[0], PORTS[1]));
        for (device, driver) in [(CARD, "igb"), (PORTS[0], "pciback"), (PORTS[1], "pciback")] {
            machine.function(device, driver);
        }
        machine
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn function(&self, device: &str, driver: &str) {
        let folder = format!("sys/bus/pci/devices/{device}");
        let mut config = vec![0; 64];
        config[..4].copy_from_slice(&[0x86, 0x80, 0x33, 0x15]);
        self.file(&format!("{folder}/vendor"), "0x8086\n");
        for (name, text) in [
            ("device", "0x1533\n"),
            ("class", "0x020000\n"),
            ("driver_override", "(null)\n"),
            ("irq", "16\n"),
            ("resource", "0x00000000fe000000 0x00000000fe001fff 0x0000000000040200\n"),
        ] {
            self.file(&format!("{folder}/{name}"), text);
        }
        fs::write(self.0.join(format!("{folder}/config")), config).expect("written");
        symlink(format!("../../drivers/{driver}"), self.0.join(format!("{folder}/driver"))).expect("linked");
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pcidevs"));
        command.arg("xen").args(arguments).arg("--root").arg(&self.0);
        // No store of this machine, should it have one.
        command.env("XENSTORED_PATH", self.0.join("no-socket"));
        let output = command.output().expect("the command runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { out: text(output.stdout), err: text(output.stderr), status: output.status.code() }
    }
}

#[test]
fn a_dry_run_of_assignable_add_says_every_write_in_order_and_writes_nothing() {
    let machine = Machine::new("add");
    let ran = machine.run(&["assignable-add", "--dry-run", "--name", "uplink", CARD]);
    let expected = "\"0000:01:00.0\" > /sys/bus/pci/drivers/igb/unbind\n\
        \"0000:01:00.0\" > /sys/bus/pci/drivers/pciback/new_slot\n\
        \"0000:01:00.0\" > /sys/bus/pci/drivers/pciback/bind\n\
        \"/sys/bus/pci/drivers/igb\" > xenstore /libxl/pci/0000-01-00-0/driver_path\n\
        \"uplink\" > xenstore /libxl/pci/0000-01-00-0/name\n\
        0000:01:00.0 is assignable\n";
    assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (Some(0), expected, ""));
    let slots = fs::read_to_string(machine.0.join("sys/bus/pci/drivers/pciback/slots")).expect("read");
    assert!(!slots.contains(CARD));
}

#[test]
fn attach_gives_the_whole_set_with_its_number() {
    let machine = Machine::new("attach");
    let ran = machine.run(&["attach", "--dry-run", "--json", "7", "03:00.*@5,permissive=1"]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.status, &json["ok"]), (Some(0), &Value::Bool(true)), "{json} {}", ran.err);
    let writes: Vec<&str> =
        json["writes"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let be = "/local/domain/0/backend/pci/7/0";
    for line in [
        format!("\"2\" > xenstore {be}/num_devs"),
        format!("\"0000:03:00.0\" > xenstore {be}/dev-0"),
        format!("\"0000:03:00.1\" > xenstore {be}/dev-1"),
        format!("\"29\" > xenstore {be}/vdevfn-1"),
        format!("\"msitranslate=1,power_mgmt=0,permissive=1,rdm_policy=relaxed\" > xenstore {be}/opts-0"),
        "\"0000:03:00.0\" > /sys/bus/pci/drivers/pciback/permissive".to_owned(),
    ] {
        assert!(writes.contains(&line.as_str()), "{line}: {writes:#?}");
    }
    assert_eq!(json["devices"][1]["text"], "is domain 7's");
}

#[test]
fn what_is_not_assignable_is_refused_or_seized() {
    let machine = Machine::new("seize");
    let ran = machine.run(&["attach", "--dry-run", "7", CARD]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""));
    assert_eq!(ran.err, "pcidevs: 0000:01:00.0 is not assignable\n");
    let ran = machine.run(&["attach", "--dry-run", "7", "01:00.0,seize=1", "03:00.0"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.contains("> /sys/bus/pci/drivers/igb/unbind"), "{}", ran.out);
    assert!(ran.out.contains("\"2\" > xenstore /local/domain/0/backend/pci/7/0/num_devs"), "{}", ran.out);
}

#[test]
fn lists_show_what_there_is() {
    let machine = Machine::new("lists");
    let ran = machine.run(&["assignable-list", "--dry-run"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    assert!(ran.out.starts_with("0000:03:00.0  -") && ran.out.contains(" free"), "{}", ran.out);
    let ran = machine.run(&["assignable-list", "--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["assignable"][1]["address"], PORTS[1]);
    assert_eq!(json["assignable"][1]["state"], "free");
    let ran = machine.run(&["list", "--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["exports"], Value::Array(vec![]));
}

#[test]
fn arguments_that_mean_nothing_are_refused_with_what_is_wrong() {
    let machine = Machine::new("arguments");
    for arguments in [
        &["attach", "--dry-run", "7", "03:00.0,seize=yes"][..],
        &["attach", "--dry-run", "7", "03:00"],
        &["attach", "--dry-run", "7"],
        &["detach", "--dry-run", "7"],
        &["detach", "--dry-run", "7", "--all", "03:00.0"],
        &["assignable-add", "--dry-run"],
        &["assignable-add", "--dry-run", "1:2"],
    ] {
        let ran = machine.run(arguments);
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.err);
    }
    for (arguments, said) in [
        (&["attach", "--dry-run", "nobody", "03:00.0"][..], "there is no domain \"nobody\""),
        (&["attach", "--dry-run", "7", "name=uplink"], "no assignable device is called \"uplink\""),
        (&["attach", "--dry-run", "7", "09:00.*"], "there is no such device"),
        (&["attach", "--dry-run", "99999999999", "03:00.0"], "no domain has such a number"),
        (&["assignable-add", "--dry-run", "--name", "a", CARD, PORTS[0]], "a name is one device's"),
        (&["assignable-remove", "--dry-run", CARD], "0000:01:00.0 is not assignable"),
        (&["detach", "--dry-run", "7", "03:00.0"], "0000:03:00.0 is not this guest's"),
    ] {
        let ran = machine.run(arguments);
        assert_eq!(ran.status, Some(1), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn where_there_is_no_xen_the_error_says_what_to_look_for() {
    let machine = Machine::new("without");
    if std::path::Path::new("/dev/xen/xenbus").exists() {
        println!("skipped: this machine has Xen");
        return;
    }
    let ran = machine.run(&["list"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("is this domain 0, does xenstored run, are you root?"), "{}", ran.err);
}
