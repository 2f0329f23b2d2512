//! Registers: what can be one, ranges, merging, masks.

use pcidevs::Errno;
use pcidevs::platform::Width::{self, Byte, Dword, Word};
use pcidevs::vpci::{Invalid, Masks, Read, Register, RegisterError, Write};

use crate::scaffold::{Hardware, Model, Registers, handled};

const NONE: Masks = Masks { ro: 0, rw1c: 0, rsvdp: 0, rsvdz: 0 };

fn with(registers: &[Register<Model, u16>]) -> (Registers, Model) {
    let mut space = Registers::new().unwrap();
    for register in registers {
        space.add(*register).unwrap();
    }
    (space, Model::new())
}

fn write(space: &mut Registers, model: &mut Model, offset: u16, width: Width, value: u32) -> Vec<u16> {
    space.write(model, offset, width, value).into_iter().collect()
}

#[test]
fn bad_registers_are_refused_with_the_rule_they_break() {
    let mut space = Registers::new().unwrap();
    let cases = [
        (handled(1, Word, NONE), Invalid::Misaligned),
        (handled(2, Dword, NONE), Invalid::Misaligned),
        (handled(4096, Byte, NONE), Invalid::TooFar),
        (handled(0xfffc, Dword, NONE), Invalid::TooFar),
        (Register::constant(0, Byte, 0x100), Invalid::TooWide),
        (handled(0, Word, Masks { ro: 0x1_0000, ..NONE }), Invalid::TooWide),
        (handled(0, Word, Masks { ro: 1, rw1c: 1, ..NONE }), Invalid::MasksOverlap),
        (handled(0, Word, Masks { rsvdp: 6, rsvdz: 4, ..NONE }), Invalid::MasksOverlap),
    ];
    for (register, reason) in cases {
        let error = space.add(register).unwrap_err();
        assert!(matches!(error, RegisterError::Invalid { reason: said, .. } if said == reason), "{error}");
        assert_eq!(error.errno(), Errno::EINVAL);
    }
    assert!(space.is_empty());
    space.add(handled(4092, Dword, NONE)).unwrap();
    space.add(handled(0xfff - 4, Byte, NONE)).unwrap();
    assert_eq!(space.len(), 2);
}

#[test]
fn every_overlap_is_refused_and_names_the_register_that_is_there() {
    for there in [(8, Byte), (9, Byte), (10, Word), (8, Word), (8, Dword)] {
        for (offset, width) in (4..16).flat_map(|at| [(at, Byte), (at, Word), (at, Dword)]) {
            if offset % width as u16 != 0 {
                continue;
            }
            let (mut space, _) = with(&[handled(there.0, there.1, NONE)]);
            let overlaps = offset < there.0 + there.1 as u16 && there.0 < offset + width as u16;
            let expected = if overlaps { Err(RegisterError::Exists(there.0)) } else { Ok(()) };
            assert_eq!(space.add(handled(offset, width, NONE)), expected, "{there:?}, {offset}, {width:?}");
            assert_eq!(space.len(), 2 - usize::from(overlaps));
        }
    }
    assert_eq!(RegisterError::Exists(0).errno(), Errno::EEXIST);
}

#[test]
fn a_range_that_cuts_a_register_removes_nothing() {
    let all = [handled(0x40, Byte, NONE), handled(0x42, Word, NONE), handled(0x44, Dword, NONE)];
    for (range, cut) in [(0x40..0x43, 0x42), (0x43..0x48, 0x42), (0x40..0x46, 0x44), (0x47..0x48, 0x44)] {
        let (mut space, _) = with(&all);
        assert_eq!(space.remove(range), Err(RegisterError::PartialOverlap(cut)));
        assert_eq!(space.len(), 3, "not even those before the cut one");
    }
    let (mut space, mut model) = with(&all);
    space.remove(0x41..0x48).unwrap();
    assert_eq!(space.len(), 1);
    assert_eq!(space.read(&mut model, 0x44, Dword), u32::MAX);
    space.remove(0..u16::MAX).unwrap();
    assert!(space.is_empty());
    assert_eq!(RegisterError::PartialOverlap(0).errno(), Errno::EBUSY);
}

#[test]
fn what_was_removed_is_used_again() {
    let (mut space, mut model) = with(&[]);
    // More rounds than there are numbers for registers.
    for round in 0..35_000_u16 {
        let offset = round % 1024 * 4;
        space.add(Register::value(offset, Dword, round.into())).unwrap();
        let next = (offset + 4) % 4096;
        space.add(Register::value(next, Byte, 1)).unwrap();
        assert_eq!(space.read(&mut model, offset, Dword), round.into());
        space.remove(offset..offset + 4).unwrap();
        space.remove(next..next + 4).unwrap();
    }
    assert!(space.is_empty());
}

#[test]
fn a_read_merges_registers_and_gaps_in_address_order() {
    let (mut space, mut model) = with(&[handled(0x41, Byte, NONE), handled(0x46, Word, NONE)]);
    (model.values[0x41], model.values[0x46]) = (0xaa, 0xbbcc);
    model = model.with_hardware();
    let merged = space.read(&mut model, 0x40, Dword);
    let [b0, b2, b3] = [0x40, 0x42, 0x43].map(|at| u32::from(Hardware::byte(at)));
    assert_eq!(merged, b0 | 0xaa << 8 | b2 << 16 | b3 << 24);
    assert_eq!(model.hardware.take().unwrap().story, ["read 1 at 0x40", "read 2 at 0x42"]);
    assert_eq!(space.read(&mut model, 0x44, Dword), 0xbbcc_ffff);
    assert_eq!(space.read(&mut model, 0x47, Byte), 0xbb, "part of a register");
    assert_eq!(model.story, ["read 0x41", "read 0x46", "read 0x46"]);
}

#[test]
fn a_gap_of_three_bytes_is_read_as_an_aligned_pair_and_a_byte() {
    let story = |register: u16| {
        let (mut space, model) = with(&[handled(register, Byte, NONE)]);
        let mut model = model.with_hardware();
        space.read(&mut model, 0x40, Dword);
        let _ = space.write(&mut model, 0x40, Dword, 0x4433_2211);
        model.hardware.unwrap().story
    };
    let odd = ["read 1 at 0x41", "read 2 at 0x42", "write 1 at 0x41 = 0x22", "write 2 at 0x42 = 0x4433"];
    assert_eq!(story(0x40), odd);
    let even = ["read 2 at 0x40", "read 1 at 0x42", "write 2 at 0x40 = 0x2211", "write 1 at 0x42 = 0x33"];
    assert_eq!(story(0x43), even);
    let middle = ["read 1 at 0x40", "read 2 at 0x42", "write 1 at 0x40 = 0x11", "write 2 at 0x42 = 0x4433"];
    assert_eq!(story(0x41), middle);
}

#[test]
fn gaps_read_ones_for_a_guest_and_its_writes_there_vanish() {
    let (mut space, mut model) = with(&[]);
    for (width, ones) in [(Byte, 0xff), (Word, 0xffff), (Dword, u32::MAX)] {
        assert_eq!(space.read(&mut model, 0x80, width), ones);
        assert_eq!(write(&mut space, &mut model, 0x80, width, 1), [0; 0]);
    }
    assert!(model.story.is_empty());
}

#[test]
fn a_full_write_without_kept_bits_goes_straight_to_the_handler() {
    let masks = Masks { rw1c: 0xf0, rsvdz: 0x0f, ..NONE };
    let (mut space, mut model) = with(&[handled(0x40, Word, masks)]);
    assert_eq!(write(&mut space, &mut model, 0x40, Word, 0xffff), [0x40]);
    assert_eq!(model.story, ["write 0x40 = 0xfff0"], "reserved bits are zeros, and nothing was read");
}

#[test]
fn a_partial_write_reads_merges_and_writes() {
    let masks = Masks { ro: 0x000f, rw1c: 0x0ff0, rsvdp: 0x1000, rsvdz: 0x2000 };
    let (mut space, mut model) = with(&[handled(0x40, Word, masks)]);
    model.values[0x40] = 0xffff;
    assert_eq!(write(&mut space, &mut model, 0x41, Byte, 0x00), [0x40]);
    // ro and rsvdp keep their value, rw1c bits that were not written are 0, rsvdz is 0, the rest is written.
    assert_eq!(model.story, ["read 0x40", "write 0x40 = 0x100f"]);
    model.story.clear();
    model.values[0x40] = 0;
    write(&mut space, &mut model, 0x40, Word, 0xffff);
    assert_eq!(model.story, ["read 0x40", "write 0x40 = 0xcff0"], "kept bits were 0");
}

#[test]
fn reserved_bits_read_as_zeros_and_wide_answers_are_cut() {
    let masks = Masks { rsvdp: 0x01, rsvdz: 0x80, ..NONE };
    let (mut space, mut model) = with(&[handled(0x40, Byte, masks), handled(0x41, Byte, NONE)]);
    (model.values[0x40], model.values[0x41]) = (u32::MAX, 0xdead_beef);
    assert_eq!(space.read(&mut model, 0x40, Word), 0xef7e);
}

#[test]
fn without_handlers_a_read_is_ones_and_a_write_is_dropped() {
    let (mut space, model) = with(&[Register::new(0x40, Word, Read::Ones, Write::Drop)]);
    let mut model = model.with_hardware();
    assert_eq!(space.read(&mut model, 0x40, Word), 0xffff);
    assert!(space.write(&mut model, 0x40, Word, 7).is_empty());
    assert!(model.hardware.unwrap().story.is_empty());
}

#[test]
fn a_stored_register_keeps_what_is_written_and_clears_what_a_one_clears() {
    let masks = Masks { rw1c: 0xf000, ro: 0x000f, ..NONE };
    let (mut space, mut model) = with(&[Register::value(0x40, Word, 0xf005).masked(masks)]);
    let mut read = |space: &mut Registers| space.read(&mut model, 0x40, Word);
    assert_eq!(read(&mut space), 0xf005);
    let mut nothing = Model::new();
    write(&mut space, &mut nothing, 0x40, Word, 0x1ff0);
    assert_eq!(read(&mut space), 0xeff5);
    write(&mut space, &mut nothing, 0x40, Byte, 0);
    assert_eq!(read(&mut space), 0xef05, "the other byte's were not written");
    write(&mut space, &mut nothing, 0x41, Byte, 0xe0);
    assert_eq!(read(&mut space), 0x0005);
}

#[test]
fn what_a_write_asks_for_comes_in_the_order_of_addresses() {
    let bytes: Vec<_> = (0x40..0x44).map(|offset| handled(offset, Byte, NONE)).collect();
    let (mut space, mut model) = with(&bytes);
    assert_eq!(write(&mut space, &mut model, 0x40, Dword, 0), [0x40, 0x41, 0x42, 0x43]);
    assert_eq!(write(&mut space, &mut model, 0x42, Word, 0), [0x42, 0x43]);
}

#[test]
fn an_access_that_cannot_be_reads_ones_and_writes_nothing() {
    let (mut space, model) = with(&[handled(0x40, Dword, NONE)]);
    let mut model = model.with_hardware();
    for (offset, width) in [(0x41, Word), (0x42, Dword), (0x43, Word), (4096, Byte), (u16::MAX, Byte)] {
        let ones = [0xff, 0xffff, u32::MAX][width as usize / 2];
        assert_eq!(space.read(&mut model, offset, width), ones);
        assert!(space.write(&mut model, offset, width, 0).is_empty());
    }
    assert!(model.story.is_empty() && model.hardware.unwrap().story.is_empty());
}
