//! Where a machine is read from: the file or folder named, the live host, or the bundled recording.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pcidevs::topology::{Machine, ReadError};

/// The exit status of a command that could not begin.
const CANNOT_BEGIN: u8 = 2;

/// The option that names a machine.
#[derive(clap::Args)]
pub(crate) struct Source {
    /// The machine: a sysfs tree (a folder, or a tar, tar.gz or tar.xz of one) or the text of `lspci -nn -vvv
    /// -xxxx`. The live host if left out, the bundled emulated machine if the host has no PCI.
    #[arg(long, value_name = "SOURCE")]
    from: Option<PathBuf>,
}

/// A machine, and what to call it.
pub(crate) struct Named {
    pub(crate) machine: Machine,
    pub(crate) name: String,
}

impl Source {
    /// Reads the machine. What cannot be read is one line on stderr, and the exit status to leave with.
    pub(crate) fn read(&self) -> Result<Named, ExitCode> {
        match &self.from {
            Some(path) => named(path),
            None => live_or_bundled(),
        }
    }
}

fn named(path: &Path) -> Result<Named, ExitCode> {
    let machine = Machine::read(path).map_err(|error| fail(&error))?;
    Ok(Named { machine, name: path.display().to_string() })
}

fn live_or_bundled() -> Result<Named, ExitCode> {
    let (machine, name) = match Machine::read_live() {
        Ok(machine) => (Ok(machine), "this host"),
        Err(ReadError::NoPciHere) => (Machine::bundled(), "the bundled machine, recorded in QEMU"),
        Err(error) => (Err(error), ""),
    };
    Ok(Named { machine: machine.map_err(|error| fail(&error))?, name: name.to_owned() })
}

/// Says on stderr why the command cannot go on.
pub(crate) fn fail(error: &dyn Display) -> ExitCode {
    // Nobody may be listening: then the exit status has to do.
    let _ = writeln!(std::io::stderr(), "pcidevs: {error}");
    ExitCode::from(CANNOT_BEGIN)
}
