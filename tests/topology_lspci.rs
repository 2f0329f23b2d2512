//! Reading `lspci` text: as the command prints it, and what is wrong with it.
mod recordings;

use std::fmt::Write as _;

use pcidevs::address::Bus;
use pcidevs::device::SubsystemId;
use pcidevs::topology::{Function, Machine, WarningKind};
use recordings::{Config, at};

const DETAILED: &str = "\
0000:03:00.1 Network controller [0280]: Some Vendor Some Card [Model: 5] [1234:5678] (rev 0a) (prog-if 01 [Thing])
\tSubsystem: Some Board [aaaa:bbbb]
\tFlags: bus master, fast devsel, latency 0, IRQ 9
\tNUMA node: 1
\tIOMMU group: 17
\tCapabilities: <access denied>
\tKernel driver in use: some_driver
\tKernel modules: some_driver
";

fn only(text: &str) -> Function {
    let machine = Machine::from_lspci(text);
    assert_eq!(machine.functions.len(), 1, "{text}");
    machine.functions.into_iter().next().unwrap()
}

fn kinds(text: &str) -> Vec<WarningKind> {
    Machine::from_lspci(text).warnings.iter().map(|warning| warning.kind).collect()
}

#[test]
fn details_give_names_numbers_driver_group_and_node() {
    let function = only(DETAILED);
    assert_eq!(function.address, at("03:00.1"));
    assert_eq!((function.vendor, function.device), (Some(0x1234), Some(0x5678)));
    assert_eq!((function.class, function.revision), (Some(0x02_8001), Some(0xa)));
    assert_eq!(function.class_name.as_deref(), Some("Network controller"));
    assert_eq!(function.name.as_deref(), Some("Some Vendor Some Card [Model: 5]"));
    assert_eq!(function.subsystem, SubsystemId::new(0xaaaa, 0xbbbb));
    assert_eq!((function.group, function.numa_node), (Some(17), Some(1)));
    assert_eq!(function.driver.as_deref(), Some("some_driver"));
    assert_eq!((function.header_type, function.multifunction), (None, None), "no bytes, no header");
}

#[test]
fn a_listing_without_segments_is_segment_0_and_wide_segments_stay_wide() {
    assert_eq!(only("03:00.1 A: B\n").address, at("0000:03:00.1"));
    assert_eq!(only("10000:E1:00.0 A: B\n").address, at("10000:e1:00.0"));
}

#[test]
fn numbers_alone_and_names_alone_are_read() {
    let numbers = only("00:02.0 0300: 1234:1111 (rev 02)\n");
    assert_eq!((numbers.class, numbers.vendor, numbers.device), (Some(0x3_0000), Some(0x1234), Some(0x1111)));
    assert_eq!((numbers.class_name, numbers.name), (None, None));
    let names = only("00:02.0 Ethernet controller: Acme [Acme] Card [X-7] (rev 02)\n");
    assert_eq!((names.class, names.vendor), (None, None));
    assert_eq!(names.name.as_deref(), Some("Acme [Acme] Card [X-7]"));
}

#[test]
fn a_group_among_the_flags_is_read() {
    assert_eq!(only("00:02.0 A: B\n\tFlags: bus master, IRQ 1, IOMMU group 5\n").group, Some(5));
}

#[test]
fn a_bus_line_stands_in_for_missing_bytes_and_bytes_win() {
    let line = "00:01.0 PCI bridge [0604]: X [1:2]\n\tBus: primary=00, secondary=01, subordinate=19, sec-latency=0\n";
    let range = only(line).bridge.unwrap();
    assert_eq!((range.secondary, range.subordinate), (Bus::new(1), Bus::new(0x19)));
    assert_eq!(only(line).header_type, Some(1));
    let bytes = Config::bridge(64, [0, 2, 3]).rows();
    assert_eq!(only(&format!("{line}{bytes}")).bridge.unwrap().secondary, Bus::new(2));
}

#[test]
fn bytes_give_header_and_capabilities() {
    let config = Config::endpoint(4096).list(0x40).capability(0x40, 1, 0x50).capability(0x50, 5, 0);
    let config = config.with8(0xe, 0x80).extended(0x100, 0xe, 1, 0);
    let function = only(&format!("00:03.0 A: B\n{}", config.rows()));
    assert_eq!(function.config, config.0);
    assert_eq!((function.vendor, function.class), (Some(0x1234), Some(0x02_0000)));
    assert_eq!((function.header_type, function.multifunction), (Some(0), Some(true)));
    assert_eq!((function.capabilities, function.ext_capabilities), (vec![1, 5], vec![0xe]));
}

#[test]
fn a_vf_in_text_has_the_pf_and_identity_of_the_sriov_capability() {
    let pf = Config::endpoint(4096).sriov(2, 0x100, 1, 0x9abc);
    let mut text = format!("01:00.0 A: PF\n{}", pf.rows());
    write!(text, "\n02:00.0 A: VF\n{}", Config::virtual_function(256).rows()).unwrap();
    write!(text, "\n02:00.1 A [0200]: VF [1111:2222]\n{}", Config::virtual_function(256).rows()).unwrap();
    write!(text, "\n02:00.2 A: no VF\n{}", Config::virtual_function(256).rows()).unwrap();
    let machine = Machine::from_lspci(&text);
    let vf = |address| machine.function(at(address)).unwrap();
    assert_eq!(vf("02:00.0").physfn, Some(at("01:00.0")));
    assert_eq!((vf("02:00.0").vendor, vf("02:00.0").device), (Some(0x1234), Some(0x9abc)));
    assert_eq!(
        (vf("02:00.1").vendor, vf("02:00.1").device),
        (Some(0x1111), Some(0x2222)),
        "the text's own word"
    );
    assert_eq!((vf("02:00.2").physfn, vf("02:00.2").vendor), (None, None));
    assert_eq!(machine.virtual_functions(at("01:00.0")).count(), 2);
    assert_eq!(machine.warnings, []);
}

#[test]
fn vfs_past_bus_ff_are_one_warning() {
    let text = format!("ff:00.0 A: PF\n{}", Config::endpoint(4096).sriov(999, 1, 1, 1).rows());
    assert_eq!(kinds(&text), [WarningKind::VfAddress]);
}

#[test]
fn a_real_function_is_never_taken_for_a_vf() {
    let pf = Config::endpoint(4096).sriov(1, 1, 1, 0x9abc).rows();
    let text = format!("01:00.0 A: PF\n{pf}01:00.1 A: other\n{}", Config::endpoint(64).rows());
    assert_eq!(Machine::from_lspci(&text).function(at("01:00.1")).unwrap().physfn, None);
}

#[test]
fn missing_and_damaged_rows_are_warnings_and_lose_nothing_else() {
    let text = "00:01.0 A: B\n00: 34 12\n10: 01 error reading\n20: 02\n20: 03\n00:02.0 A: B\n00: 78 56\n";
    let machine = Machine::from_lspci(text);
    let lines: Vec<_> = machine.warnings.iter().map(|warning| (warning.line, warning.kind)).collect();
    let expected = [
        (Some(3), WarningKind::HexRow),
        (Some(4), WarningKind::HexGap),
        (Some(5), WarningKind::HexGap),
        (Some(1), WarningKind::ShortConfig),
        (Some(6), WarningKind::ShortConfig),
    ];
    assert_eq!(lines, expected);
    assert_eq!(machine.functions[0].config.len(), 0x21);
    assert_eq!(machine.functions[0].config[2..0x20], [0xff; 0x1e]);
    assert_eq!(machine.functions[1].config, [0x78, 0x56]);
}

#[test]
fn a_dead_function_is_a_warning_and_keeps_what_the_text_says() {
    let text = format!("00:01.0 A [0200]: B [1234:5678]\n{}", Config(vec![0xff; 64]).rows());
    assert_eq!(kinds(&text), [WarningKind::Dead]);
    assert_eq!(only(&text).vendor, Some(0x1234));
}

#[test]
fn bad_capabilities_are_warnings_with_line_and_address() {
    let looped = Config::endpoint(256).list(0x40).capability(0x40, 1, 0x40).rows();
    let machine = Machine::from_lspci(&format!("\n00:01.0 A: B\n{looped}"));
    let [warning] = machine.warnings.as_slice() else { panic!("{:?}", machine.warnings) };
    assert_eq!((warning.line, warning.address), (Some(2), Some(at("00:01.0"))));
    assert_eq!(warning.kind.as_str(), "capability-loop");
    assert_eq!(
        kinds(&format!("00:01.0 A: B\n{}", Config::endpoint(64).list(0x40).rows())),
        [WarningKind::Truncated]
    );
    assert_eq!(
        kinds(&format!("00:01.0 A: B\n{}", Config::endpoint(64).with8(0xe, 5).rows())),
        [WarningKind::HeaderType]
    );
}

#[test]
fn a_function_listed_twice_is_one_function_with_the_facts_of_both() {
    let text =
        format!("00:01.0 A: B\n{}00:01.0 A [0200]: B\n\tIOMMU group: 4\n", Config::endpoint(64).rows());
    let function = only(&text);
    assert_eq!((function.config.len(), function.group), (64, Some(4)));
    assert_eq!(kinds(&text), [WarningKind::Duplicate]);
}

#[test]
fn functions_are_sorted_whatever_the_order_of_the_text() {
    let machine = Machine::from_lspci("10000:00:00.0 A: B\n02:00.0 A: B\n01:1f.7 A: B\n");
    let addresses: Vec<_> = machine.functions.iter().map(|function| function.address.to_string()).collect();
    assert_eq!(addresses, ["0000:01:1f.7", "0000:02:00.0", "10000:00:00.0"]);
    assert_eq!(machine.segments().len(), 2);
}

#[test]
fn text_around_a_listing_does_no_harm() {
    let text =
        format!("$ lspci -vv\n\tIOMMU group: 9\n00: 11 22\n[ 4.3] pci 0000:00:02.0: x\n{DETAILED}\nbye.\n");
    assert_eq!(only(&text), only(DETAILED));
}

#[test]
fn parents_are_the_innermost_bridges_and_children_their_reverse() {
    let bridge = |[address, secondary, subordinate]: [&str; 3]| {
        format!(
            "{address} A: B\n\tBus: primary=00, secondary={secondary}, subordinate={subordinate}, sec-latency=0\n"
        )
    };
    let bridges =
        [["00:01.0", "01", "08"], ["01:00.0", "02", "04"], ["00:02.0", "00", "00"]].map(bridge).concat();
    let machine =
        Machine::from_lspci(&format!("{bridges}02:00.0 A: B\n03:00.0 A: B\n05:00.0 A: B\n09:00.0 A: B\n"));
    let parent = |address| machine.parent(at(address)).map(|bridge| bridge.address.to_string());
    assert_eq!(parent("03:00.0").as_deref(), Some("0000:01:00.0"), "also on a bus that is not the secondary");
    assert_eq!(parent("05:00.0").as_deref(), Some("0000:00:01.0"));
    assert_eq!(parent("01:00.0").as_deref(), Some("0000:00:01.0"));
    assert_eq!((parent("09:00.0"), parent("00:01.0"), parent("0001:02:00.0")), (None, None, None));
    let children =
        |address| machine.children(at(address)).map(|it| it.address.to_string()).collect::<Vec<_>>();
    assert_eq!(children("01:00.0"), ["0000:02:00.0", "0000:03:00.0"]);
    assert_eq!(children("00:01.0"), ["0000:01:00.0", "0000:05:00.0"]);
    assert_eq!(children("09:00.0"), [""; 0]);
}
