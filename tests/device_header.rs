//! Contract: extended config space, other header types, dead functions, a VF's own identity.
mod recordings;

use pcidevs::device::{ConfigSpace, Header, HeaderLayout, SubsystemId};
use recordings::Config;

#[test]
fn reads_are_little_endian_and_checked_at_every_offset() {
    let config = ConfigSpace::new(&[1, 2, 3, 4, 5]);
    assert_eq!((config.u8(4), config.u8(5)), (Some(5), None));
    assert_eq!((config.u16(3), config.u16(4)), (Some(0x0504), None));
    assert_eq!((config.u32(1), config.u32(2)), (Some(0x0504_0302), None));
    assert_eq!((config.u8(usize::MAX), config.u16(usize::MAX), config.u32(usize::MAX)), (None, None, None));
}

#[test]
fn bytes_beyond_4096_are_ignored() {
    assert_eq!(ConfigSpace::new(&[0; 5000]).len(), 4096);
}

#[test]
fn extended_space_is_absent_if_100_reads_all_ones() {
    let config = Config::endpoint(4096).with32(0x100, u32::MAX);
    assert!(!config.space().has_extended());
}

#[test]
fn extended_space_is_absent_if_the_space_aliases_every_256_bytes() {
    let first = Config::endpoint(256).0;
    let aliased = Config(first.repeat(16));
    assert!(!aliased.space().has_extended());
    assert!(aliased.clone().with32(0xf00, 0).space().has_extended(), "one difference is no alias");
}

#[test]
fn extended_space_is_absent_in_every_record_shorter_than_its_first_header() {
    let whole = Config::endpoint(4096).extended(0x100, 1, 1, 0);
    for length in 0..=4096 {
        assert_eq!(ConfigSpace::new(&whole.0[..length]).has_extended(), length >= 0x104, "{length} bytes");
    }
}

#[test]
fn every_header_type_keeps_its_number_and_bit_7_is_multifunction() {
    for bits in 0..=u8::MAX {
        let layout = HeaderLayout::from_bits(bits);
        assert_eq!(layout.bits(), bits & 0x7f);
        assert_eq!(matches!(layout, HeaderLayout::Other(_)), bits & 0x7f > 2);
        let config = Config::endpoint(64).with8(0xe, bits);
        let header = Header::read(config.space()).unwrap();
        assert_eq!((header.layout, header.multifunction), (layout, bits & 0x80 != 0));
    }
}

#[test]
fn header_gives_identity_class_and_revision() {
    let config =
        Config::endpoint(64).with32(8, 0x0108_0203).with16(0x2c, 0xaaaa).with16(0x2e, 0xbbbb).list(0x40);
    let header = Header::read(config.space()).unwrap();
    assert_eq!((header.vendor, header.device), (0x1234, 0x5678));
    assert_eq!((header.class, header.revision), (0x01_0802, 3));
    assert_eq!(header.subsystem, SubsystemId::new(0xaaaa, 0xbbbb));
    assert!(header.capability_list);
}

#[test]
fn a_bridge_has_its_subsystem_in_a_capability() {
    let config =
        Config::bridge(256, [0, 1, 1]).list(0x40).capability(0x40, 0x0d, 0).with32(0x44, 0x2222_1111);
    assert_eq!(Header::read(config.space()).unwrap().subsystem, SubsystemId::new(0x1111, 0x2222));
    let without = Config::bridge(256, [0, 1, 1]).with32(0x2c, 0x2222_1111);
    assert_eq!(Header::read(without.space()).unwrap().subsystem, None, "2c is a bridge's window register");
}

#[test]
fn a_dead_function_reads_all_ones_and_has_no_header() {
    for length in [1, 64, 256, 4096] {
        let config = Config(vec![0xff; length]);
        assert!(config.space().is_dead());
        assert_eq!(Header::read(config.space()), None);
    }
    assert!(!ConfigSpace::new(&[]).is_dead(), "nothing recorded is not dead");
}

#[test]
fn a_virtual_function_hides_its_identity_but_is_not_dead() {
    let config = Config::virtual_function(64);
    assert!(!config.space().is_dead());
    assert!(Header::read(config.space()).unwrap().hides_its_identity());
}

#[test]
fn a_record_shorter_than_a_header_gives_none() {
    let whole = Config::endpoint(64);
    for length in 0..64 {
        assert_eq!(Header::read(ConfigSpace::new(&whole.0[..length])), None);
    }
}
