//! A vCPU: configuration space by guest address, as fast as it can.

use std::time::Instant;

use pcidevs::{AccessError, Domain, Owner, Sbdf};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::model::Model;
use super::statistics::Statistics;
use super::world::World;

/// Accesses between two looks at everything else.
const BURST: u32 = 256;
/// One access in so many is timed.
const TIMED: u32 = 16;

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        let guest = &world.guests()[random.random_range(0..world.guests().len())];
        for number in 0..BURST {
            let at = guest_address(world, &mut random);
            let begun = (number % TIMED == 0).then(Instant::now);
            let hit = access(world, guest, at, &mut random);
            if let Some(begun) = begun {
                statistics
                    .latency
                    .saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            statistics.hits += u64::from(hit);
        }
        statistics.accesses += u64::from(BURST);
        world.count_accesses(BURST.into());
        check_bundle(world, guest);
    }
    statistics
}

/// Guests hand out their lowest addresses first: some of these are taken, some are free.
fn guest_address(world: &World, random: &mut SmallRng) -> Sbdf {
    let places = u16::try_from(2 * world.functions() / world.guests().len() + 2).unwrap_or(u16::MAX);
    let place = random.random_range(0..places.min(256 * 32));
    Sbdf::from_bdf(pcidevs::address::Segment::default(), place << 3)
}

/// One access; `true` if a device answered.
fn access(world: &World, guest: &Domain<Model>, at: Sbdf, random: &mut SmallRng) -> bool {
    let mut device = match guest.lock(at) {
        Ok(device) => device,
        Err(AccessError::NotFound) => return false,
        Err(error) => {
            world.violation(format_args!("an access by guest address: {error}"));
            return false;
        }
    };
    let owner = Owner::Guest(guest.id());
    world.check_inside("an access", &device, owner);
    let offset = random.random_range(0..64_usize) * 4;
    if random.random_ratio(1, 4) {
        let value = random.random();
        device.write(offset, value);
        if device.read(offset) != value && offset + 4 <= device.config.len() {
            world.violation(format_args!("{} does not read what was written", device.address()));
        }
    } else {
        std::hint::black_box(device.read(offset));
    }
    if random.random_ratio(1, 128) {
        // A slow handler: whoever takes the device away meanwhile must wait for it, or be refused.
        std::thread::yield_now();
    }
    world.check_inside("an access", &device, owner);
    true
}

/// Devices that move together are all with a guest or none is, for who lists them and for who reaches one.
fn check_bundle(world: &World, guest: &Domain<Model>) {
    let bundle = world.bundle();
    let Ok(devices) = guest.devices() else { return };
    let listed = devices.iter().filter(|device| bundle.contains(&world.place(device.address()))).count();
    if listed != 0 && listed != bundle.len() {
        world.violation(format_args!("domain {} lists {listed} of a set of {}", guest.id(), bundle.len()));
    }
}
