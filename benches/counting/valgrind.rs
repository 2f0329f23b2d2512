//! This program, run again under one of valgrind's tools.

use std::process::{Command, Stdio};

/// Whether valgrind is there to be run.
pub(crate) fn is_installed() -> bool {
    let asked =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// This program under a tool, with other arguments.
pub(crate) fn this_program(tool: &[&str], arguments: &[&str]) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let mut command = Command::new("valgrind");
    command.args(tool).arg(program).args(arguments).stdin(Stdio::null());
    // The dynamic linker would otherwise look a function up when it is first called.
    command.env("LD_BIND_NOW", "1");
    Ok(command)
}

/// The instructions that this program executes with these arguments, from its start to its end.
pub(crate) fn instructions(arguments: &[&str]) -> Result<u64, String> {
    let callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let output = this_program(&callgrind, arguments)?
        .stdout(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{arguments:?} failed under valgrind:\n{said}"));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind said nothing of instructions:\n{said}"))
}
