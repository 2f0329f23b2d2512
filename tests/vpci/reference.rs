//! Random registers and accesses against a model that knows bytes and nothing else.

use pcidevs::platform::Width::{self, Byte, Dword, Word};
use pcidevs::vpci::Masks;
use proptest::prelude::*;

use crate::bytes::{BYTES, Step, play};

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Byte), Just(Word), Just(Dword)]
}

fn place() -> impl Strategy<Value = (u16, Width)> {
    (0..BYTES, width()).prop_map(|(at, width)| (at & !(width as u16 - 1), width))
}

fn step() -> impl Strategy<Value = Step> {
    let add = (place(), any::<u32>(), any::<[u32; 2]>()).prop_map(|((at, width), value, [kind, more])| {
        let all = u32::MAX >> (32 - 8 * width as u32);
        // Two random bits say which of four kinds a bit is; half of the registers are plain.
        let kinds = if more & 1 == 0 { [0; 4] } else { [kind & more, kind & !more, !kind & more, 0] };
        let [ro, rw1c, rsvd, _] = kinds.map(|mask| mask & all);
        let masks = Masks { ro, rw1c, rsvdp: rsvd & 0xf0f0_f0f0, rsvdz: rsvd & 0x0f0f_0f0f };
        Step::Add(at, width, value & all, masks)
    });
    prop_oneof![
        3 => add,
        1 => (0..BYTES, 0..12_u16).prop_map(|(at, length)| Step::Remove(at, at + length)),
        4 => place().prop_map(|(at, width)| Step::Read(at, width)),
        4 => (place(), any::<u32>()).prop_map(|((at, width), value)| Step::Write(at, width, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn stored_registers_behave_as_bytes(steps in prop::collection::vec(step(), 1..80)) {
        prop_assert_eq!(play(&steps), Ok(()));
    }
}
