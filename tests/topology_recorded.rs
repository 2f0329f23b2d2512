//! Every recorded machine that is there, against counts made by another program; the bundled machine; this host.
mod recordings;

use std::collections::BTreeSet;

use pcidevs::Sbdf;
use pcidevs::topology::{Function, Machine, ReadError};
use recordings::{at, shared_data};

/// What `pcisum.py` counts in a file: functions, virtual functions, functions in groups, groups, capabilities,
/// extended capabilities.
type Counts = (usize, usize, usize, usize, usize, usize);

/// The extended capabilities of `pciutils-broken-ecaps.txt` are 0 here, 3 in `pcisum.py`, which knows no aliases:
/// that space repeats its first 256 bytes. In text without bytes VFs can only be told by name.
const RECORDED: &[(&str, Counts)] = &[
    ("emulated/q35-sriov-lspci-vvv-xxxx.txt", (59, 37, 59, 53, 163, 57)),
    ("emulated/q35-sriov-sysfs.tar.xz", (59, 37, 59, 53, 163, 57)),
    ("fragments/pciutils-broken-ecaps.txt", (1, 0, 0, 0, 0, 0)),
    ("fragments/pciutils-cap-dvsec-cxl.txt", (2, 0, 0, 0, 6, 25)),
    ("fragments/pciutils-cap-ea-1.txt", (1, 0, 0, 0, 3, 3)),
    ("fragments/pciutils-cap-pci-af.txt", (1, 0, 0, 0, 1, 0)),
    ("fragments/pciutils-cap-rebar.txt", (1, 0, 0, 0, 4, 8)),
    ("fragments/x99-acs-rootports-groups.txt", (3, 0, 3, 3, 12, 14)),
    ("lspci-hex/amd-server-root20-mi300x.txt", (28, 0, 0, 0, 95, 0)),
    ("lspci-hex/arm-n1sdp-2domains.txt", (16, 0, 0, 0, 60, 0)),
    ("lspci-hex/asus-p6t6-x58.txt", (53, 0, 0, 0, 81, 31)),
    ("lspci-hex/broadwell-laptop-x3.txt", (14, 0, 0, 0, 32, 0)),
    ("lspci-hex/fsl-p2020-3domains.txt", (6, 0, 0, 0, 16, 11)),
    ("lspci-hex/huananzhi-x99-bd4.txt", (87, 0, 0, 0, 68, 70)),
    ("lspci-hex/hwloc-pcidomain32bits.txt", (9, 0, 0, 0, 0, 0)),
    ("lspci-hex/hwloc-xeon-e5-mic-nvme.txt", (137, 0, 0, 0, 0, 0)),
    ("lspci-hex/rockpro64.txt", (10, 0, 0, 0, 37, 0)),
    ("lspci-hex/sifive-unmatched-bad.txt", (18, 0, 0, 0, 65, 64)),
    ("lspci-hex/sifive-unmatched-good.txt", (18, 0, 0, 0, 65, 64)),
    ("lspci-hex/thinkpad-t60.txt", (20, 0, 0, 0, 38, 16)),
    ("lspci-text/alderlake-laptop-vmd-10000-dock.txt", (36, 0, 36, 25, 0, 0)),
    ("lspci-text/alderlake-laptop-vmd-10000-nodock.txt", (33, 0, 33, 23, 0, 0)),
    ("lspci-text/amd-matisse-49fn.txt", (49, 0, 47, 34, 0, 0)),
    ("lspci-text/epyc-naples-192fn.txt", (192, 0, 0, 0, 0, 0)),
    ("lspci-text/mac-comet-lake-s-titan-ridge.txt", (33, 0, 33, 21, 0, 0)),
    ("lspci-text/microtca-pex8748-report.txt", (42, 0, 42, 17, 0, 0)),
    ("lspci-text/power9-9domains.txt", (20, 0, 7, 6, 0, 0)),
    ("lspci-text/raptor-lake-s.txt", (26, 0, 26, 21, 0, 0)),
    ("sysfs/ghw-i7-1270p.tar.gz", (23, 0, 23, 15, 0, 0)),
    ("sysfs/thinkpad-t60.tar.xz", (21, 0, 0, 0, 40, 16)),
];

fn counts(machine: &Machine) -> Counts {
    let sum = |count: fn(&Function) -> usize| machine.functions.iter().map(count).sum();
    (
        machine.functions.len(),
        sum(|function| usize::from(function.is_virtual())),
        sum(|function| usize::from(function.group.is_some())),
        machine.functions.iter().filter_map(|function| function.group).collect::<BTreeSet<_>>().len(),
        sum(|function| function.capabilities.len()),
        sum(|function| function.ext_capabilities.len()),
    )
}

fn assert_sorted_and_unique(machine: &Machine) {
    assert!(machine.functions.windows(2).all(|pair| pair[0].address < pair[1].address));
}

#[test]
fn every_recorded_machine_agrees_with_an_independent_count() {
    let Some(data) = shared_data() else { return };
    for (file, expected) in RECORDED {
        let path = data.join(file);
        if !path.exists() {
            println!("skipped: {file} is not there");
            continue;
        }
        let machine = Machine::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_sorted_and_unique(&machine);
        assert_eq!(counts(&machine), *expected, "{file}");
    }
}

#[test]
fn bundled_machine_has_its_virtual_functions_groups_and_tree() {
    let machine = Machine::bundled().unwrap();
    assert_eq!(counts(&machine), (59, 37, 59, 53, 163, 57));
    assert_eq!(machine.virtual_functions(at("01:00.0")).count(), 5);
    assert_eq!(machine.virtual_functions(at("81:00.0")).count(), 32);
    for pf in [at("01:00.0"), at("81:00.0")] {
        let sriov = machine.function(pf).unwrap().sriov().unwrap();
        let computed: Vec<Sbdf> = sriov.vf_addresses(pf).collect::<Result<_, _>>().unwrap();
        let linked: Vec<Sbdf> = machine.virtual_functions(pf).map(|vf| vf.address).collect();
        assert_eq!(computed, linked, "the capability's addresses are the kernel's");
    }
    assert_eq!(machine.parent(at("01:00.0")).map(|bridge| bridge.address), Some(at("00:03.0")));
    assert!(machine.children(at("00:03.0")).any(|child| child.address == at("01:00.1")));
}

#[test]
fn text_and_sysfs_of_one_machine_agree_function_by_function() {
    let Some(data) = shared_data() else { return };
    let path = data.join("emulated/q35-sriov-lspci-vvv-xxxx.txt");
    if !path.exists() {
        println!("skipped: no text of the emulated machine");
        return;
    }
    let text = Machine::read(&path).unwrap();
    let sysfs = Machine::bundled().unwrap();
    assert_eq!(text.functions.len(), sysfs.functions.len());
    for (text, sysfs) in text.functions.iter().zip(&sysfs.functions) {
        // Names are in text only; everything else is in both.
        let unnamed = Function { class_name: None, name: None, ..text.clone() };
        assert_eq!(&unnamed, sysfs, "{}", text.address);
    }
    let kinds =
        |machine: &Machine| machine.warnings.iter().map(|it| (it.address, it.kind)).collect::<Vec<_>>();
    assert_eq!(kinds(&text), kinds(&sysfs));
}

#[test]
fn this_host_is_read_or_has_no_pci() {
    match Machine::read_live() {
        Ok(machine) => {
            assert_sorted_and_unique(&machine);
            let seen = std::fs::read_dir("/sys/bus/pci/devices").map_or(0, Iterator::count);
            assert!(machine.functions.len() >= seen);
            assert!(machine.functions.iter().all(|function| function.vendor.is_some()));
        }
        Err(ReadError::NoPciHere) => println!("skipped: no PCI on this host"),
        Err(error) => panic!("{error}"),
    }
}
