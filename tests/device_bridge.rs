//! Contract: bridges, which of them map their buses, the outermost one above a device; requester IDs.
mod recordings;

use pcidevs::Sbdf;
use pcidevs::address::{Bus, Segment};
use pcidevs::device::{AddBridgeError, BridgeKind, BridgeMap, BusRange, PortType, RequesterSource, Stride};
use pcidevs::device::{UpstreamError, requester_ids};
use recordings::{Config, at};

fn range(secondary: u8, subordinate: u8) -> BusRange {
    let [primary, secondary, subordinate] = [0, secondary, subordinate].map(Bus::new);
    BusRange { primary, secondary, subordinate }
}

fn map(bridges: &[(&str, BridgeKind, u8, u8)]) -> BridgeMap {
    let mut map = BridgeMap::new();
    map.add_segment(Segment::new(0)).unwrap();
    for (address, kind, secondary, subordinate) in bridges {
        map.add(at(address), *kind, range(*secondary, *subordinate)).unwrap();
    }
    map
}

fn upstream(map: &BridgeMap, device: &str) -> Option<Sbdf> {
    map.upstream_bridge(at(device)).unwrap().map(|bridge| bridge.address)
}

fn ids(map: &BridgeMap, device: &str, stride: Option<Stride>) -> Vec<String> {
    requester_ids(at(device), stride, map).unwrap().map(|requester| requester.id.to_string()).collect()
}

#[test]
fn kind_of_bridge_follows_from_header_class_and_port_type() {
    let bridge = Config::bridge(256, [0, 1, 1]);
    let kind = |config: &Config| BridgeKind::read(config.space());
    assert_eq!(kind(&bridge), Some(BridgeKind::LegacyPci));
    assert_eq!(kind(&Config::endpoint(64)), None);
    assert_eq!(kind(&Config::endpoint(64).with16(0xa, 0x0600)), Some(BridgeKind::Host));
    assert_eq!(kind(&bridge.clone().with16(0xa, 0x0600)), Some(BridgeKind::Host));
    assert_eq!(kind(&Config::endpoint(64).with8(0xe, 2)), Some(BridgeKind::CardBus));
    assert_eq!(kind(&Config::endpoint(64).with8(0xe, 0x7f)), None);
    for port_type in 0..16 {
        let expected = match port_type {
            0 => BridgeKind::Other(PortType::Endpoint),
            1 => BridgeKind::Other(PortType::LegacyEndpoint),
            4 => BridgeKind::RootPort,
            5 => BridgeKind::SwitchUpstream,
            6 => BridgeKind::SwitchDownstream,
            7 => BridgeKind::PcieToPci,
            8 => BridgeKind::PciToPcie,
            9 => BridgeKind::Other(PortType::RootComplexEndpoint),
            10 => BridgeKind::Other(PortType::EventCollector),
            other => BridgeKind::Other(PortType::Other(other)),
        };
        assert_eq!(kind(&bridge.clone().express(port_type.into(), 0)), Some(expected));
        let class_of_host_bridge = bridge.clone().express(port_type.into(), 0).with16(0xa, 0x0600);
        assert_eq!(kind(&class_of_host_bridge), Some(expected), "the port type decides before the class");
    }
}

#[test]
fn only_bridges_with_conventional_pci_map_their_buses() {
    use BridgeKind as K;
    for kind in [K::LegacyPci, K::PcieToPci, K::PciToPcie, K::CardBus] {
        assert!(kind.maps_its_buses(), "{kind:?}");
    }
    for kind in [K::Host, K::RootPort, K::SwitchUpstream, K::SwitchDownstream, K::Other(PortType::Endpoint)] {
        assert!(!kind.maps_its_buses(), "{kind:?}");
    }
}

#[test]
fn bus_range_is_read_from_bridges_and_cardbus_only() {
    let read = |header_type| BusRange::read(Config::bridge(64, [0, 5, 9]).with8(0xe, header_type).space());
    assert_eq!(read(0), None);
    assert_eq!(read(0x81), Some(range(5, 9)));
    assert_eq!(read(2), Some(range(5, 9)));
    assert_eq!(read(3), None);
}

#[test]
fn a_range_contains_its_buses_and_an_unset_one_nothing() {
    for bus in 0..=u8::MAX {
        assert_eq!(range(3, 7).contains(Bus::new(bus)), (3..=7).contains(&bus));
        assert!(!range(0, 0).contains(Bus::new(bus)));
        assert!(!range(7, 3).contains(Bus::new(bus)));
    }
}

#[test]
fn upstream_bridge_is_the_outermost() {
    let map = map(&[("00:1e.0", BridgeKind::PcieToPci, 2, 6), ("02:00.0", BridgeKind::LegacyPci, 4, 5)]);
    assert_eq!(upstream(&map, "05:00.0"), Some(at("00:1e.0")));
    assert_eq!(upstream(&map, "02:00.0"), Some(at("00:1e.0")), "a nested bridge has one above it");
    assert_eq!(upstream(&map, "00:1e.0"), None);
    assert_eq!(upstream(&map, "07:00.0"), None);
}

#[test]
fn bridges_that_map_nothing_are_not_entered() {
    let map = map(&[("00:1c.0", BridgeKind::RootPort, 2, 6)]);
    assert_eq!(upstream(&map, "02:00.0"), None);
}

#[test]
fn upstream_bridge_of_an_unknown_segment_is_an_error() {
    let error = BridgeMap::new().upstream_bridge(at("10000:00:00.0"));
    assert_eq!(error, Err(UpstreamError::UnknownSegment(Segment::new(0x10000))));
}

#[test]
fn upstream_bridge_finds_a_loop() {
    let map = map(&[("02:00.0", BridgeKind::LegacyPci, 1, 1), ("01:00.0", BridgeKind::LegacyPci, 2, 2)]);
    assert_eq!(map.upstream_bridge(at("01:05.0")), Err(UpstreamError::Loop(at("01:05.0"))));
    assert!(requester_ids(at("01:05.0"), None, &map).is_err());
    let own_bus = self::map(&[("01:00.0", BridgeKind::LegacyPci, 1, 1)]);
    assert_eq!(own_bus.upstream_bridge(at("01:05.0")), Err(UpstreamError::Loop(at("01:05.0"))));
}

#[test]
fn the_longest_chain_of_bridges_is_no_loop() {
    let mut map = BridgeMap::new();
    for bus in 1..=u8::MAX {
        let bridge = Sbdf::from_bdf(Segment::new(0), u16::from(bus - 1) << 8);
        map.add(bridge, BridgeKind::LegacyPci, range(bus, 0xff)).unwrap();
    }
    assert_eq!(upstream(&map, "ff:00.0"), Some(at("00:00.0")));
}

#[test]
fn removing_a_nested_bridge_gives_its_buses_back_to_its_parent() {
    let bridges = [("00:1e.0", BridgeKind::PcieToPci, 2, 6), ("02:00.0", BridgeKind::PciToPcie, 4, 5)];
    let mut map = map(&bridges);
    let bridge_of = |map: &BridgeMap, bus| {
        map.bridge_of(Segment::new(0), Bus::new(bus)).map(|bridge| bridge.address.to_string())
    };
    assert_eq!(bridge_of(&map, 4).as_deref(), Some("0000:02:00.0"));
    assert_eq!(bridge_of(&map, 6).as_deref(), Some("0000:00:1e.0"));
    assert_eq!(
        map.remove(at("02:00.0")).map(|bridge| bridge.subordinate),
        Some(Bus::new(5)),
        "as it was added"
    );
    assert_eq!(bridge_of(&map, 4).as_deref(), Some("0000:00:1e.0"));
    assert_eq!(map.remove(at("02:00.0")), None);
    map.remove(at("00:1e.0"));
    assert_eq!(bridge_of(&map, 4), None);
}

#[test]
fn a_bridge_added_again_has_its_new_range() {
    let mut map = map(&[("00:1e.0", BridgeKind::LegacyPci, 2, 6)]);
    map.add(at("00:1e.0"), BridgeKind::LegacyPci, range(8, 9)).unwrap();
    assert_eq!((upstream(&map, "02:00.0"), upstream(&map, "08:00.0")), (None, Some(at("00:1e.0"))));
}

#[test]
fn bridges_without_buses_or_with_anothers_are_refused_and_change_nothing() {
    let mut map = map(&[("00:1e.0", BridgeKind::LegacyPci, 2, 6)]);
    let other = at("00:1d.0");
    let mut add =
        |secondary, subordinate| map.add(other, BridgeKind::LegacyPci, range(secondary, subordinate));
    assert_eq!(add(0, 0), Err(AddBridgeError::NoBuses(other)));
    assert_eq!(add(3, 2), Err(AddBridgeError::NoBuses(other)));
    assert_eq!(add(2, 2), Err(AddBridgeError::SameSecondary(other, at("00:1e.0"))));
    assert_eq!(upstream(&map, "02:00.0"), Some(at("00:1e.0")));
}

#[test]
fn segments_do_not_share_bridges() {
    let mut map = map(&[("00:1e.0", BridgeKind::LegacyPci, 2, 6)]);
    map.add_segment(Segment::new(1)).unwrap();
    assert_eq!(upstream(&map, "0001:02:00.0"), None);
}

#[test]
fn requester_ids_are_own_phantoms_and_the_aliases_above() {
    let map = map(&[("00:1e.0", BridgeKind::PcieToPci, 2, 6), ("02:00.0", BridgeKind::LegacyPci, 4, 5)]);
    assert_eq!(ids(&map, "00:03.0", None), ["0000:00:03.0"]);
    assert_eq!(ids(&map, "00:03.1", Some(Stride::Four)), ["0000:00:03.1", "0000:00:03.5"]);
    let behind_both = ["0000:05:07.0", "0000:02:00.0", "0000:02:00.0"];
    assert_eq!(
        ids(&map, "05:07.0", None),
        behind_both,
        "a legacy bridge's own ID, (secondary bus, 00.0) of the other"
    );
    let sources: Vec<_> = requester_ids(at("02:05.0"), None, &map).unwrap().map(|id| id.source).collect();
    assert_eq!(sources, [RequesterSource::Own, RequesterSource::Bridge(at("00:1e.0"))]);
}

#[test]
fn devices_behind_a_pcie_to_pci_bridge_share_its_alias() {
    let map = map(&[("03:00.0", BridgeKind::PcieToPci, 4, 4)]);
    assert_eq!(ids(&map, "04:01.0", None), ["0000:04:01.0", "0000:04:00.0"]);
    assert_eq!(ids(&map, "04:02.0", None), ["0000:04:02.0", "0000:04:00.0"]);
    assert_eq!(ids(&map, "04:00.0", None), ["0000:04:00.0"], "not named twice");
}
