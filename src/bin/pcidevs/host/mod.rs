//! Moving real devices: `pcidevs detach`, `attach`, `release`, `reattach`, `adopt`, `status`, `recover`, `reset`,
//! `repair`.
//!
//! | file | what it does |
//! |---|---|
//! | `act` | one operation on the host manager |
//! | `print` | what came of it, for a person or as JSON |

mod act;
mod print;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use pcidevs::Sbdf;
use pcidevs::host::fake::Fake;
use pcidevs::host::{
    Directory, DriverType, HostManager, InvalidNetwork, Kernel, Linux, MacAddress, NetworkIdentity, Options,
    Root, Store, Vlan,
};

use crate::source::fail;
use print::Report;

/// The exit status of an operation that did not happen, or not whole.
const FAILED: u8 = 1;

/// What can be done.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Take devices from their host drivers, all of them or none, until they are reattached.
    Detach(Detach),
    /// Give devices to a guest, all of them or none.
    Attach(Attach),
    /// Take devices back from a guest; those that `attach` took from the host go back there.
    Release(Release),
    /// Give devices back to their host drivers, when their group can go.
    Reattach(Reattach),
    /// Take over devices that somebody else has put on VFIO.
    Adopt(Devices),
    /// Show with whom devices are. Waits for nobody and writes nothing.
    Status(Status),
    /// Bring what a crash has left into a safe state, and say what became of it.
    Recover(Common),
    /// Reset a device that is detached.
    Reset(Devices),
    /// Put a broken device into quarantine, whole again.
    Repair(Devices),
}

/// Where the machine is, and how to answer.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Write JSON for programs, on one line.
    #[arg(long)]
    json: bool,
    /// Write nothing; say what would be written, in order.
    #[arg(long)]
    dry_run: bool,
    /// Where the journal is kept.
    #[arg(long, value_name = "FOLDER", default_value = "/run/pcidevs")]
    state: PathBuf,
    /// A folder that has `sys`, `dev`, `proc` and `lib/modules` of another machine.
    #[arg(long, value_name = "FOLDER", hide = true)]
    root: Option<PathBuf>,
}

/// Some devices.
#[derive(clap::Args)]
pub(crate) struct Devices {
    /// Their addresses.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<Sbdf>,
    #[command(flatten)]
    common: Common,
}

/// The options of `detach`.
#[derive(clap::Args)]
pub(crate) struct Detach {
    /// The driver they get: default, vfio, or a name.
    #[arg(long, default_value = "default", value_parser = driver_type)]
    driver: DriverType,
    /// Also what the host cannot do without.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    devices: Devices,
}

/// The options of `attach`.
#[derive(clap::Args)]
pub(crate) struct Attach {
    /// The guest.
    #[arg(long)]
    guest: String,
    /// Whose guest that is.
    #[arg(long, default_value = "pcidevs")]
    manager: String,
    /// Only devices that are detached already.
    #[arg(long)]
    unmanaged: bool,
    /// The MAC address of a virtual function while the guest has it.
    #[arg(long, value_name = "AA:BB:CC:DD:EE:FF", value_parser = mac)]
    mac: Option<MacAddress>,
    /// Its VLAN, 0 for none; with a priority as `ID:QOS`, and as an outer tag `ID:QOS:802.1ad`.
    #[arg(long, value_name = "ID")]
    vlan: Option<Vlan>,
    #[command(flatten)]
    detach: Detach,
}

/// The options of `release`.
#[derive(clap::Args)]
pub(crate) struct Release {
    /// The guest.
    #[arg(long)]
    guest: String,
    /// Whose guest that is.
    #[arg(long, default_value = "pcidevs")]
    manager: String,
    #[command(flatten)]
    reattach: Reattach,
}

/// The options of `reattach`.
#[derive(clap::Args)]
pub(crate) struct Reattach {
    /// How many seconds to wait for a group to be closed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u32,
    #[command(flatten)]
    devices: Devices,
}

/// The options of `status`.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// Their addresses; all if left out.
    #[arg(value_name = "DEVICE")]
    devices: Vec<Sbdf>,
    #[command(flatten)]
    common: Common,
}

/// Refuses what no card may have when it is read.
fn mac(text: &str) -> Result<MacAddress, InvalidNetwork> {
    let mac = text.parse()?;
    NetworkIdentity::new(Some(mac), None).map(|_| mac)
}

/// Refuses what this platform cannot do when it is read.
fn driver_type(text: &str) -> Result<DriverType, String> {
    let wanted: DriverType = text.parse().map_err(|error| format!("{error}"))?;
    wanted.check().map_err(|error| error.to_string())?;
    Ok(wanted)
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Detach(options) => &options.devices.common,
            Self::Attach(options) => &options.detach.devices.common,
            Self::Release(options) => &options.reattach.devices.common,
            Self::Reattach(options) => &options.devices.common,
            Self::Adopt(devices) | Self::Reset(devices) | Self::Repair(devices) => &devices.common,
            Self::Status(options) => &options.common,
            Self::Recover(common) => common,
        }
    }
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> ExitCode {
    let common = command.common();
    let mut linux = Linux::new();
    if let Some(root) = &common.root {
        let folders =
            [(Root::Sys, "sys"), (Root::Dev, "dev"), (Root::Proc, "proc"), (Root::Modules, "lib/modules")];
        linux = folders.into_iter().fold(linux, |linux, (of, name)| linux.with_root(of, root.join(name)));
    }
    let kernel: Arc<dyn Kernel> = Arc::new(linux);
    if let Command::Status(options) = command {
        // The folder may not be there yet, and is not made for looking.
        return match act::status(kernel, Arc::new(Directory::existing(&common.state)), &options.devices) {
            Ok(report) => answer(common, &report),
            Err(error) => fail(&error),
        };
    }
    if common.dry_run {
        let copied = Fake::copy_of(kernel, &Directory::existing(&common.state));
        return match copied {
            Ok(fake) => {
                let store = Arc::new(fake.clone());
                finish(command, Arc::new(fake.clone()), store, Some(&fake))
            }
            Err(errno) => fail(&format!("the machine cannot be copied: {errno}")),
        };
    }
    match Directory::new(&common.state) {
        Ok(store) => finish(command, kernel, Arc::new(store), None),
        Err(errno) => fail(&format!("{}: {errno}", common.state.display())),
    }
}

/// Opens the manager, which recovers, and carries the command out.
fn finish(
    command: &Command,
    kernel: Arc<dyn Kernel>,
    store: Arc<dyn Store>,
    copy: Option<&Fake>,
) -> ExitCode {
    let common = command.common();
    let (manager, recovery) = match HostManager::open(kernel, store, Options::default()) {
        Ok(opened) => opened,
        Err(error) => return fail(&error),
    };
    let mut report = act::carry_out(command, &manager, copy.is_some());
    report.recovered(&recovery);
    report.writes = copy.map(Fake::take_written);
    answer(common, &report)
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
