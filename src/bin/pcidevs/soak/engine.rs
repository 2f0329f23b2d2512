//! Devices act, late: DMA that somebody programmed, interrupts that somebody asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pcidevs::platform::Dma;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::party::Party;
use super::statistics::{Dmas, Interrupts, Statistics};
use super::world::{Inside, World};

/// How long it rests, so as not to take the processors from the vCPUs.
const REST: Duration = Duration::from_micros(50);

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        for _ in 0..32 {
            let place = world.any(&mut random);
            if random.random() {
                act(world, place, &mut random, |device, random| {
                    dma(world, device, &mut statistics.dmas, random);
                });
            } else if let Some(life) = world.life(place).filter(|life| life.vector.get() != Party::NOBODY) {
                // Through the attachment: a reference first, and nothing if there is none.
                let reached = act(world, life.place, &mut random, |device, _| {
                    interrupt(world, device, &mut statistics.interrupts);
                });
                statistics.interrupts.skipped += u64::from(!reached);
            }
        }
        std::thread::sleep(REST);
    }
    statistics
}

/// Takes a reference, then the lock; `false` if the device is not there.
fn act(
    world: &World,
    place: usize,
    random: &mut SmallRng,
    action: impl FnOnce(&mut Inside<'_>, &mut SmallRng),
) -> bool {
    let Some(handle) = world.machine().get(world.address(place)) else { return false };
    let Ok(mut device) = handle.lock() else { return false };
    let life = Arc::clone(&device.life);
    // From here on the handle certainly exists, until the subtraction below.
    life.handles.fetch_add(1, Ordering::SeqCst);
    world.check_inside("a device's own act", &device);
    world.check_settled(&device);
    action(&mut device, random);
    if random.random_ratio(1, 16) {
        // Whoever takes the device away meanwhile must wait, or be refused.
        std::thread::yield_now();
        world.check_inside("a device's own act", &device);
    }
    drop(device);
    life.handles.fetch_sub(1, Ordering::SeqCst);
    drop(handle);
    true
}

/// The next DMA of the device lands where the IOMMU says: with who programmed it, or nowhere.
fn dma(world: &World, device: &mut Inside<'_>, dmas: &mut Dmas, random: &mut SmallRng) {
    let (platform, address) = (world.platform(), device.address());
    let Some(dma) = device.next_dma(platform.resets(address)) else { return };
    let requesters = device.requesters();
    let requester = requesters[random.random_range(0..requesters.len())];
    match platform.dma_as(address, requester) {
        // Bus mastering is off: it waits.
        Dma::Silent => return,
        Dma::Blocked | Dma::NoEntry => dmas.blocked += 1,
        Dma::Reaches(owner) => {
            dmas.landed += 1;
            if world.guests().party(owner) != dma.by {
                world.violation_at(
                    address,
                    format_args!("a late DMA of {address} landed with {owner}, who did not program it"),
                );
            }
        }
    }
    device.finish_dma();
}

/// An interrupt lands with who asked for it, who must have the device.
fn interrupt(world: &World, device: &Inside<'_>, interrupts: &mut Interrupts) {
    let party = device.life.vector.get();
    if party == Party::NOBODY {
        interrupts.skipped += 1;
        return;
    }
    interrupts.delivered += 1;
    // A transition may have it in hand that has just broken it.
    let may_be_broken = device.broken().is_some() || device.is_claimed() && world.mishaps().are_possible();
    if !may_be_broken && world.guests().party(device.owner()) != party {
        let (address, owner) = (device.address(), device.owner());
        world.violation_at(
            address,
            format_args!("an interrupt of {address}, which is with {owner}, landed with another"),
        );
    }
}
