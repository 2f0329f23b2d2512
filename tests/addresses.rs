//! Addresses: every text form, exhaustively where the domain is small.

use std::cmp::Ordering;

use pcidevs::Sbdf;
use pcidevs::address::{Bus, DevFn, Expected, InvalidAddress, Segment, SegmentTooWide};

fn refused(text: &str) -> InvalidAddress {
    text.parse::<Sbdf>().expect_err(text)
}

#[test]
fn every_function_of_a_segment_survives_text_and_number() {
    for bdf in 0..=u16::MAX {
        let address = Sbdf::from_bdf(Segment::new(0), bdf);
        let short = format!("{}:{}", address.bus(), address.devfn());
        assert_eq!(short.parse(), Ok(address));
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!(address.to_string().to_uppercase().parse(), Ok(address));
        assert_eq!(address.bdf(), bdf);
        assert_eq!(Sbdf::from_u32(bdf.into()), address);
        assert_eq!(address.to_u32(), Ok(bdf.into()));
        assert_eq!(DevFn::new(address.device(), address.function()), Some(address.devfn()));
        assert_eq!(Sbdf::new(Segment::new(0), Bus::new(address.bus().number()), address.devfn()), address);
    }
}

#[test]
fn segments_have_32_bits_and_are_never_cut() {
    for bit in 0..32 {
        for number in [1_u32 << bit, u32::MAX >> bit, !(1 << bit)] {
            let address = Sbdf::from_bdf(Segment::new(number), 0xe100);
            let text = address.to_string();
            assert_eq!(text.parse(), Ok(address), "{text}");
            assert!(text.find(':').is_some_and(|digits| (4..=8).contains(&digits)), "{text}");
            let fits = number <= 0xffff;
            assert_eq!(
                address.to_u32().map(Sbdf::from_u32),
                fits.then_some(address).ok_or(SegmentTooWide(address))
            );
        }
    }
    assert_eq!("10000:e1:00.0".parse::<Sbdf>().unwrap().segment().number(), 0x1_0000);
}

#[test]
fn devices_and_functions_out_of_range_are_refused_with_their_position() {
    for device in 0..=0xff_u8 {
        for function in 0..=0xf_u8 {
            let parsed = format!("00:{device:02x}.{function:x}").parse::<Sbdf>();
            match DevFn::new(device, function) {
                Some(devfn) => assert_eq!(parsed.unwrap().devfn(), devfn),
                None if device > 0x1f => {
                    assert_eq!(parsed, Err(InvalidAddress { position: 3, expected: Expected::Device }));
                }
                None => assert_eq!(parsed, Err(InvalidAddress { position: 6, expected: Expected::Function })),
            }
        }
    }
}

#[test]
fn everything_else_is_invalid_at_a_position() {
    use Expected::{Colon, Device, Dot, End, Function, HexDigit};
    for (text, position, expected) in [
        ("", 0, HexDigit),
        (" 00:00.0", 0, HexDigit),
        ("0x00:00.0", 1, HexDigit),
        ("-1:00.0", 0, HexDigit),
        ("+0:00.0", 0, HexDigit),
        ("0:00.0", 1, HexDigit),
        ("000:00:00.0", 3, HexDigit),
        ("000000000:00:00.0", 8, Colon),
        ("0000:00:00", 10, Dot),
        ("0000:00", 7, Colon),
        ("00:0", 4, HexDigit),
        ("00:00.", 6, HexDigit),
        ("00:00.0 ", 7, End),
        ("00:00.00", 7, End),
        ("00:00.0\n", 7, End),
        ("0000:00:20.0", 8, Device),
        ("0000:00:1f.8", 11, Function),
        ("0000:0g:00.0", 6, HexDigit),
        ("0000-00:00.0", 4, Colon),
        ("00:00:0", 5, Dot),
        ("00.00.0", 2, Colon),
        ("٠٠:00.0", 0, HexDigit),
    ] {
        assert_eq!(refused(text), InvalidAddress { position, expected }, "{text:?}");
    }
}

#[test]
fn order_is_segment_bus_device_function_and_successors_follow_it() {
    let mut address = Sbdf::from_bdf(Segment::new(u32::MAX), 0);
    let mut steps = 0;
    while let Some(next) = address.successor() {
        assert_eq!(address.cmp(&next), Ordering::Less);
        address = next;
        steps += 1;
    }
    assert_eq!((steps, address.bdf()), (0xffff, 0xffff));
    let last = Sbdf::from_bdf(Segment::new(7), 0xffff);
    assert_eq!(last.successor(), Some(Sbdf::from_bdf(Segment::new(8), 0)));
}

#[test]
fn addresses_line_up_when_a_width_is_asked_for() {
    let address: Sbdf = "1a:02.3".parse().unwrap();
    assert_eq!(format!("[{address:>14}] [{address:14}]"), "[  0000:1a:02.3] [0000:1a:02.3  ]");
}
