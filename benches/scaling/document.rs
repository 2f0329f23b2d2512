//! The documents: what was counted, and what follows.

use std::fmt::Write as _;

use crate::files::Known;
use crate::measuring::report::table;
use crate::model::{Accessed, DEVICES, Limit, transfer_here};
use crate::operations::Operation;
use crate::published::{LARGE, MEASURED};
use crate::repeating;
use crate::strategies::known as strategies;
use crate::taking_turns::{TURNS, Visits};

/// What is predicted: both begin with finding the device.
const PREDICTED: [Operation; 2] = [Operation::Read, Operation::GetPut];

/// Fewer transfers than these are what happens once in a while.
const MOVES: f64 = 0.1;

pub(crate) const PICTURE: &str = "scaling.svg";

/// The instructions of all strategies, one table.
pub(crate) fn instructions(known: &Known) -> String {
    let mut head = vec!["strategy"];
    head.extend(Operation::ALL.map(Operation::name));
    let rows: Vec<Vec<String>> = strategies()
        .iter()
        .map(|strategy| {
            let count = |operation| {
                known
                    .instructions(strategy.name, operation)
                    .map_or(String::new(), |count| format!("{count:.0}"))
            };
            [strategy.name.to_owned()].into_iter().chain(Operation::ALL.map(count)).collect()
        })
        .collect();
    format!(
        "# Instructions of an access\n\nOne thread, {} devices, each visited as often as every other, in random order. \
         Counted by callgrind, without the loop\naround; made by `cargo bench --bench scaling -- --count`, which writes \
         `instructions.json` as well. No noise, and no\ntimes: an instruction that locks a line takes as long as \
         twenty others, a miss as long as hundreds.\n\n{}\nThe hot paths of pcidevs have a guard: \
         [README](README.md#instructions).\n",
        repeating::DEVICES,
        table(&head, &rows),
    )
}

pub(crate) fn scaling(known: &Known) -> Result<String, String> {
    let transfer = transfer_here(known)?;
    let mut text = format!("# More cores than here\n\n{}", introduction());
    let _ = write!(text, "![Accesses a second against cores]({PICTURE})\n\n{}", ceilings(known, transfer)?);
    let _ = write!(text, "## What was counted\n\n{}", counted(known));
    let _ = write!(text, "## What a transfer costs\n\n{}", costs(transfer));
    let _ = write!(text, "## Two cores: predicted and measured\n\n{}", check(known, transfer)?);
    let _ = write!(text, "## Where the model is wrong\n\n{}", include_str!("limits.md"));
    Ok(text.trim_end().to_owned() + "\n")
}

fn introduction() -> String {
    format!(
        "What each strategy must do at 64 and at 256 cores, as far as it follows from what can be counted on two. \
         Made by\n`cargo bench --bench scaling` from `sharing.json`, `instructions.json` and `lock_strategies.json`; \
         nothing here is a\nmeasurement of a large machine.\n\n\
         The cores access {DEVICES} devices, each its own, so that nothing but the strategy is in their way. An access \
         takes the time\n`L` that it takes alone, and `t` for each line that another core has had since: `k` lines with \
         two cores; with more, of\nthe lines that others write nearly all. A line that every access writes `h` times lets \
         one access pass in `h t`; a lock\nthat excludes lets one pass in the time it is held. So\n\n    accesses a second = min( cores / (L + k t),  1 / (h t)  or  1 / (time under the lock) )\n\n"
    )
}

fn all(known: &Known, operation: Operation) -> Result<Vec<Accessed>, String> {
    strategies().iter().map(|strategy| Accessed::of(known, strategy.name, operation)).collect()
}

fn ceilings(known: &Known, transfer: f64) -> Result<String, String> {
    let mut text = String::new();
    for operation in PREDICTED {
        let rows: Vec<Vec<String>> = all(known, operation)?
            .iter()
            .map(|accessed| {
                let measured =
                    |cores: f64, time: Option<f64>| time.map_or(String::new(), |time| millions(cores / time));
                let doubt = if accessed.is_doubtful(transfer) { " ‡" } else { "" };
                let mut row = vec![
                    format!("{}{doubt}", accessed.strategy),
                    measured(1.0, Some(accessed.alone)),
                    measured(2.0, accessed.two),
                ];
                row.extend(
                    LARGE
                        .iter()
                        .map(|large| range(accessed, large.cores, large.transfer.low, large.transfer.high)),
                );
                let (_, limit) = accessed.throughput(LARGE[1].cores, LARGE[1].transfer.middle());
                row.push(if limit == Limit::Cores { "" } else { limit.words() }.to_owned());
                row
            })
            .collect();
        let predicted = LARGE.map(|large| {
            let (low, high) = (large.transfer.low, large.transfer.high);
            format!("{} cores, {} (t = {high} to {low} ns)", large.cores, large.what)
        });
        let head =
            ["strategy", "1 core, measured", "2 cores, measured", &predicted[0], &predicted[1], "held up by"];
        let name = operation.name();
        let _ = write!(
            text,
            "## At most: {name}, different devices\n\nMillions a second. ‡: with two cores the model is wrong by more than a \
             factor of two.\n\n{}\n",
            table(&head, &rows)
        );
    }
    Ok(text)
}

fn range(accessed: &Accessed, cores: f64, low: f64, high: f64) -> String {
    let (worst, best) = (accessed.throughput(cores, high).0, accessed.throughput(cores, low).0);
    let (worst, best) = (millions(worst), millions(best));
    if worst == best { worst } else { format!("{worst} to {best}") }
}

/// Of accesses in a nanosecond. Two digits count.
fn millions(throughput: f64) -> String {
    let millions = throughput * 1000.0;
    let unit = 10_f64.powf(millions.abs().log10().floor() - 1.0);
    let rounded = (millions / unit).round() * unit;
    if rounded < 10.0 { format!("{rounded:.1}") } else { format!("{rounded:.0}") }
}

fn counted(known: &Known) -> String {
    let mut text = format!(
        "Two threads take turns, one access each, under a tool that writes down every address ({TURNS} turns of each \
         thread; means).\nNothing is left out by hand: stacks and thread-local memory differ by themselves. A line has 64 \
         bytes. *k* is how many\nlines come over in an access if caches have no end; *h* how often an access writes \
         the shared line that is written\nmost. `sharing.json` has all of it, reads by guest address and plain reads \
         too.\n\n"
    );
    for operation in PREDICTED {
        for visits in Visits::ALL {
            let all = strategies();
            let rows = all.iter().filter_map(|strategy| {
                let counts = known.counts(strategy.name, operation, visits)?;
                let shown = [
                    counts.instructions,
                    counts.locked,
                    counts.shared_lines,
                    counts.shared_writes,
                    counts.invalidated,
                    counts.read_shared,
                    counts.transfers,
                    counts.hottest,
                ];
                Some([strategy.name.to_owned()].into_iter().chain(shown.map(short)).collect())
            });
            let rows: Vec<Vec<String>> = rows.collect();
            let head = [
                "strategy",
                "instructions",
                "locked",
                "lines both write",
                "writes to these",
                "lines one writes",
                "lines only read",
                "k",
                "h",
            ];
            let (name, visits) = (operation.name(), visits.name());
            let name = capitalised(name);
            let _ = write!(text, "### {name}, {visits}\n\n{}\n", table(&head, &rows));
        }
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Whole numbers as such.
fn short(count: f64) -> String {
    let text = format!("{count:.2}");
    text.strip_suffix(".00").map_or(text.clone(), str::to_owned)
}

fn costs(transfer: f64) -> String {
    let rows: Vec<Vec<String>> = MEASURED
        .iter()
        .map(|(part, far, time)| [part, far, time].map(|cell| (*cell).to_owned()).into())
        .collect();
    format!(
        "Published, nanoseconds until another core has the line:\n\n{}\nAll of them: N. Viennot and contributors, \
         *core-to-core-latency*, 2022 to 2023\n(<https://github.com/nviennot/core-to-core-latency>), compare-exchanges \
         between pinned threads, medians. That throughput\non one line falls as soon as a second socket takes part is the \
         finding of T. David, R. Guerraoui and V. Trigonakis,\n*Everything You Always Wanted to Know About Synchronization \
         but Were Afraid to Ask*, SOSP 2013.\n\nThe machine here: {transfer:.1} ns, from two cores that count up and down \
         on one line, less the same on lines of their own.\n\n",
        table(&["part", "how far", "ns"], &rows),
    )
}

/// What sharing means for two cores, apart from the model.
fn slowdowns(known: &Known) -> Result<String, String> {
    let mut slower: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for operation in PREDICTED {
        for accessed in all(known, operation)? {
            if let Some(two) = accessed.two {
                let moves = accessed.counts.transfers >= MOVES;
                slower[usize::from(moves)].push(two / accessed.alone);
            }
        }
    }
    let [still, moving] = slower.map(|mut slower| {
        slower.sort_by(f64::total_cmp);
        let at = |place: usize| slower.get(place).copied().unwrap_or(f64::NAN);
        format!(
            "{:.1} to {:.1} times, median {:.1}",
            at(0),
            at(slower.len().saturating_sub(1)),
            at(slower.len() / 2)
        )
    });
    Ok(format!(
        "An access with a second core beside it takes, to one alone: {still}, where k < {MOVES}; {moving}, where it is \
         more.\n\n"
    ))
}

fn check(known: &Known, transfer: f64) -> Result<String, String> {
    let mut text =
        format!("{}, t = {transfer:.1} ns; nanoseconds of an access on each core.\n\n", known.machine());
    text.push_str(&slowdowns(known)?);
    for operation in PREDICTED {
        let rows: Vec<Vec<String>> = all(known, operation)?
            .iter()
            .filter_map(|accessed| {
                let (predicted, measured) = (accessed.predicted_for_two(transfer), accessed.two?);
                Some(vec![
                    accessed.strategy.to_owned(),
                    format!("{:.1}", accessed.alone),
                    short(accessed.counts.transfers),
                    format!("{predicted:.1}"),
                    format!("{measured:.1}"),
                    format!("{:+.0} %", (predicted / measured - 1.0) * 100.0),
                ])
            })
            .collect();
        let head = ["strategy", "alone", "k", "predicted", "measured", "error"];
        let _ = write!(text, "### {}\n\n{}\n", capitalised(operation.name()), table(&head, &rows));
    }
    Ok(text)
}
