//! Contract: phantom functions. Exhaustive over all 256 device/function numbers and all strides.
mod recordings;

use pcidevs::Sbdf;
use pcidevs::address::{Bus, DevFn, Segment};
use pcidevs::device::{Stride, phantom_functions, real_function};
use recordings::Config;

const STRIDES: [Stride; 3] = [Stride::One, Stride::Two, Stride::Four];

fn every_function() -> impl Iterator<Item = Sbdf> {
    (0..=u8::MAX).map(|bits| Sbdf::new(Segment::new(7), Bus::new(0x12), DevFn::from_bits(bits)))
}

#[test]
fn phantom_stride_is_8_shifted_by_devcap_bits_and_none_from_the_stride_on() {
    for address in every_function() {
        for bits in 0..4 {
            // The bits around must not matter.
            let config = Config::endpoint(256).express(0, !0x18 | bits << 3);
            let stride = 8_u8 >> bits;
            let expected = if bits == 0 || address.function() >= stride { 0 } else { stride };
            let read = Stride::read(config.space(), address.devfn()).map_or(0, Stride::functions);
            assert_eq!(read, expected, "{address} with bits {bits}");
        }
    }
}

#[test]
fn a_device_without_pci_express_has_no_phantoms() {
    assert_eq!(Stride::read(Config::endpoint(256).space(), DevFn::from_bits(0)), None);
    let cut = Config::endpoint(256).express(0, 8).0[..0x46].to_vec();
    assert_eq!(Stride::read(Config(cut).space(), DevFn::from_bits(0)), None, "cut inside the register");
}

#[test]
fn phantom_lookup_finds_the_real_device_for_every_function_the_stride_covers() {
    for real in every_function() {
        for stride in STRIDES {
            let phantoms: Vec<_> = phantom_functions(real, stride).collect();
            let expected = match stride.for_function(real.devfn()) {
                Some(stride) => 8 / usize::from(stride.functions()) - 1,
                None => 0,
            };
            assert_eq!(phantoms.len(), expected);
            for phantom in phantoms {
                assert_eq!(real_function(phantom, stride), real);
                assert_ne!(phantom, real);
                assert_eq!((phantom.bus(), phantom.device()), (real.bus(), real.device()));
            }
        }
    }
}

#[test]
fn every_function_is_real_or_a_phantom_of_exactly_one() {
    for address in every_function() {
        for stride in STRIDES {
            let real = real_function(address, stride);
            assert!(stride.for_function(real.devfn()).is_some());
            assert!(real == address || phantom_functions(real, stride).any(|phantom| phantom == address));
        }
    }
}

#[test]
fn only_1_2_and_4_are_strides() {
    for functions in 0..=u8::MAX {
        let expected = [1, 2, 4].contains(&functions).then_some(functions);
        assert_eq!(Stride::new(functions).map(Stride::functions), expected);
    }
}
