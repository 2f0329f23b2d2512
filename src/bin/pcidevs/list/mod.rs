//! .
use crate::source::Source;
use std::process::ExitCode;
/// .
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
}
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let _ = arguments.source.read().map(|n| (n.machine, n.name));
    ExitCode::SUCCESS
}
