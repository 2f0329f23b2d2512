//! Contract: SR-IOV. VF addresses, the state in which BARs may be sized, malformed BARs.
mod recordings;

use pcidevs::device::{ConfigSpace, SrIov, VfAddressError, VfBar};
use recordings::{Config, at};

const BARS: usize = 0x124;

fn read(config: &Config) -> SrIov {
    SrIov::read(config.space()).unwrap()
}

#[test]
fn capability_gives_every_field() {
    let config = Config::endpoint(4096).sriov(5, 384, 2, 0xabcd).with16(0x108, 0x19).with16(0x10e, 64);
    let sriov = read(&config);
    assert_eq!((sriov.initial_vfs, sriov.total_vfs, sriov.num_vfs), (5, 64, 5));
    assert_eq!((sriov.first_offset, sriov.stride, sriov.vf_device), (384, 2, 0xabcd));
    assert!(sriov.vf_enable && sriov.vf_memory && sriov.ari_hierarchy);
    assert_eq!(sriov.enabled_vfs(), 5);
    assert_eq!(read(&config.with16(0x108, 0x18)).enabled_vfs(), 0);
}

#[test]
fn vf_addresses_cross_buses() {
    let sriov = read(&Config::endpoint(4096).sriov(130, 384, 2, 1));
    let address = |index| sriov.vf_address(at("0000:81:00.0"), index).map(|vf| vf.to_string()).unwrap();
    assert_eq!(address(0), "0000:82:10.0");
    assert_eq!(address(63), "0000:82:1f.6");
    assert_eq!(address(64), "0000:83:00.0");
    assert_eq!(address(129), "0000:83:10.2");
}

#[test]
fn vf_addresses_keep_a_wide_segment() {
    let sriov = read(&Config::endpoint(4096).sriov(1, 1, 1, 1));
    assert_eq!(sriov.vf_address(at("10000:e1:00.0"), 0), Ok(at("10000:e1:00.1")));
}

#[test]
fn a_vf_past_bus_ff_is_an_error_at_exactly_the_first_one() {
    let sriov = read(&Config::endpoint(4096).sriov(u16::MAX, 1, 1, 1));
    let pf = at("ff:00.0");
    for (index, vf) in sriov.vf_addresses(pf).enumerate() {
        assert_eq!(vf.is_ok(), index < 255, "{index}");
    }
    let steepest = read(&Config::endpoint(4096).sriov(u16::MAX, u16::MAX, u16::MAX, 1));
    let index = u16::MAX - 1;
    assert_eq!(
        steepest.vf_address(at("ff:1f.7"), index),
        Err(VfAddressError::PastLastBus { pf: at("ff:1f.7"), index })
    );
}

#[test]
fn a_vf_from_numvfs_on_does_not_exist() {
    let sriov = read(&Config::endpoint(4096).sriov(4, 1, 1, 1));
    let error = sriov.vf_address(at("00:00.0"), 4);
    assert_eq!(error, Err(VfAddressError::NoSuchVf { pf: at("00:00.0"), index: 4, num_vfs: 4 }));
}

#[test]
fn vfs_without_offset_or_stride_have_no_address_of_their_own() {
    let address = |vfs, offset, stride| {
        read(&Config::endpoint(4096).sriov(vfs, offset, stride, 1)).vf_address(at("00:00.0"), 0)
    };
    assert!(matches!(address(1, 0, 1), Err(VfAddressError::NotUnique { .. })));
    assert!(matches!(address(2, 1, 0), Err(VfAddressError::NotUnique { .. })));
    assert_eq!(address(1, 1, 0), Ok(at("00:00.1")), "a single VF needs no stride");
}

#[test]
fn vf_bars_may_be_sized_only_while_vf_enable_and_mse_are_clear() {
    for (control, may) in [(0, true), (1, false), (8, false), (9, false), (0x10, true)] {
        let config = Config::endpoint(4096).sriov(1, 1, 1, 1).with16(0x108, control);
        assert_eq!(read(&config).may_size_bars(), may, "control {control:x}");
    }
}

#[test]
fn a_64_bit_bar_in_the_last_slot_is_malformed() {
    let config = Config::endpoint(4096).sriov(1, 1, 1, 1).with32(BARS, 0xc).with32(BARS + 20, 4);
    let bars = read(&config).vf_bars;
    assert_eq!(bars[0], VfBar::Memory64 { prefetchable: true });
    assert_eq!(bars[1], VfBar::UpperHalf);
    assert_eq!(bars[2], VfBar::Memory32 { prefetchable: false });
    assert_eq!(bars[5], VfBar::NoUpperHalf);
    assert!(bars[5].is_malformed() && !bars[1].is_malformed());
}

#[test]
fn io_and_reserved_vf_bars_are_malformed() {
    for bits in 0..16 {
        let bar = read(&Config::endpoint(4096).sriov(1, 1, 1, 1).with32(BARS, bits)).vf_bars[0];
        assert_eq!(bar.is_malformed(), bits & 1 == 1 || bits >> 1 & 3 == 1 || bits >> 1 & 3 == 3, "{bits:x}");
    }
}

#[test]
fn a_capability_cut_anywhere_gives_none() {
    let whole = Config::endpoint(4096).sriov(1, 1, 1, 1);
    for length in 0..=4096 {
        let read = SrIov::read(ConfigSpace::new(&whole.0[..length]));
        assert_eq!(read.is_some(), length >= 0x13c, "{length} bytes");
    }
}
