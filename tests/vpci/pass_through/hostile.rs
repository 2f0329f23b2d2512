//! Configuration spaces that mean harm: never a panic, no list without an end, nothing that is to be hidden.

use pcidevs::vpci::{PassThrough, Viewer};
use proptest::prelude::*;

use super::plugged;
use crate::guest::Guest;
use crate::hardware::{BAR0, Hardware};
use crate::recordings::Config;
use crate::walk::Walker;

/// Configuration spaces that mean harm: random bytes in which lists of capabilities are likely.
fn hostile() -> impl Strategy<Value = Config> {
    let standard = prop::collection::vec(
        (0_u8..64, prop_oneof![0_u8..0x16, any::<u8>()], any::<u8>(), any::<u32>()),
        0..24,
    );
    let extended = prop::collection::vec((0_u16..96, 0_u16..0x30, any::<u16>(), any::<u32>()), 0..24);
    let noise = prop::collection::vec(any::<u8>(), 256);
    (noise, standard, extended, any::<u8>(), prop_oneof![Just(0_u8), Just(1), any::<u8>()]).prop_map(
        |(noise, standard, extended, pointer, header)| {
            let mut config = Config(noise.iter().cycle().copied().take(4096).collect());
            config = config.list(pointer & !3).with32(0, 0x5678_1234).with8(0xe, header);
            for (place, id, next, body) in standard {
                config = config
                    .capability(place * 4, id, next)
                    .with16(usize::from(place) * 4 + 2, body.to_le_bytes()[0].into());
                config = config.with32((usize::from(place) * 4 + 4).min(0xfc), body);
            }
            for (place, id, next, body) in extended {
                let at = 0x100 + place * 4;
                config = config.extended(at, id, 1, 0x100 + (next & 0x1fc)).with32(usize::from(at) + 4, body);
            }
            config.with8(0xe, header).with32(0, 0x5678_1234)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_space_does_harm(config in hostile(), accesses in prop::collection::vec((any::<u16>(), any::<u32>()), 32)) {
        for viewer in [Viewer::Guest, Viewer::Host] {
            let hardware = Hardware::new(&config).bar(BAR0, 0x100).bar(0x20, 0x10_0000);
            let built = PassThrough::new(viewer).resizable().build(hardware.clone());
            let Ok(function) = built else { continue };
            let (guest, at) = plugged(function, &hardware);
            let mut walker = Walker::new(&guest);
            let shown = walker.capabilities(at);
            let extended = walker.extended_capabilities(at);
            if viewer == Viewer::Guest {
                let hidden = |id: &u8| ![0x01, 0x05, 0x09, 0x10, 0x11, 0x13].contains(id);
                prop_assert!(!shown.iter().any(|(_, id)| hidden(id)), "{shown:x?}");
                prop_assert!(extended.iter().all(|(_, id)| matches!(id, 0 | 0x15)), "{extended:x?}");
            }
            walker.size_bars(at);
            for (offset, value) in &accesses {
                let offset = offset & 0xffc;
                walker.read::<4>(at, offset);
                walker.write::<4>(at, offset, *value);
                walker.write::<1>(at, offset, *value & 0xff);
            }
            prop_assert!(!walker_poisoned(&guest, at));
        }
    }
}

fn walker_poisoned(guest: &Guest, at: pcidevs::Sbdf) -> bool {
    let mut device = guest.domain.lock(at).unwrap();
    device.as_mut().unwrap().is_poisoned()
}
