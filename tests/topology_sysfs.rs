//! Reading sysfs trees from folders and archives, and the errors of sources that are none.
mod recordings;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use pcidevs::topology::{Machine, ReadError, WarningKind};
use recordings::{Config, Folder, Tree, at};

const PLACE: &str = "sys/devices/pci0000:00/0000:00:01.0";

fn addresses(machine: &Machine) -> Vec<String> {
    machine.functions.iter().map(|function| function.address.to_string()).collect()
}

/// A tree read from disk and from an archive: both must say the same.
fn both(tree: &Tree) -> Machine {
    let folder = tree.on_disk();
    let machine = Machine::read(folder.path()).unwrap();
    let archived = Machine::from_tar(&tree.in_tar()).unwrap();
    assert_eq!(machine.functions, archived.functions);
    let kinds = |machine: &Machine| machine.warnings.iter().map(|warning| warning.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&machine), kinds(&archived));
    machine
}

fn error(source: &Path) -> ReadError {
    let error = Machine::read(source).unwrap_err();
    let message = error.to_string();
    assert!(!message.contains('\n') && message.contains("expected"), "{message}");
    error
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_fact_of_a_functions_folder_is_read() {
    let tree = Tree::default()
        .function(PLACE, &Config::endpoint(64))
        .file(&format!("{PLACE}/subsystem_vendor"), "0xaaaa\n")
        .file(&format!("{PLACE}/subsystem_device"), "0xbbbb\n")
        .file(&format!("{PLACE}/revision"), "0x07\n")
        .file(&format!("{PLACE}/numa_node"), "1\n")
        .link(&format!("{PLACE}/driver"), "../../../bus/pci/drivers/some-driver")
        .link(&format!("{PLACE}/iommu_group"), "../../../kernel/iommu_groups/12")
        .link(&format!("{PLACE}/physfn"), "../0000:00:00.7");
    let machine = both(&tree);
    let function = &machine.functions[0];
    assert_eq!(
        (function.vendor, function.device, function.class),
        (Some(0x1234), Some(0x5678), Some(0x02_0000))
    );
    assert_eq!(function.subsystem.map(|id| (id.vendor, id.device)), Some((0xaaaa, 0xbbbb)));
    assert_eq!((function.revision, function.numa_node, function.group), (Some(7), Some(1), Some(12)));
    assert_eq!(function.driver.as_deref(), Some("some-driver"));
    assert_eq!(function.physfn, Some(at("00:00.7")));
    assert_eq!(machine.warnings, []);
}

#[test]
fn absent_facts_are_none() {
    let machine = both(
        &Tree::default()
            .file(&format!("{PLACE}/vendor"), "0x1234\n")
            .file(&format!("{PLACE}/numa_node"), "-1"),
    );
    let function = &machine.functions[0];
    assert_eq!((function.vendor, function.device, function.class), (Some(0x1234), None, None));
    assert_eq!((function.numa_node, function.group, function.header_type), (None, None, None));
    assert_eq!(machine.warnings, []);
}

#[test]
fn functions_are_the_union_of_devices_and_bus() {
    for prefix in ["sys/", "", "copy/of/sys/", "machine/"] {
        let machine = both(&Tree::split(prefix));
        assert_eq!(addresses(&machine), ["0000:00:01.0", "0000:00:02.0"], "{prefix}");
        assert_eq!((&machine.warnings[..], machine.functions[1].vendor), (&[][..], Some(0x1234)));
    }
}

#[test]
fn bridges_hold_folders_and_controllers_hold_segments() {
    let config = Config::endpoint(64);
    let vmd = "sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0";
    let tree = Tree::default()
        .function(&format!("{PLACE}/0000:01:00.0/0000:02:00.0"), &config)
        .function(vmd, &config);
    assert_eq!(
        addresses(&both(&tree)),
        ["0000:00:01.0", "0000:00:0e.0", "0000:01:00.0", "0000:02:00.0", "10000:e0:06.0"]
    );
}

#[test]
fn a_tree_with_real_folders_on_the_bus_is_read() {
    let machine = both(&Tree::default().function("sys/bus/pci/devices/0000:00:01.0", &Config::endpoint(64)));
    assert_eq!((addresses(&machine), machine.warnings.len()), (vec!["0000:00:01.0".into()], 0));
}

#[test]
fn a_link_that_leads_nowhere_keeps_the_address_with_a_warning() {
    let tree = Tree::default().link("sys/bus/pci/devices/0000:00:02.0", "../../../devices/gone");
    let machine = both(&tree);
    assert_eq!(addresses(&machine), ["0000:00:02.0"]);
    assert_eq!(machine.warnings[0].kind, WarningKind::Dangling);
}

#[test]
fn no_link_is_followed_out_of_the_tree() {
    let elsewhere = Tree::default().function("0000:00:02.0", &Config::endpoint(64)).on_disk();
    let target = elsewhere.path().join("0000:00:02.0");
    let tree = Tree::default().link("sys/bus/pci/devices/0000:00:02.0", target.to_str().unwrap());
    let machine = Machine::read(tree.on_disk().path()).unwrap();
    assert_eq!((machine.functions[0].vendor, machine.warnings[0].kind), (None, WarningKind::Outside));
    assert_eq!(Machine::from_tar(&tree.in_tar()).unwrap().warnings[0].kind, WarningKind::Dangling);
}

#[test]
fn one_bad_function_never_loses_the_others() {
    let bad = "sys/devices/pci0000:00/0000:00:02.0";
    let tree = Tree::default()
        .function(PLACE, &Config::endpoint(64))
        .file(&format!("{bad}/vendor"), "lots")
        .file(&format!("{bad}/device"), "0x12345")
        .file(&format!("{bad}/class"), [0xff, 0xfe, 0])
        .file(&format!("{bad}/config"), [1, 2, 3])
        .link(&format!("{bad}/iommu_group"), "../none");
    let machine = both(&tree);
    assert_eq!(machine.functions[0].vendor, Some(0x1234));
    let kinds: Vec<_> = machine.warnings.iter().map(|warning| warning.kind.as_str()).collect();
    assert_eq!(kinds, ["bad-value", "bad-value", "bad-value", "bad-value", "short-config"]);
    assert!(machine.warnings.iter().all(|warning| warning.address == Some(at("00:02.0"))));
}

#[test]
fn a_dead_device_keeps_the_name_sysfs_gives_it() {
    let machine = both(&Tree::default().function(PLACE, &Config(vec![0xff; 256])));
    assert_eq!((machine.functions[0].vendor, machine.warnings[0].kind), (Some(0x1234), WarningKind::Dead));
}

#[test]
fn a_folder_with_another_kind_of_file_is_a_warning() {
    let folder = Tree::default().file(&format!("{PLACE}/vendor/inside"), "").on_disk();
    let machine = Machine::read(folder.path()).unwrap();
    assert_eq!(machine.warnings[0].kind, WarningKind::Unreadable);
}

#[test]
fn archives_are_read_plain_and_compressed_from_a_file() {
    let plain = Tree::split("./sys/").in_tar();
    let folder = Folder::empty();
    for (name, bytes) in [("plain", plain.clone()), ("gzip", gzip(&plain)), ("xz", xz(&plain))] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        assert_eq!(Machine::read(&file).unwrap().functions.len(), 2, "{name}");
    }
}

#[test]
fn an_archive_cut_short_gives_what_came_before_and_a_warning() {
    let config = Config::endpoint(4096);
    let whole = Tree::default()
        .function(PLACE, &config)
        .function("sys/devices/pci0000:00/0000:00:02.0", &config)
        .in_tar();
    let machine = Machine::from_tar(&whole[..whole.len() - 4096]).unwrap();
    assert_eq!((machine.functions.len(), machine.warnings[0].kind), (2, WarningKind::Truncated));
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_an_error() {
    let mut header = tar::Header::new_gnu();
    header.set_path("sys/devices/pci0000:00/0000:00:01.0/resource0").unwrap();
    header.set_size(1 << 31);
    header.set_cksum();
    // 513 MiB of zeroes: gzip streams may be put one after the other.
    let mut bomb = gzip(header.as_bytes());
    bomb.extend(gzip(&vec![0; 1 << 20]).repeat(513));
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(Machine::from_tar(&bomb), Err(ReadError::ArchiveTooLarge)));
}

#[test]
fn sources_that_are_none_are_errors_that_name_what_was_expected() {
    let folder = Folder::empty();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    assert!(matches!(error(&folder.path().join("missing")), ReadError::Unreadable { .. }));
    assert!(matches!(error(folder.path()), ReadError::NoSysfsTree(_)));
    assert!(matches!(error(&file("empty", b"")), ReadError::Empty));
    assert!(matches!(error(&file("text", b"hello\n")), ReadError::UnknownFormat));
    assert!(matches!(error(&file("binary", b"\0\n00:00.0 A: B\n")), ReadError::UnknownFormat));
    assert!(matches!(error(&file("gzip", &[0x1f, 0x8b, 1, 2, 3])), ReadError::Archive(_)));
    assert!(matches!(error(&file("xz", b"\xfd7zXZ\0rest")), ReadError::Archive(_)));
    let other = Tree::default().file("home/vendor", "0x1234").in_tar();
    assert!(matches!(error(&file("tar", &other)), ReadError::NoSysfsInArchive));
    let bare = Folder::empty();
    fs::create_dir_all(bare.path().join("sys/bus/pci/devices")).unwrap();
    assert!(matches!(error(bare.path()), ReadError::NoFunctions(_)));
}
