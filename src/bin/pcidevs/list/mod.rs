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

/// What the columns mean.
const HELP: &str = "\
One line a function. RELATION: the physical function of a virtual one, how many of its virtual functions a
physical one has, the buses behind a bridge. OWNER follows from the driver: quarantine for vfio, stubs and
pciback, else the host. HELD BY: who holds references, so that a removal would be refused. \"-\" is none, \"?\" is
not recorded; a column with nothing in it is left out.

On a terminal the table is made to fit, and coloured unless NO_COLOR is set; into a pipe or a file it is written
whole and plain. The environment variable COLUMNS sets the width in any case. What is wrong with the source is
said on stderr; with --json it is part of the output.";

/// The options of `list`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
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
