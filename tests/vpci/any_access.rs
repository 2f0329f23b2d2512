//! A guest that does anything, at random.

use proptest::prelude::*;

use crate::storm::{Step, play};

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![any::<u16>(), 0..0x100_u16, Just(4), Just(0x10), Just(0xcfc)];
    (any::<u8>(), any::<u8>(), offset, any::<u8>(), any::<u64>())
        .prop_map(|(what, device, offset, length, value)| Step { what, device, offset, length, value })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_access_in_any_state_never_panics_and_leaves_what_shows(steps in prop::collection::vec(step(), 1..200)) {
        prop_assert_eq!(play(&steps), Ok(()));
    }
}
