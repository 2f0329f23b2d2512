//! What each strategy must do on machines with more cores than there are here to measure on.
//!
//! Two things are counted for every strategy, under valgrind: the instructions of an access, and the cache lines that
//! two threads write both. From the lines, from what they cost on large machines by what others have published, and
//! from the times measured here follows what more cores can reach at most; what two cores do here checks that.
//!
//! | command | what |
//! |---|---|
//! | `cargo bench --bench scaling -- --count` | counts (three minutes), writes `instructions.json` and `sharing.json`, then the same as without |
//! | `cargo bench --bench scaling` | writes `instructions.md`, `scaling.md` and its picture from these and `lock_strategies.json` |
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

mod coherence;
#[path = "../counting/mod.rs"]
mod counting;
#[path = "../lock_strategies/device.rs"]
mod device;
mod document;
mod files;
mod machine_code;
#[expect(dead_code, reason = "some of it is for the benchmarks that take times")]
#[path = "../measuring/mod.rs"]
mod measuring;
mod model;
mod operations;
mod picture;
mod published;
mod repeating;
#[path = "../lock_strategies/strategies/mod.rs"]
mod strategies;
#[expect(dead_code, reason = "some of it is for the workloads")]
#[path = "../lock_strategies/strategy.rs"]
mod strategy;
#[path = "../lock_strategies/pictures/svg.rs"]
mod svg;
mod taking_turns;
mod trace;

use serde_json::{Map, Value, json};

use counting::valgrind;
use files::{INSTRUCTIONS, Known, SHARING, rounded};
use operations::Operation;
use taking_turns::kinds;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", strategy, operation, times] => repeating::run(strategy, operation, times),
        ["--trace", strategy] => taking_turns::run(strategy),
        ["--count"] if !valgrind::is_installed() => Err("valgrind is not installed".to_owned()),
        ["--count"] => count().and_then(|()| write()),
        ["--test"] => smoke(),
        [] => write(),
        _ => Err(format!("unknown: {arguments:?} (known: --count, --test)")),
    }
}

/// Runs everything that is counted, uncounted and once or twice: does it work?
fn smoke() -> Result<(), String> {
    strategies::known().iter().try_for_each(|strategy| {
        Operation::ALL.iter().try_for_each(|operation| repeating::run(strategy.name, operation.name(), "2"))
    })
}

/// Counts instructions and shared lines of every strategy.
fn count() -> Result<(), String> {
    let (mut instructions, mut sharing): (Map<String, Value>, Map<String, Value>) = (Map::new(), Map::new());
    for strategy in strategies::known() {
        eprintln!("{}", strategy.name);
        let mut of_strategy: Map<String, Value> = Map::new();
        for operation in Operation::ALL {
            let count = repeating::count(strategy.name, operation)?;
            of_strategy.insert(operation.name().to_owned(), json!(rounded(count)));
        }
        instructions.insert(strategy.name.to_owned(), of_strategy.into());
        let turns = trace::of(strategy.name)?;
        let counts: Vec<_> = kinds().zip(turns.iter().map(coherence::Turns::counts)).collect();
        sharing.insert(strategy.name.to_owned(), files::sharing(&counts));
    }
    files::write_json(INSTRUCTIONS, &instructions.into())?;
    files::write_json(SHARING, &sharing.into())
}

/// Writes what follows from the files.
fn write() -> Result<(), String> {
    let known = Known::read()?;
    files::write("instructions.md", &document::instructions(&known))?;
    files::write("scaling.md", &document::scaling(&known)?)?;
    files::write(document::PICTURE, &picture::draw(&known)?)
}
