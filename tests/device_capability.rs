//! Contract: capability walks are bounded; what was read so far plus a typed warning.
mod recordings;

use pcidevs::device::{Capabilities, ChainWarning, ConfigSpace, ExtendedCapabilities};
use pcidevs::device::{find_capability, find_extended_capability};
use recordings::Config;

fn ids(config: &Config) -> Vec<u8> {
    Capabilities::read(config.space()).found.iter().map(|capability| capability.id).collect()
}

fn warnings(config: &Config) -> Vec<ChainWarning> {
    Capabilities::read(config.space()).warnings
}

fn extended(config: &Config) -> (Vec<(u16, u16)>, Vec<ChainWarning>) {
    let list = ExtendedCapabilities::read(config.space());
    (list.found.iter().map(|capability| (capability.offset, capability.id)).collect(), list.warnings)
}

#[test]
fn capability_walk_keeps_chain_order_and_repeats() {
    let config = Config::endpoint(256).list(0x80);
    let config = config.capability(0x80, 9, 0x40).capability(0x40, 5, 0x60).capability(0x60, 9, 0);
    assert_eq!(ids(&config), [9, 5, 9]);
    assert_eq!(warnings(&config), []);
    assert_eq!(find_capability(config.space(), 9), Some(0x80), "the first of the chain, not of the space");
    assert_eq!(find_capability(config.space(), 1), None);
}

#[test]
fn capability_walk_stops_at_a_loop() {
    let config = Config::endpoint(256).list(0x40).capability(0x40, 1, 0x50).capability(0x50, 5, 0x40);
    assert_eq!(ids(&config), [1, 5]);
    assert_eq!(warnings(&config), [ChainWarning::Loop { at: 0x40 }]);
}

#[test]
fn capability_walk_stops_at_a_pointer_below_40() {
    for pointer in (4..0x40).step_by(4) {
        let config = Config::endpoint(256).list(0x40).capability(0x40, 1, pointer);
        assert_eq!(ids(&config), [1]);
        assert_eq!(warnings(&config), [ChainWarning::PointerTooLow { pointer: pointer.into() }]);
    }
}

#[test]
fn capability_walk_masks_unaligned_low_bits_and_goes_on() {
    let config = Config::endpoint(256).list(0x41).capability(0x40, 1, 0x53).capability(0x50, 5, 2);
    assert_eq!(ids(&config), [1, 5]);
    let unaligned = [0x41, 0x53, 2].map(|pointer| ChainWarning::Unaligned { pointer });
    assert_eq!(warnings(&config), unaligned);
}

#[test]
fn capability_walk_of_truncated_data_keeps_what_was_read() {
    let whole = Config::endpoint(256).list(0x40).capability(0x40, 1, 0x80).capability(0x80, 5, 0);
    for length in 64..=256 {
        let list = Capabilities::read(ConfigSpace::new(&whole.0[..length]));
        let expected = match length {
            64..0x42 => (0, vec![ChainWarning::Truncated { at: 0x40 }]),
            0x42..0x82 => (1, vec![ChainWarning::Truncated { at: 0x80 }]),
            _ => (2, vec![]),
        };
        assert_eq!((list.found.len(), list.warnings), expected, "{length} bytes");
    }
}

#[test]
fn capability_list_announced_with_pointer_0_is_a_warning() {
    assert_eq!(warnings(&Config::endpoint(256).list(0)), [ChainWarning::EmptyList]);
}

#[test]
fn capability_pointer_without_a_list_is_not_followed() {
    let config = Config::endpoint(256).with8(0x34, 0x40).capability(0x40, 1, 0);
    assert_eq!(ids(&config), [0_u8; 0]);
    assert_eq!(warnings(&config), [ChainWarning::PointerWithoutList { pointer: 0x40 }]);
}

#[test]
fn capability_that_reads_ones_ends_the_walk() {
    let config = Config::endpoint(256).list(0x40).capability(0x40, 0xff, 0xff);
    assert_eq!(warnings(&config), [ChainWarning::ReadsOnes { at: 0x40 }]);
}

#[test]
fn cardbus_has_its_pointer_at_14() {
    let config = Config::endpoint(256).with8(0xe, 2).with16(6, 0x10).with8(0x14, 0xa0).capability(0xa0, 1, 0);
    assert_eq!(ids(&config), [1]);
}

#[test]
fn a_dead_function_has_no_capabilities_and_no_warnings() {
    let config = Config(vec![0xff; 4096]);
    assert_eq!(Capabilities::read(config.space()), Capabilities::default());
    assert_eq!(ExtendedCapabilities::read(config.space()), ExtendedCapabilities::default());
}

#[test]
fn the_longest_chains_are_walked_whole() {
    let mut config = Config::endpoint(4096).list(0x40);
    for at in (0x40..=0xfc).step_by(4) {
        config = config.capability(at, 9, at.wrapping_add(4));
    }
    for at in (0x100..=0xffc).step_by(4) {
        config = config.extended(at, 0xb, 1, (at + 4) & 0xfff);
    }
    assert_eq!((ids(&config).len(), warnings(&config)), (48, vec![]));
    let (found, warnings) = extended(&config);
    assert_eq!((found.len(), warnings), (960, vec![]));
}

#[test]
fn extended_walk_keeps_chain_order_versions_and_repeats() {
    let config = Config::endpoint(4096).extended(0x100, 1, 2, 0x300);
    let config = config.extended(0x300, 0xb, 1, 0x200).extended(0x200, 0xb, 3, 0);
    assert_eq!(extended(&config), (vec![(0x100, 1), (0x300, 0xb), (0x200, 0xb)], vec![]));
    let list = ExtendedCapabilities::read(config.space());
    assert_eq!(list.found.iter().map(|capability| capability.version).collect::<Vec<_>>(), [2, 1, 3]);
    assert_eq!(find_extended_capability(config.space(), 0xb), Some(0x300));
}

#[test]
fn extended_walk_stops_at_a_loop() {
    let config = Config::endpoint(4096).extended(0x100, 1, 1, 0x200).extended(0x200, 2, 1, 0x100);
    assert_eq!(extended(&config), (vec![(0x100, 1), (0x200, 2)], vec![ChainWarning::Loop { at: 0x100 }]));
}

#[test]
fn extended_walk_stops_at_a_pointer_below_100() {
    let config = Config::endpoint(4096).extended(0x100, 1, 1, 0xfc);
    assert_eq!(extended(&config).1, [ChainWarning::PointerTooLow { pointer: 0xfc }]);
}

#[test]
fn extended_walk_masks_unaligned_low_bits_and_goes_on() {
    let config = Config::endpoint(4096).extended(0x100, 1, 1, 0x203).extended(0x200, 2, 1, 1);
    let (found, warnings) = extended(&config);
    assert_eq!(found.len(), 2);
    assert_eq!(warnings, [0x203, 1].map(|pointer| ChainWarning::Unaligned { pointer }));
}

#[test]
fn extended_walk_of_truncated_data_keeps_what_was_read() {
    let whole = Config::endpoint(4096).extended(0x100, 1, 1, 0x200).extended(0x200, 2, 1, 0);
    let cut = Config(whole.0[..0x203].to_vec());
    assert_eq!(extended(&cut), (vec![(0x100, 1)], vec![ChainWarning::Truncated { at: 0x200 }]));
}

#[test]
fn extended_walk_tells_zeroes_and_ones_in_the_middle() {
    let config = Config::endpoint(4096).extended(0x100, 1, 1, 0x200);
    assert_eq!(extended(&config).1, [ChainWarning::ReadsZero { at: 0x200 }]);
    assert_eq!(extended(&config.with32(0x200, u32::MAX)).1, [ChainWarning::ReadsOnes { at: 0x200 }]);
    assert_eq!(extended(&Config::endpoint(4096)), (vec![], vec![]), "zero at 100 is an empty list");
}
