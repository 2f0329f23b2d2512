//! A small VMM: devices of its own behind a guest's PCI bus, on KVM.
//!
//! The guest is real: it starts in real mode, finds its devices through CF8 and CFC, sizes and maps BARs, sets up MSI-X,
//! and is interrupted through irqfds. Meanwhile the VMM takes a device away under it, and plugs it in again.
//!
//! ```text
//! cargo run --example kvm_vmm                      the story; every step is checked
//! cargo run --example kvm_vmm -- --stand-in        the same without KVM
//! cargo run --release --example kvm_vmm -- --rate  exits per second, beside those of an empty handler
//! ```
//!
//! | file | what an embedder may want of it |
//! |---|---|
//! | `devices` | two devices that are all software |
//! | `platform` | the platform of a VMM that has no other devices |
//! | `wiring` | interrupts as irqfds, BARs as memory slots |
//! | `exits` | from an exit to the bus |
//! | `hypervisor`, `kvm`, `memory` | what runs the guest |
//! | `story` | the VMM's side, and all checks |
//! | `program`, `guest`, `notes`, `assembler` | the guest |
//! | `stand_in` | the guest where there is no KVM |
//! | `rate` | the measurement |

mod assembler;
mod devices;
mod exits;
mod guest;
mod hypervisor;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;
mod memory;
mod notes;
mod platform;
mod program;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod rate;
mod stand_in;
mod story;
mod wiring;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use exits::Exits;
use stand_in::StandIn;
use story::{Checked, Story};

/// What settles the ratio of the rates to a percent.
const ROUNDS: u32 = 2_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] => on_kvm(),
        ["--stand-in"] => on_stand_in(),
        ["--rate"] => rate(ROUNDS),
        ["--rate", rounds] => match rounds.parse() {
            Ok(rounds) if rounds > 0 => rate(rounds),
            _ => Err(format!("{rounds} is no number of rounds")),
        },
        _ => Err("there are: no argument, --stand-in, --rate [ROUNDS]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The guest may run on: it ends with the process.
            eprintln!("not as promised: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn on_kvm() -> Checked {
    match kvm::Machine::new(&guest::program()) {
        Ok((machine, mut cpu)) => {
            println!("a real guest, on KVM");
            let (story, panel) = Story::new(Arc::new(machine))?;
            let mut exits = Exits::new(story.bus().vcpu(), panel);
            tell(story, move || cpu.run(&mut exits))
        }
        Err(why) => skipped(&why),
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn on_kvm() -> Checked {
    skipped("no KVM on this system")
}

fn skipped(why: &str) -> Checked {
    println!("skipped: {why}; a stand-in for the guest drives the same accesses");
    on_stand_in()
}

fn on_stand_in() -> Checked {
    let stand_in = Arc::new(StandIn::default());
    let (story, panel) = Story::new(stand_in.clone())?;
    let mut exits = Exits::new(story.bus().vcpu(), panel);
    tell(story, move || stand_in::run(&stand_in, &guest::program(), &mut exits))
}

/// Runs the guest on a thread of its own, and the VMM here.
fn tell(story: Story, run: impl FnOnce() -> Checked + Send + 'static) -> Checked {
    let guest = thread::spawn(run);
    let told = story.tell();
    if told.is_ok() || guest.is_finished() {
        // Why the guest has ended says more than what it did not say.
        guest.join().map_err(|_| "the vCPU's thread panicked")??;
    }
    told?;
    story.end()?;
    println!("all as promised");
    Ok(())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn rate(rounds: u32) -> Checked {
    rate::measure(rounds)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn rate(_: u32) -> Checked {
    println!("skipped: no KVM on this system");
    Ok(())
}
