//! Exits per second: a guest that reads configuration space in a loop, with the bus behind its exits and with nothing
//! behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guest;
use super::kvm::{Cpu, Machine};
use super::platform::GuestVcpu;
use super::stand_in::StandIn;
use super::story::{Checked, Story};

/// Of one run.
const EXITS: u32 = 4_000;

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
    let mut ratios = Vec::new();
    let (mut all_with, mut all_without) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let first = with_bus(&mut cpu, &mut vcpu)?;
        let without = empty(&mut cpu)? + empty(&mut cpu)?;
        let with = first + with_bus(&mut cpu, &mut vcpu)?;
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
        all_with += with;
        all_without += without;
    }
    ratios.sort_by(f64::total_cmp);
    let exits = f64::from(2 * EXITS) * f64::from(rounds);
    println!("configuration reads through CF8 and CFC: {:.0} exits/s", exits / all_with.as_secs_f64());
    println!("the same guest, an empty handler: {:.0} exits/s", exits / all_without.as_secs_f64());
    let of = |part: usize| ratios[(ratios.len() - 1) * part / 4];
    println!(
        "time with / without, median of {rounds} rounds: {:.4} (quartiles {:.4} to {:.4})",
        of(2),
        of(1),
        of(3)
    );
    Ok(())
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
