//! Random registers and accesses against a model that knows bytes and nothing else.

use pcidevs::platform::Width::{self, Byte, Dword, Word};
use pcidevs::vpci::{Masks, Register, RegisterError, Space};
use proptest::prelude::*;

/// One byte of configuration space: its value, and what each of its bits is.
#[derive(Clone, Copy, Default)]
struct Bits {
    value: u8,
    ro: u8,
    rw1c: u8,
    reserved: u8,
    zero: u8,
    /// Where its register begins, and how many bytes that has.
    register: Option<(u16, u16)>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(u16, Width, u32, Masks),
    Remove(u16, u16),
    Read(u16, Width),
    Write(u16, Width, u32),
}

/// A few dozen bytes, so that things meet.
const BYTES: u16 = 48;

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

struct Reference([Bits; BYTES as usize + 16]);

impl Reference {
    fn add(&mut self, at: u16, width: Width, value: u32, masks: Masks) -> Result<(), RegisterError> {
        let bytes = at..at + width as u16;
        if let Some((start, _)) = bytes.clone().find_map(|byte| self.0[usize::from(byte)].register) {
            return Err(RegisterError::Exists(start));
        }
        for (byte, shift) in bytes.zip(0..) {
            let part = |mask: u32| mask.to_le_bytes()[shift];
            self.0[usize::from(byte)] = Bits {
                value: part(value),
                ro: part(masks.ro),
                rw1c: part(masks.rw1c),
                reserved: part(masks.rsvdp),
                zero: part(masks.rsvdz),
                register: Some((at, width as u16)),
            };
        }
        Ok(())
    }

    fn remove(&mut self, from: u16, to: u16) -> Result<(), RegisterError> {
        for byte in from..to {
            if let Some((start, length)) = self.0[usize::from(byte)].register
                && (start < from || start + length > to)
            {
                return Err(RegisterError::PartialOverlap(start));
            }
        }
        for byte in from..to {
            self.0[usize::from(byte)] = Bits::default();
        }
        Ok(())
    }

    fn read(&self, at: u16, width: Width) -> u32 {
        let byte = |byte: u16| match self.0[usize::from(at + byte)] {
            Bits { register: None, .. } => 0xff,
            Bits { value, reserved, zero, .. } => value & !(reserved | zero),
        };
        (0..width as u16).map(|offset| u32::from(byte(offset)) << (8 * offset)).sum()
    }

    fn write(&mut self, at: u16, width: Width, value: u32) {
        let written = |byte: u16| {
            let offset = byte.checked_sub(at).filter(|offset| *offset < width as u16)?;
            Some(value.to_le_bytes()[usize::from(offset)])
        };
        // A register that is met is written as a whole: what no byte of the access is for, too.
        for place in 0..BYTES + 16 {
            let Bits { register: Some((start, length)), value, ro, rw1c, reserved, zero } =
                self.0[usize::from(place)]
            else {
                continue;
            };
            if (start..start + length).all(|byte| written(byte).is_none()) {
                continue;
            }
            let (kept, cleared) = (ro | reserved, written(place).unwrap_or(0) & rw1c);
            let plain = match written(place) {
                Some(new) => new & !(kept | rw1c | zero),
                None => value & !(kept | rw1c | zero),
            };
            self.0[usize::from(place)].value = plain | value & kept | value & rw1c & !cleared;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn stored_registers_behave_as_bytes(steps in prop::collection::vec(step(), 1..80)) {
        let mut space = Space::<(), ()>::new().unwrap();
        let mut reference = Reference([Bits::default(); BYTES as usize + 16]);
        for step in steps {
            match step {
                Step::Add(at, width, value, masks) => {
                    let register = Register::value(at, width, value).masked(masks);
                    prop_assert_eq!(space.add(register), reference.add(at, width, value, masks));
                }
                Step::Remove(from, to) => prop_assert_eq!(space.remove(from..to), reference.remove(from, to)),
                Step::Read(at, width) => {
                    prop_assert_eq!(space.read(&mut (), at, width), reference.read(at, width));
                }
                Step::Write(at, width, value) => {
                    prop_assert!(space.write(&mut (), at, width, value).is_empty());
                    reference.write(at, width, value);
                }
            }
            let all = (0..BYTES).all(|at| space.read(&mut (), at, Byte) == reference.read(at, Byte));
            prop_assert!(all);
        }
    }
}
