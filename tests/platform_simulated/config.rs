//! Configuration space: what reads and writes do, and what the builder makes.

use pcidevs::address::Bus;
use pcidevs::device::{
    BridgeKind, BusRange, Capabilities, ConfigSpace, Express, ExtendedCapabilities, Header, PortType, SrIov,
    Stride, VfBar,
};
use pcidevs::platform::{Bar, ConfigBytes, Platform, Switch, VirtualFunctions, Width};

use super::{ALIAS, COMMAND, MASTER, Machine, NIC, at, machine, nic};

#[test]
fn an_absent_function_reads_all_ones() {
    let machine = machine();
    for (width, ones) in [(Width::Byte, 0xff), (Width::Word, 0xffff), (Width::Dword, u32::MAX)] {
        assert_eq!(machine.config_read(ALIAS, 0, width), ones);
        assert_eq!(machine.config_read(at("10000:e1:00.0"), 0, width), ones);
    }
    machine.config_write(ALIAS, COMMAND, Width::Word, MASTER);
    assert_eq!(machine.config(ALIAS), None);
}

#[test]
fn an_unplugged_function_reads_all_ones_from_then_on() {
    let machine = machine();
    machine.unplug(NIC);
    assert_eq!(machine.config_read(NIC, 0, Width::Dword), u32::MAX);
    assert!(machine.functions().is_empty());
    machine.plug(NIC, ConfigBytes::endpoint(1, 2));
    assert_eq!(machine.config_read(NIC, 0, Width::Dword), 0x0002_0001);
    assert_eq!(machine.config_read(NIC, COMMAND, Width::Word), 0, "nothing is left of the one before");
    assert_eq!(machine.config_read(NIC, 0x100, Width::Dword), u32::MAX, "and it is no PCI Express function");
}

#[test]
fn every_width_at_every_aligned_offset_reads_the_bytes_given() {
    let machine = Machine::new();
    let bytes: Vec<u8> = (0..4096_u32).map(|at| at.wrapping_mul(37).to_le_bytes()[0]).collect();
    machine.plug_bytes(NIC, &bytes);
    assert_eq!(machine.config(NIC), Some(bytes.clone()));
    let config = ConfigSpace::new(&bytes);
    for offset in 0..4096_u16 {
        let at = usize::from(offset);
        assert_eq!(machine.config_read(NIC, offset, Width::Byte), u32::from(config.u8(at).unwrap()));
        if offset % 2 == 0 {
            assert_eq!(machine.config_read(NIC, offset, Width::Word), u32::from(config.u16(at).unwrap()));
        }
        if offset % 4 == 0 {
            assert_eq!(machine.config_read(NIC, offset, Width::Dword), config.u32(at).unwrap());
        }
    }
}

#[test]
fn bytes_of_any_length_read_ones_behind_their_end() {
    for length in [0, 1, 3, 63, 64, 256, 257, 4095, 4096, 5000] {
        let machine = Machine::new();
        machine.plug_bytes(NIC, &vec![0x11; length]);
        let readable = (0..4096).filter(|at| machine.config_read(NIC, *at, Width::Byte) == 0x11).count();
        assert_eq!(readable, length.min(4096), "{length} bytes");
    }
}

#[test]
fn a_write_changes_its_own_bytes_and_no_others() {
    let machine = machine();
    machine.config_write(NIC, 0x1c0, Width::Dword, 0x4433_2211);
    machine.config_write(NIC, 0x1c1, Width::Byte, 0xffff_ffaa);
    machine.config_write(NIC, 0x1c2, Width::Word, 0xffff_bbbb);
    assert_eq!(machine.config_read(NIC, 0x1c0, Width::Dword), 0xbbbb_aa11);
}

#[test]
fn identity_class_status_and_header_type_are_read_only() {
    let machine = machine();
    let before = machine.config(NIC).unwrap();
    for offset in (0..0x40).step_by(4) {
        machine.config_write(NIC, offset, Width::Dword, !machine.config_read(NIC, offset, Width::Dword));
    }
    let after = machine.config(NIC).unwrap();
    for fixed in [0..4, 6..0xc, 0xe..0xf, 0x34..0x38] {
        assert_eq!(before[fixed.clone()], after[fixed.clone()], "{fixed:x?}");
    }
    assert_ne!(before[4..6], after[4..6], "the command register is not");
}

#[test]
fn functions_are_found_in_every_segment() {
    let machine = Machine::new();
    let places =
        [at("00:00.0"), at("0001:ff:1f.7"), at("0041:ff:1f.7"), at("10000:e1:00.0"), at("ffffffff:00:00.1")];
    for (place, device) in places.iter().zip(1..) {
        machine.plug(*place, ConfigBytes::endpoint(1, device));
    }
    for (place, device) in places.iter().zip(1_u32..) {
        assert_eq!(machine.config_read(*place, 2, Width::Word), device);
    }
    assert_eq!(machine.functions(), places);
}

#[test]
fn a_built_endpoint_reads_back_through_the_parsers() {
    let built = nic().class(0x01_08_02).multifunction().phantom_bits(2);
    let config = ConfigSpace::new(built.bytes());
    let header = Header::read(config).unwrap();
    assert_eq!((header.vendor, header.device, header.class), (0x8086, 0x10fb, 0x01_08_02));
    assert!(header.multifunction && header.capability_list);
    let (low, extended) = (Capabilities::read(config), ExtendedCapabilities::read(config));
    assert_eq!(low.found.iter().map(|it| it.id).collect::<Vec<_>>(), [0x10, 0x05, 0x11]);
    assert_eq!(extended.found.iter().map(|it| it.id).collect::<Vec<_>>(), [0x0f]);
    assert!(low.warnings.is_empty() && extended.warnings.is_empty());
    let express = Express::read(config).unwrap();
    assert_eq!((express.port_type, express.device_capabilities >> 28 & 1), (PortType::Endpoint, 1));
    assert_eq!(Stride::read(config, NIC.devfn()), Some(Stride::Two));
}

#[test]
fn a_capability_asked_for_twice_is_there_once() {
    let built = ConfigBytes::virtual_function().express().msi().msi().msix(1).msix(8).ats().ats();
    let config = ConfigSpace::new(built.bytes());
    assert_eq!(Capabilities::read(config).found.len(), 3);
    assert_eq!(ExtendedCapabilities::read(config).found.len(), 1);
    assert!(Header::read(config).unwrap().hides_its_identity());
}

#[test]
fn a_built_physical_function_tells_where_its_virtual_ones_are() {
    let functions =
        VirtualFunctions { count: 3, first_offset: 0x80, stride: 2, device: 0x10ed, enabled: Switch::On };
    let built = nic().sriov(functions).vf_bar(0, Bar::Memory64(0x4000)).vf_bar(5, Bar::Memory32(16));
    let sriov = SrIov::read(ConfigSpace::new(built.bytes())).unwrap();
    assert_eq!((sriov.enabled_vfs(), sriov.total_vfs, sriov.vf_device), (3, 3, 0x10ed));
    let addresses: Vec<_> = sriov.vf_addresses(NIC).map(|it| it.unwrap().to_string()).collect();
    assert_eq!(addresses, ["0000:03:10.0", "0000:03:10.2", "0000:03:10.4"]);
    assert_eq!(sriov.vf_bars[..2], [VfBar::Memory64 { prefetchable: false }, VfBar::UpperHalf]);
    let off = ConfigBytes::endpoint(1, 2).sriov(VirtualFunctions { enabled: Switch::Off, ..functions });
    assert!(SrIov::read(ConfigSpace::new(off.bytes())).unwrap().may_size_bars());
}

#[test]
fn built_bridges_read_back_with_their_buses() {
    let buses = BusRange { primary: Bus::new(0), secondary: Bus::new(2), subordinate: Bus::new(5) };
    let built = [
        (ConfigBytes::bridge(1, 2, buses), BridgeKind::LegacyPci),
        (ConfigBytes::root_port(1, 2, buses), BridgeKind::RootPort),
        (ConfigBytes::bridge(1, 2, buses).express_port(PortType::PcieToPci), BridgeKind::PcieToPci),
        (ConfigBytes::bridge(1, 2, buses).express_port(PortType::SwitchUpstream), BridgeKind::SwitchUpstream),
    ];
    for (bytes, kind) in built {
        let config = ConfigSpace::new(bytes.bytes());
        assert_eq!((BridgeKind::read(config), BusRange::read(config)), (Some(kind), Some(buses)));
    }
    let odd = ConfigBytes::endpoint(1, 2).multifunction().header_type(0x7f);
    let header = Header::read(ConfigSpace::new(odd.bytes())).unwrap();
    assert_eq!((header.layout.bits(), header.multifunction), (0x7f, true));
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let machine = Machine::new();
    let functions =
        VirtualFunctions { count: 1, first_offset: 1, stride: 1, device: 3, enabled: Switch::Off };
    let built = ConfigBytes::endpoint(1, 2)
        .bar(0, Bar::Memory32(0x4000))
        .bar(1, Bar::Memory64(1 << 33))
        .bar(3, Bar::Io(0x20))
        .bar(5, Bar::Memory64(16))
        .bar(6, Bar::Io(4))
        .sriov(functions)
        .vf_bar(1, Bar::Memory32(0x1000));
    machine.plug(NIC, built);
    let sized = |offset| {
        machine.config_write(NIC, offset, Width::Dword, u32::MAX);
        machine.config_read(NIC, offset, Width::Dword)
    };
    assert_eq!(sized(0x10), 0xffff_c000);
    assert_eq!((sized(0x14), sized(0x18)), (4, 0xffff_fffe));
    assert_eq!(sized(0x1c), 0xffff_ffe1);
    assert_eq!((sized(0x20), sized(0x24)), (0, 0), "unused, and a 64-bit BAR without a second slot");
    assert_eq!((sized(0x124), sized(0x128)), (0, 0xffff_f000));
}
