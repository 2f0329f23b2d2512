//! Which function and register an access is: ECAM windows and the ports.

use pcidevs::Sbdf;
use pcidevs::address::{Bus, Segment};
use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{AddressPort, Ecam, EcamError, ExtendedRegisters, parts};

fn window(segment: u32, buses: std::ops::RangeInclusive<u8>, base: u64) -> Result<Ecam, EcamError> {
    Ecam::new(Segment::new(segment), Bus::new(*buses.start())..=Bus::new(*buses.end()), base)
}

#[test]
fn an_offset_is_counted_from_the_first_bus() {
    let ecam = window(7, 0x10..=0x11, 0x1000_0000).unwrap();
    let at = |address| ecam.locate(address).map(|(function, offset)| (function.to_string(), offset));
    assert_eq!(at(0x1000_0000), Some(("0007:10:00.0".to_owned(), 0)));
    assert_eq!(at(0x1010_0000), Some(("0007:11:00.0".to_owned(), 0)));
    assert_eq!(at(0x101f_ffff), Some(("0007:11:1f.7".to_owned(), 0xfff)));
    assert_eq!((at(0x1020_0000), at(0x0fff_ffff), at(u64::MAX)), (None, None, None));
}

#[test]
fn every_function_of_a_segment_is_found_at_its_place() {
    let ecam = window(3, 0..=255, 1 << 40).unwrap();
    for bdf in 0..=u16::MAX {
        let function = Sbdf::from_bdf(Segment::new(3), bdf);
        for offset in [0, 0x7ff, 0xfff] {
            let address = (1 << 40) + (u64::from(bdf) << 12) + u64::from(offset);
            assert_eq!(ecam.locate(address), Some((function, offset)));
        }
    }
}

#[test]
fn windows_that_cannot_be_are_refused() {
    #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
    let reversed = window(0, 2..=1, 0);
    assert_eq!(reversed, Err(EcamError::NoBuses));
    assert_eq!(window(0, 0..=0, 0x8_0000), Err(EcamError::Misaligned(0x8_0000)));
    let highest = u64::MAX - 0xf_ffff;
    assert_eq!(window(0, 0..=1, highest), Err(EcamError::TooHigh(highest)));
    let last = window(0, 0..=0, highest).unwrap();
    assert_eq!(last.locate(u64::MAX).map(|(_, offset)| offset), Some(0xfff));
}

#[test]
fn windows_overlap_in_bytes_or_in_functions() {
    let [here, behind, same_buses, same_bytes, apart] = [
        (0, 0..=3, 0x1000_0000),
        (1, 0..=3, 0x1040_0000),
        (0, 3..=4, 0x9000_0000),
        (1, 0..=0, 0x1030_0000),
        (0, 4..=4, 0x9000_0000),
    ]
    .map(|(segment, buses, base)| window(segment, buses, base).unwrap());
    for (other, overlaps) in [(behind, false), (same_buses, true), (same_bytes, true), (apart, false)] {
        assert_eq!((here.overlaps(&other), other.overlaps(&here)), (overlaps, overlaps), "{other:?}");
    }
}

#[test]
fn only_aligned_accesses_of_1_2_4_and_8_bytes_are_some() {
    for offset in 0..4096 {
        for length in 0..=16 {
            let expected = match length {
                1 => Some((Byte, None)),
                2 if offset % 2 == 0 => Some((Word, None)),
                4 if offset % 4 == 0 => Some((Dword, None)),
                8 if offset % 8 == 0 => Some((Dword, Some(offset + 4))),
                _ => None,
            };
            assert_eq!(parts(offset, length), expected, "{offset}, {length}");
        }
    }
}

#[test]
fn a_port_access_is_a_cycle_only_when_enabled_and_aligned() {
    let mut port = AddressPort::default();
    assert_eq!(port.locate(0, 4), None, "not enabled");
    assert!(port.write(0, Dword, 0x8012_34f3));
    assert_eq!(port.read(0, Dword), Some(0x8012_34f3));
    let function: Sbdf = "12:06.4".parse().unwrap();
    let cases = [
        (0, 4, Some((0xf0, Dword))),
        (0, 2, Some((0xf0, Word))),
        (2, 2, Some((0xf2, Word))),
        (3, 1, Some((0xf3, Byte))),
        (1, 2, None),
        (3, 2, None),
        (2, 4, None),
        (4, 1, None),
        (0, 8, None),
    ];
    for (offset, length, expected) in cases {
        let expected = expected.map(|(register, width)| (function, register, width));
        assert_eq!(port.locate(offset, length), expected, "{offset}, {length}");
    }
}

#[test]
fn other_accesses_to_the_address_port_are_not_for_it() {
    let mut port = AddressPort::default();
    assert!(port.write(0, Dword, 0x8000_0000));
    for (offset, width) in [(0, Byte), (0, Word), (1, Byte), (2, Word)] {
        assert!(!port.write(offset, width, 0x55));
        assert_eq!(port.read(offset, width), None);
    }
    assert_eq!(port.read(0, Dword), Some(0x8000_0000));
}

#[test]
fn extended_registers_only_where_the_embedder_says_so() {
    let register = |extended| {
        let mut port = AddressPort::new(extended);
        port.write(0, Dword, 0x8f00_0004);
        port.locate(0, 4).map(|(_, register, _)| register)
    };
    assert_eq!(register(ExtendedRegisters::Absent), Some(4));
    assert_eq!(register(ExtendedRegisters::Present), Some(0xf04));
}
