//! The guard of the hot paths: how many instructions each of them takes, and whether one has become longer.
//!
//! `cargo bench --bench instructions` counts and compares with `baseline.json` beside this file; more than a path's
//! margin longer fails. `-- --accept` writes the file anew, for a change that is worth its price: the commit that
//! has the new file says why. `docs/measurements/README.md` has the rest.
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

mod baseline;
#[path = "../counting/mod.rs"]
mod counting;
mod paths;
mod table;
mod vpci;

use std::process::ExitCode;

use baseline::{Baseline, Change};
use counting::{repeated, valgrind};
use paths::{PATHS, Path};

/// What the command line asks for.
enum Asked {
    /// Compare, and fail if a path became longer.
    Guard,
    /// Take what is counted for the baseline.
    Accept,
    /// Run one path so many times: what is counted.
    Run(&'static Path, usize),
    /// Run every path a few times, without valgrind: does it work?
    Smoke,
}

fn asked() -> Result<Asked, String> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(Asked::Guard),
        ["--accept"] => Ok(Asked::Accept),
        ["--test"] => Ok(Asked::Smoke),
        ["--run", name, times] => {
            let path = PATHS.iter().find(|path| path.name == name).ok_or(format!("no path {name}"))?;
            Ok(Asked::Run(path, times.parse().map_err(|_| format!("no number: {times}"))?))
        }
        _ => Err(format!("unknown: {arguments:?} (known: --accept, --test)")),
    }
}

fn main() -> Result<ExitCode, String> {
    match asked()? {
        Asked::Run(path, times) => (path.run)(times),
        Asked::Smoke => PATHS.iter().for_each(|path| (path.run)(3)),
        _ if !valgrind::is_installed() => println!("skipped: valgrind is not installed"),
        Asked::Accept => {
            count()?.write()?;
            println!("accepted: say in the commit why");
        }
        Asked::Guard => return guard(),
    }
    Ok(ExitCode::SUCCESS)
}

/// The instructions of every path, without its loop.
fn count() -> Result<Baseline, String> {
    let of = |path: &Path| repeated::instructions(&["--run", path.name], path.times);
    let (nothing, paths) = PATHS.split_first().ok_or("no paths")?;
    let around = of(nothing)?;
    let counted: Result<Vec<(String, f64)>, String> =
        paths.iter().map(|path| Ok((path.name.to_owned(), of(path)? - around))).collect();
    Ok(Baseline::of(counted?))
}

fn guard() -> Result<ExitCode, String> {
    let known = Baseline::read()?;
    if !known.is_of_this_architecture() {
        println!("skipped: {} is of another architecture", baseline::FILE);
        return Ok(ExitCode::SUCCESS);
    }
    let now = count()?;
    let changes = known
        .compared_with(&now, |path| PATHS.iter().find(|known| known.name == path).map(|path| path.margin));
    print!("{}", table::of(&changes));
    if let Some(note) = known.other_compiler(&now) {
        println!("\n{note}");
    }
    if changes.iter().all(Change::is_allowed) {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "\nA hot path has become longer. If the change is worth it:\n\n    \
         cargo bench --bench instructions -- --accept\n\nwrites {}, and the commit says why.",
        baseline::FILE
    );
    Ok(ExitCode::FAILURE)
}
