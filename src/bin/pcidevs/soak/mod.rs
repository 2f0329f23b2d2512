//! `soak`: a machine's functions under a storm, and every promise checked while it blows.
//!
//! The machine is a model: its configuration spaces are copies and its devices are threads, so nothing of the
//! host is touched. What runs on it is the shipped core. Who does what:
//!
//! | thread | does |
//! |---|---|
//! | `vcpu` | reads and writes configuration space by guest address, lists its guests' devices |
//! | `device` | acts as a device does: DMA and interrupts, checked against the owner under the device lock |
//! | `hotplug` | removes (at once, by ticket, cancelled), loses and re-adds devices |
//! | `administrator` | moves devices, and sets that belong together, between owners |
//! | `backend` | holds devices by name for a while, as a backend or an open VFIO device would |
//!
//! The checks live in `world` (what may be reached by whom) and `ledger` (who really held what). They use no
//! state of the core's, only the order of calls, so a core that is wrong cannot excuse itself.

mod hotplug;
mod ledger;
mod model;
mod movers;
mod report;
mod statistics;
mod vcpu;
mod world;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::thread;
use indicatif::{ProgressBar, ProgressStyle};

use crate::source::{Source, fail};
use report::Report;
use world::World;

/// The options of `soak`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Threads that access configuration space; as many as there are cores if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    vcpus: Option<u32>,
    /// Guests.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    domains: u32,
    /// How long the storm lasts.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Repeats a run's choices, though not its interleaving; random, and printed, if left out.
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Prints the result as one line of JSON, the last on stdout.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let source = match arguments.source.read() {
        Ok(source) => source,
        Err(status) => return status,
    };
    let vcpus = arguments.vcpus.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
    });
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let world = match World::build(&source.machine, arguments.domains) {
        Ok(world) => world,
        Err(error) => return fail(&error),
    };
    let stop = world.stop();
    if let Err(error) = ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed)) {
        return fail(&format_args!("cannot catch Ctrl-C: {error}"));
    }
    if !arguments.json {
        say(format_args!(
            "soak: {}: {}, {}; {}, {}; {} s, seed {seed}",
            source.name,
            counted(world.functions(), "function"),
            counted(world.segments(), "segment"),
            counted(vcpus, "vCPU"),
            counted(arguments.domains, "domain"),
            arguments.seconds,
        ));
    }
    let begun = Instant::now();
    let statistics = storm(&world, vcpus, seed, Duration::from_secs(arguments.seconds));
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report::new(world, vcpus, seconds, statistics);
    report.print(arguments.json);
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all threads until the time is up, a violation has been found, or somebody presses Ctrl-C.
fn storm(world: &World, vcpus: u32, seed: u64, length: Duration) -> statistics::Statistics {
    let joined = thread::scope(|scope| {
        let vcpus: Vec<_> = (0..vcpus)
            .map(|number| scope.spawn(move |_| vcpu::run(world, seed.wrapping_add(number.into()))))
            .collect();
        let others = [
            scope.spawn(|_| movers::device(world, seed ^ 0xd0)),
            scope.spawn(|_| movers::device(world, seed ^ 0xd1)),
            scope.spawn(|_| hotplug::run(world, seed ^ 0xb0)),
            scope.spawn(|_| movers::administrator(world, seed ^ 0xad)),
            scope.spawn(|_| movers::backend(world, seed ^ 0xbe)),
        ];
        show_progress(world, length);
        world.stop().store(true, Ordering::Relaxed);
        let mut statistics = statistics::Statistics::default();
        for thread in vcpus.into_iter().chain(others) {
            match thread.join() {
                Ok(part) => statistics.add(&part),
                Err(_) => world.violation(format_args!("a thread of the storm panicked")),
            }
        }
        statistics
    });
    joined.unwrap_or_default()
}

fn show_progress(world: &World, length: Duration) {
    const STEP: Duration = Duration::from_millis(100);
    let stop = world.stop();
    let begun = Instant::now();
    let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    while begun.elapsed() < length && !stopped(&stop) {
        std::thread::sleep(STEP.min(length.saturating_sub(begun.elapsed())));
        bar.set_position(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        bar.set_message(world.progress());
    }
    bar.finish_and_clear();
}

/// A line on stdout. Nobody may be reading any more: the verdict is the exit status.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// One of a thing, or several.
fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
