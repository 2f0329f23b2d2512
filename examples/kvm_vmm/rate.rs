//! Exits per second: a guest that reads configuration space in a loop, with the bus behind its exits and with nothing
//! behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guest;
use super::kvm::{Cpu, Machine};
use super::platform::GuestVcpu;
use super::stand_in::StandIn;
use super::story::{Checked, Story};

/// Of one run: few, so that on a busy machine many runs are not interrupted.
const EXITS: u32 = 100;

/// Prints both rates and their ratio. A round is two runs of each kind, in an order that a drift does not favour.
pub(crate) fn measure(rounds: u32) -> Checked {
    let (_machine, mut cpu) = match Machine::new(&guest::reader()) {
        Ok(machine) => machine,
        Err(why) => {
            println!("skipped: {why}");
            return Ok(());
        }
    };
    // What is behind the devices is not looked at here.
    let (story, _panel) = Story::new(Arc::new(StandIn::default()))?;
    let mut vcpu = story.bus().vcpu();
    with_bus(&mut cpu, &mut vcpu)?;
    let (mut all_with, mut all_without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        all_with.push(with_bus(&mut cpu, &mut vcpu)?);
        all_without.extend([empty(&mut cpu)?, empty(&mut cpu)?]);
        all_with.push(with_bus(&mut cpu, &mut vcpu)?);
    }
    let (with, without) = (undisturbed(all_with), undisturbed(all_without));
    println!("configuration reads through CF8 and CFC: {:.0} exits/s", f64::from(EXITS) / with);
    println!("the same guest, an empty handler: {:.0} exits/s", f64::from(EXITS) / without);
    println!(
        "time with / without: {:.4} ({rounds} rounds, the lower quartiles of their runs)",
        with / without
    );
    Ok(())
}

/// What a run takes that nobody has interrupted: their lower quartile, in seconds.
fn undisturbed(mut runs: Vec<Duration>) -> f64 {
    runs.sort();
    runs.get(runs.len() / 4).map_or(f64::NAN, Duration::as_secs_f64)
}

fn with_bus(cpu: &mut Cpu, vcpu: &mut GuestVcpu) -> Checked<Duration> {
    let vcpu = std::cell::RefCell::new(vcpu);
    let start = Instant::now();
    cpu.run_ports(
        EXITS,
        |port, data| {
            if !vcpu.borrow_mut().io_read(port, data) {
                data.fill(0xff);
            }
        },
        |port, data| {
            let _is_pci = vcpu.borrow_mut().io_write(port, data).wait();
        },
    )?;
    Ok(start.elapsed())
}

fn empty(cpu: &mut Cpu) -> Checked<Duration> {
    let start = Instant::now();
    cpu.run_ports(EXITS, |_, _| {}, |_, _| {})?;
    Ok(start.elapsed())
}
