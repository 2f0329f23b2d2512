//! Any bytes as what a guest does: any access of any size anywhere, in any state of its devices.
#![no_main]

#[path = "../../tests/vpci/storm.rs"]
mod storm;

use libfuzzer_sys::fuzz_target;
use storm::{Step, play};

fuzz_target!(|input: Vec<(u8, u8, u16, u8, u64)>| {
    let step = |&(what, device, offset, length, value)| Step { what, device, offset, length, value };
    let steps: Vec<Step> = input.iter().take(300).map(step).collect();
    if let Err(why) = play(&steps) {
        panic!("{steps:#?}\n{why}");
    }
});
