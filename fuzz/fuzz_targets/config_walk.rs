//! Any bytes as a configuration space: every reader ends, within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pcidevs::Sbdf;
use pcidevs::device::{
    BridgeKind, BridgeMap, BusRange, Capabilities, ConfigSpace, Express, ExtendedCapabilities, Header, SrIov,
    Stride, real_function, requester_ids,
};

fuzz_target!(|input: (u32, &[u8])| {
    let (address, bytes) = input;
    let address = Sbdf::from_u32(address);
    let config = ConfigSpace::new(bytes);
    let _ = (Header::read(config), Express::read(config));

    let capabilities = Capabilities::read(config).found;
    assert!(
        capabilities.len() <= 48 && capabilities.iter().all(|it| it.offset >= 0x40 && it.offset % 4 == 0)
    );
    let extended = ExtendedCapabilities::read(config).found;
    assert!(extended.len() <= 960 && extended.iter().all(|it| it.offset >= 0x100 && it.offset % 4 == 0));

    if let Some(sriov) = SrIov::read(config) {
        let addresses = sriov.vf_addresses(address).take(512).flatten();
        assert!(addresses.into_iter().all(|vf| vf.segment() == address.segment() && vf > address));
    }

    let stride = Stride::read(config, address.devfn());
    let mut bridges = BridgeMap::new();
    if bridges.add_segment(address.segment()).is_err() {
        return;
    }
    // Every four bytes are a bridge more: address, secondary, subordinate.
    for bridge in bytes.chunks_exact(4).take(64) {
        let at = Sbdf::from_bdf(address.segment(), u16::from_le_bytes([bridge[0], bridge[1]]));
        let mut space = [0; 64];
        space[0x0a..0x0c].copy_from_slice(&[4, 6]);
        space[0x0e] = 1;
        space[0x19..0x1b].copy_from_slice(&bridge[2..]);
        let space = ConfigSpace::new(&space);
        if let (Some(kind), Some(range)) = (BridgeKind::read(space), BusRange::read(space)) {
            let _ = bridges.add(at, kind, range);
        }
    }
    let _ = (BridgeKind::read(config), BusRange::read(config));
    if let Ok(ids) = requester_ids(address, stride, &bridges) {
        let ids: Vec<_> = ids.collect();
        assert!(ids.len() <= 1 + 7 + 256 && ids[0].id == address);
        if let Some(stride) = stride {
            assert_eq!(real_function(ids[1].id, stride), address);
        }
    }
});
