//! Giving devices to Xen's guests: `pcidevs xen assignable-add`, `assignable-remove`, `assignable-list`, `attach`,
//! `detach`, `list`.
//!
//! | file | what it does |
//! |---|---|
//! | `act` | one operation on the tool stack |
//! | `wanted` | which devices and guests the arguments mean |
//! | `absent` | a hypervisor that cannot be asked, for what does without |
//! | `rehearsal` | a machine in memory, for `--dry-run` |
//! | `print` | what came of it, for a person or as JSON |

mod absent;
mod act;
mod print;
mod rehearsal;
mod wanted;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use pcidevs::Sbdf;
use pcidevs::host::{Kernel, Linux, Root};
use pcidevs::xen::client;
use pcidevs::xen::hypercall::{Hypervisor, Libxenctrl};
use pcidevs::xen::manager::XenManager;
use pcidevs::xen::spec::Spec;

use crate::source::fail;
use print::Report;
use rehearsal::Rehearsal;

/// The exit status of an operation that did not happen, or not whole.
const FAILED: u8 = 1;

/// The options of `xen`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(clap::Subcommand)]
enum Command {
    /// Take devices from their drivers and put them on xen-pciback.
    AssignableAdd(Add),
    /// Give devices back to their drivers.
    AssignableRemove(Remove),
    /// Show the devices that guests can get, and what the host had.
    AssignableList(Common),
    /// Give devices to a guest: all of them at once, or none.
    Attach(Attach),
    /// Take devices back from a guest.
    Detach(Detach),
    /// Show which guests have which devices.
    List(List),
}

/// How to work and to answer.
#[derive(clap::Args)]
struct Common {
    /// Write JSON for programs, on one line.
    #[arg(long)]
    json: bool,
    /// Write nothing; say what would be written, in order. Guests answer nothing then, so a running guest's devices stay.
    #[arg(long)]
    dry_run: bool,
    /// A folder that has `sys` of another machine.
    #[arg(long, value_name = "FOLDER", hide = true)]
    root: Option<PathBuf>,
}

/// The options of `assignable-add`.
#[derive(clap::Args)]
struct Add {
    /// What the device is called from now on, for `name=` in a device's string. For one device.
    #[arg(long)]
    name: Option<String>,
    /// Their addresses.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<Sbdf>,
    #[command(flatten)]
    common: Common,
}

/// The options of `assignable-remove`.
#[derive(clap::Args)]
struct Remove {
    /// Do not give them back to the drivers they had; what these were is forgotten.
    #[arg(long)]
    leave_unbound: bool,
    /// Their addresses.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<Sbdf>,
    #[command(flatten)]
    common: Common,
}

/// The options of `attach`.
#[derive(clap::Args)]
struct Attach {
    /// Wait until a guest that runs has its first devices.
    #[arg(long)]
    wait: bool,
    /// The guest, by number or name.
    #[arg(value_name = "DOMAIN")]
    guest: String,
    /// The devices as xl writes them: `03:00.0`, `03:00.*@5,permissive=1`, `name=uplink`.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<Spec>,
    #[command(flatten)]
    common: Common,
}

/// The options of `detach`.
#[derive(clap::Args)]
struct Detach {
    /// Everything; also from a guest that is dead.
    #[arg(long, conflicts_with = "devices")]
    all: bool,
    /// The guest, by number or name.
    #[arg(value_name = "DOMAIN")]
    guest: String,
    /// The devices as xl writes them.
    #[arg(required_unless_present = "all", value_name = "DEVICE")]
    devices: Vec<Spec>,
    #[command(flatten)]
    common: Common,
}

/// The options of `list`.
#[derive(clap::Args)]
struct List {
    /// The guest, by number or name; all if left out.
    #[arg(value_name = "DOMAIN")]
    guest: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::AssignableAdd(Add { common, .. })
            | Self::AssignableRemove(Remove { common, .. })
            | Self::AssignableList(common)
            | Self::Attach(Attach { common, .. })
            | Self::Detach(Detach { common, .. })
            | Self::List(List { common, .. }) => common,
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let common = arguments.command.common();
    let mut linux = Linux::new();
    if let Some(root) = &common.root {
        linux = linux.with_root(Root::Sys, root.join("sys"));
    }
    let kernel: Arc<dyn Kernel> = Arc::new(linux);
    if common.dry_run {
        let rehearsal = match Rehearsal::of(&kernel) {
            Ok(rehearsal) => rehearsal,
            Err(errno) => return fail(&format!("the machine cannot be copied: {errno}")),
        };
        let manager = match rehearsal.manager() {
            Ok(manager) => manager,
            Err(error) => return fail(&error),
        };
        let mut report = act::carry_out(&arguments.command, &manager, &|guest| rehearsal.expect_guest(guest));
        report.writes = Some(rehearsal.writes());
        return answer(common, &report);
    }
    let hypervisor: Arc<dyn Hypervisor> = match Libxenctrl::open() {
        Ok(library) => Arc::new(library),
        // Looking does without; what needs it says why it is not there.
        Err(error) => Arc::new(absent::Absent(error)),
    };
    let connect = || Ok(Box::new(client::connect()?) as Box<_>);
    match XenManager::open(kernel, hypervisor, Box::new(connect)) {
        Ok(manager) => answer(common, &act::carry_out(&arguments.command, &manager, &|_| {})),
        Err(pcidevs::xen::manager::XenError::Store(error)) => {
            fail(&format!("xenstore: {error} (is this domain 0, does xenstored run, are you root?)"))
        }
        Err(error) => fail(&error),
    }
}

fn answer(common: &Common, report: &Report) -> ExitCode {
    match print::print(report, common.json) {
        Ok(()) if report.is_whole() => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` has: no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe && report.is_whole() => {
            ExitCode::SUCCESS
        }
        Ok(()) | Err(_) => ExitCode::from(FAILED),
    }
}
