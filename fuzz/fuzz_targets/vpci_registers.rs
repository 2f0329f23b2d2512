//! Any bytes as registers and accesses to them, against a model that knows bytes and nothing else.
#![no_main]

#[path = "../../tests/vpci/bytes.rs"]
mod bytes;

use bytes::{BYTES, Step, play};
use libfuzzer_sys::fuzz_target;
use pcidevs::platform::Width;
use pcidevs::vpci::Masks;

fn step(kind: u8, place: u8, value: u32, masks: [u32; 4]) -> Step {
    let width = [Width::Byte, Width::Word, Width::Dword][usize::from(kind >> 4) % 3];
    // Also places that are not aligned, and masks that overlap: those the model does not know, so not here.
    let at = u16::from(place) % BYTES & !(width as u16 - 1);
    let all = u32::MAX >> (32 - 8 * width as u32);
    let [ro, rw1c, rsvdp, rsvdz] = masks.map(|mask| mask & all);
    let masks =
        Masks { ro, rw1c: rw1c & !ro, rsvdp: rsvdp & !(ro | rw1c), rsvdz: rsvdz & !(ro | rw1c | rsvdp) };
    match kind & 3 {
        0 => Step::Add(at, width, value & all, masks),
        1 => Step::Remove(at, at + u16::from(kind >> 2) % 12),
        2 => Step::Read(at, width),
        _ => Step::Write(at, width, value),
    }
}

fuzz_target!(|input: Vec<(u8, u8, u32, [u32; 4])>| {
    let steps: Vec<Step> =
        input.iter().take(200).map(|(kind, at, value, masks)| step(*kind, *at, *value, *masks)).collect();
    if let Err(why) = play(&steps) {
        panic!("{steps:#?}\n{why}");
    }
});
