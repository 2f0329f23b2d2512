//! `soak`: a machine's functions live through a storm, and every promise is checked while it blows.
//!
//! The machine is simulated from its recording, so nothing of the host is touched. What runs on it is the shipped
//! core. Who does what:
//!
//! | thread | does |
//! |---|---|
//! | `vcpu` | reads and writes configuration space by guest address, programs DMA, sets up interrupts |
//! | `engine` | acts as devices do: DMA that comes late, interrupts |
//! | `administrator` | assigns, deassigns, quarantines, resets: single devices, sets and groups |
//! | `hotplug` | removes (at once, by ticket, by the card), loses and re-adds devices |
//! | `guardian` | buries guests and makes them anew, repairs broken devices, runs what was deferred |
//! | `backend` | holds devices by name |
//! | `mishaps` | makes hooks fail, panic and hang |
//!
//! | the rest | |
//! |---|---|
//! | `storm` | rounds of these threads |
//! | `world`, `plan`, `party`, `life`, `binding` | the machine; who hangs on whom; who is who; a device; what its owner gets |
//! | `rules`, `ledger`, `removal`, `transition`, `audit`, `judge`, `chronicle` | the checks |
//! | `statistics`, `report`, `watch`, `picture`, `screen` | what is shown |
//!
//! The checks compare what the core says with what it did: the IOMMU's entries, the attachments it switched on and
//! off, and books that the threads keep themselves. A core that is wrong cannot excuse itself.

mod administrator;
mod audit;
mod backend;
mod binding;
mod chronicle;
mod engine;
mod guardian;
mod hotplug;
mod judge;
mod ledger;
mod life;
mod mishaps;
mod party;
mod picture;
mod plan;
mod removal;
mod report;
mod rules;
mod screen;
mod statistics;
mod storm;
mod transition;
mod vcpu;
mod watch;
mod world;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::{Source, fail};
use report::{Report, grouped};
use storm::Storm;
use watch::Watch;
use world::World;

/// The exit status after a second Ctrl-C, as a shell has it.
const INTERRUPTED: i32 = 130;

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
    /// How many hooks of a thousand fail; some of them panic or hang.
    #[arg(long, value_name = "PERMILLE", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    fault_rate: u32,
    /// Repeats a run's choices, though not its interleaving; random, and printed, if left out.
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Shows the devices while it lasts: whose they are, who holds them, what is attached. A table that refreshes on a
    /// terminal, a line a second elsewhere.
    #[arg(long)]
    watch: bool,
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
    let world = match World::build(&source.machine, arguments.domains, arguments.fault_rate) {
        Ok(world) => world,
        Err(error) => return fail(&error),
    };
    if let Err(error) = catch_ctrl_c(&world) {
        return fail(&format_args!("cannot catch Ctrl-C: {error}"));
    }
    if !arguments.json {
        say(format_args!(
            "soak: {}: {}, {}\n      {}, {}, {} s, faults {} ‰, seed {seed}",
            source.name,
            counted(world.plan().len(), "function"),
            counted(world.plan().segments, "segment"),
            counted(vcpus, "vCPU"),
            counted(arguments.domains, "domain"),
            arguments.seconds,
            arguments.fault_rate,
        ));
    }
    world.begin_mishaps(seed);
    let begun = Instant::now();
    let storm = Storm { vcpus, seed, length: Duration::from_secs(arguments.seconds) };
    let statistics = if arguments.watch {
        let mut watch = Watch::begin(storm.length);
        storm.blow(&world, |elapsed| watch.look(&world, elapsed))
    } else {
        let bar = progress_bar(storm.length);
        let statistics = storm.blow(&world, |elapsed| {
            bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            bar.set_message(format!("{:>13} accesses", grouped(world.accesses())));
        });
        bar.finish_and_clear();
        statistics
    };
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report::new(world, vcpus, seconds, statistics);
    report.print(arguments.json);
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first Ctrl-C ends the storm, the second one the command: a hook of a broken core may never return.
fn catch_ctrl_c(world: &World) -> Result<(), ctrlc::Error> {
    let judge = Arc::clone(world.judge());
    ctrlc::set_handler(move || {
        if !judge.goes_on() {
            screen::restore();
            std::process::exit(INTERRUPTED);
        }
        judge.stop();
    })
}

fn progress_bar(length: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    bar
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
