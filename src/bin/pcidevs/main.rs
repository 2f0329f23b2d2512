//! The command `pcidevs`: shows a machine's PCI functions, tries the core on them, and moves real ones.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod host;
mod list;
mod soak;
mod source;
#[cfg(target_os = "linux")]
mod xen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// PCI devices between a host and its guests: who they are, whose they are, and how they move.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a machine's PCI functions.
    List(list::Arguments),
    /// Put a machine's functions under a storm of accesses, removals and moves, and check every promise.
    Soak(soak::Arguments),
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    Host(host::Command),
    /// Give devices to Xen's guests, and take them back.
    #[cfg(target_os = "linux")]
    Xen(xen::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List(arguments) => list::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Host(command) => host::run(&command),
        #[cfg(target_os = "linux")]
        Command::Xen(arguments) => xen::run(&arguments),
    }
}
