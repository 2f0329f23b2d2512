//! Any bytes as a script of a machine's life, hooks failing in the middle of it: the life cycle does what the
//! reference model of its tests says, and everything holds in between that they look at.
#![no_main]

#[path = "../../tests/lifecycle_model/aftermath.rs"]
mod aftermath;
#[path = "../../tests/lifecycle_model/attachments.rs"]
mod attachments;
#[path = "../../tests/lifecycle_model/compare.rs"]
mod compare;
#[path = "../../tests/lifecycle_model/machine.rs"]
mod machine;
#[path = "../../tests/lifecycle_model/model/mod.rs"]
mod model;
#[path = "../../tests/lifecycle_model/operations.rs"]
mod operations;
#[path = "../../tests/lifecycle_model/play.rs"]
mod play;
#[path = "../../tests/lifecycle_model/stage.rs"]
mod stage;

use libfuzzer_sys::fuzz_target;
use operations::{STEP, Start, Step};

/// Longer scripts find nothing that shorter ones do not, and take their time.
const LONGEST: usize = 100;

fuzz_target!(|input: (u8, &[u8])| {
    let (start, script) = (Start::decode(input.0), input.1);
    let script: Vec<_> =
        script.as_chunks::<STEP>().0.iter().take(LONGEST).map(|bytes| Step::decode(*bytes)).collect();
    if let Err(why) = play::play(start, &script) {
        panic!("{start:?} {script:#?}\n{why}");
    }
});
