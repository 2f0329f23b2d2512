//! Lives at random: scripts of all operations, with hooks that fail, played on the life cycle and on a model of it.
//!
//! | file | what |
//! |---|---|
//! | `machine` | the functions, and how they depend on one another |
//! | `operations` | what can be done, and how a script is read from bytes |
//! | `model` | the reference: what the contract says must come of it |
//! | `stage`, `attachments` | the life cycle, the embedder around it, what is seen of them |
//! | `aftermath` | what may have come of it when a hook failed |
//! | `compare` | what must hold between two operations |
//! | `play` | one script |
//! | `found` | scripts that once went wrong |
//!
//! `PROPTEST_CASES=100000 cargo test --release --test lifecycle_model` looks longer; the scripts are the same ones in
//! every run. The fuzz target `lifecycle` plays scripts of its own finding.
#![allow(
    clippy::struct_excessive_bools,
    clippy::unnecessary_box_returns,
    clippy::format_collect,
    clippy::type_complexity,
    clippy::verbose_bit_mask,
    clippy::semicolon_if_nothing_returned,
    clippy::too_many_lines,
    reason = "the model is written to be read and shrunk, not to be fast"
)]

mod aftermath;
mod attachments;
mod compare;
mod found;
mod machine;
mod model;
mod operations;
mod play;
mod stage;

use operations::{STEP, Start, Step};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// What is played in every run of the tests.
const CASES: u32 = 120;
/// The longest script.
const LONGEST: usize = 60;

#[test]
fn lives_at_random_are_as_the_contract_says() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    // The same scripts in every run; `found` keeps those that were worth it.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let script =
        (any::<u8>().prop_map(Start::decode), vec(any::<[u8; STEP]>().prop_map(Step::decode), 1..LONGEST));
    let played =
        runner.run(&script, |(start, script)| play::play(start, &script).map_err(TestCaseError::fail));
    match played {
        Ok(()) => {}
        Err(TestError::Fail(why, (start, script))) => panic!("{start:?} {script:#?}\n{why}"),
        Err(failure) => panic!("{failure}"),
    }
}
