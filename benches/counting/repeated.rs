//! The instructions of one repetition: what more repetitions cost more.
//!
//! The program is run twice, with so many repetitions and with twice as many. Its start, what it sets up and what it
//! takes down are in both and cancel out to the last instruction.

use super::valgrind;

/// The instructions of one repetition of `path`, its loop included. `arguments` make the program repeat it as many
/// times as the last argument says, which is added.
pub(crate) fn instructions(arguments: &[&str], times: usize) -> Result<f64, String> {
    let count = |times: usize| {
        let times = times.to_string();
        let all: Vec<&str> = arguments.iter().copied().chain([times.as_str()]).collect();
        valgrind::instructions(&all)
    };
    let (once, twice) = std::thread::scope(|scope| {
        let twice = scope.spawn(|| count(2 * times));
        (count(times), twice.join().expect("no panic"))
    });
    let (once, twice) = (once?, twice?);
    let more = twice.checked_sub(once).ok_or("twice as many repetitions took fewer instructions")?;
    Ok(more as f64 / times as f64)
}
