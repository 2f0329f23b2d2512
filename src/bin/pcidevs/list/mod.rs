//! `pcidevs list`: a machine's functions, for a person or as JSON.
//!
//! | file | what it does |
//! |---|---|
//! | `known` | the machine in a registry of the core: owners, and who holds what |
//! | `owner` | the owner that a driver stands for |
//! | `view` | the flat table and the tree |
//! | `columns` | what a row shows of a function |
//! | `hierarchy` | what hangs below what |
//! | `names`, `capabilities` | numbers as words |
//! | `table`, `text`, `screen` | lines that fit |
//! | `summary` | totals and warnings |
//! | `json` | what programs read |

mod capabilities;
mod columns;
mod hierarchy;
mod json;
mod known;
mod names;
mod owner;
mod screen;
mod summary;
mod table;
mod text;
mod view;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::source::{Named, Source, fail};
use known::Known;

/// One line a function: address, name, class, driver, IOMMU group, relation (the PF of a VF, the VFs of a PF, the
/// buses behind a bridge), owner (from the driver: quarantine for vfio, stubs and pciback, else the host), who
/// holds references to it, capabilities. "-" is none, "?" is not recorded.
///
/// On a terminal the table is made to fit, and coloured unless NO_COLOR is set; into a pipe or file it is written
/// whole and plain. The environment variable COLUMNS sets the width in any case. Warnings about the source go to
/// stderr; with --json they are part of the output.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Draw what is behind which bridge, and virtual functions below their physical one.
    #[arg(long)]
    tree: bool,
    /// Write JSON for programs, on one line; --tree changes nothing about it.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let machine = match arguments.source.read() {
        Ok(machine) => machine,
        Err(status) => return status,
    };
    match print(arguments, &machine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Whoever reads has seen enough, as `head` has: no error.
fn is_closed(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn print(arguments: &Arguments, Named { machine, name }: &Named) -> Result<(), Box<dyn Error>> {
    if arguments.json {
        let mut out = io::BufWriter::new(io::stdout().lock());
        json::write(machine, &mut out)?;
        out.flush()?;
        return Ok(());
    }
    let known = Known::new(machine)?;
    let view = if arguments.tree { view::tree } else { view::flat };
    let text = view(machine, name, &known, screen::width());
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let mut err = anstream::stderr().lock();
    for warning in summary::warnings(machine) {
        writeln!(err, "{warning}")?;
    }
    Ok(())
}
