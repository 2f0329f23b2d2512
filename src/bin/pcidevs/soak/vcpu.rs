//! A vCPU: configuration space by guest address, or the host's own, as fast as it can.

use std::time::Instant;

use pcidevs::platform::{AttachmentKind, Platform, Width};
use pcidevs::{AccessError, DomainId, Owner, Sbdf};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::binding::Vector;
use super::life::Dma;
use super::party::Party;
use super::statistics::Statistics;
use super::world::{Domain, Inside, World};

/// Accesses between two looks at everything else.
const BURST: u32 = 256;
/// One access in so many is timed.
const TIMED: u32 = 16;

const COMMAND: u16 = 0x04;
const MEMORY_AND_MASTER: u32 = 0x0006;
const FIRST_BAR: u16 = 0x10;

pub(crate) fn run(world: &World, seed: u64) -> Statistics {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut statistics = Statistics::default();
    while world.runs() {
        if random.random_ratio(1, 4) {
            burst(world, &mut statistics, || host_access(world, &mut random));
        } else {
            let id = world.any_guest(&mut random);
            let Some((party, guest)) = world.enter(id) else { continue };
            burst(world, &mut statistics, || guest_access(world, &guest, party, &mut random));
            check_bundle(world, &guest, id, party);
        }
    }
    statistics
}

fn burst(world: &World, statistics: &mut Statistics, mut access: impl FnMut() -> bool) {
    for number in 0..BURST {
        let begun = (number % TIMED == 0).then(Instant::now);
        statistics.hits += u64::from(access());
        if let Some(begun) = begun {
            let elapsed = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            statistics.latency.saturating_record(elapsed);
        }
    }
    statistics.accesses += u64::from(BURST);
    world.count_accesses(BURST.into());
}

/// Guests hand out their lowest addresses first: some of these are taken, some are free.
fn guest_address(world: &World, random: &mut SmallRng) -> Sbdf {
    let places = 2 * world.plan().len() / world.guests().len() as usize + 2;
    let place = random.random_range(0..u16::try_from(places).unwrap_or(u16::MAX).min(256 * 32));
    Sbdf::from_bdf(pcidevs::address::Segment::default(), place << 3)
}

/// One access of a guest; `true` if a device answered.
fn guest_access(world: &World, guest: &Domain, party: Party, random: &mut SmallRng) -> bool {
    match guest.lock(guest_address(world, random)) {
        Ok(mut device) => inside(world, &mut device, Owner::Guest(guest.id()), party, random),
        Err(AccessError::NotFound) => false,
        Err(error) => {
            world.violation(format_args!("an access by guest address: {error}"));
            false
        }
    }
}

/// One access of the host, which reaches what is its own.
fn host_access(world: &World, random: &mut SmallRng) -> bool {
    let device = world.machine().lock(world.address(world.any(random)));
    let Ok(mut device) = device else { return false };
    device.owner() == Owner::Host && inside(world, &mut device, Owner::Host, Party::HOST, random)
}

fn inside(world: &World, device: &mut Inside<'_>, owner: Owner, party: Party, random: &mut SmallRng) -> bool {
    if !world.check_access(device, owner, party) {
        return false;
    }
    match random.random_range(0..32) {
        0..4 => write(world, device, random.random()),
        4..8 => program(world, device, party),
        8 => toggle_vector(world, device, party),
        _ => {
            let offset = random.random_range(0..64) * 4;
            std::hint::black_box(world.platform().config_read(device.address(), offset, Width::Dword));
        }
    }
    if random.random_ratio(1, 128) {
        // A slow handler: whoever takes the device away meanwhile must wait for it, or be refused.
        std::thread::yield_now();
    }
    // The view may not end while its owner is inside.
    world.check_access(device, owner, party)
}

fn write(world: &World, device: &Inside<'_>, value: u32) {
    let (platform, address) = (world.platform(), device.address());
    platform.config_write(address, FIRST_BAR, Width::Dword, value);
    if platform.config_read(address, FIRST_BAR, Width::Dword) != value && !device.life.is_pulled() {
        world.violation_at(address, format_args!("{address} does not read what was written"));
    }
}

/// Switches bus mastering on and has the device do a DMA, some time.
fn program(world: &World, device: &mut Inside<'_>, party: Party) {
    let (platform, address) = (world.platform(), device.address());
    if world.plan().at(device.life.place).bridge {
        return;
    }
    platform.config_write(address, COMMAND, Width::Word, MEMORY_AND_MASTER);
    device.program(Dma { by: party, resets: platform.resets(address) });
}

/// Sets up an interrupt vector, or gives it back.
fn toggle_vector(world: &World, device: &mut Inside<'_>, party: Party) {
    if device.life.vector.get() == Party::NOBODY {
        let vector = Vector { party, mishaps: world.mishaps().clone() };
        if device.attach(Box::new(vector)).is_ok() {
            device.life.vector.set(party);
        }
    } else if device.detach(|attachment| attachment.kind() == AttachmentKind::MsiVector).is_some() {
        device.life.vector.set(Party::NOBODY);
    }
}

/// Devices that move together are all with a guest or none is, unless they had to leave it one by one.
fn check_bundle(world: &World, guest: &Domain, id: DomainId, party: Party) {
    let bundle = world.plan().bundle();
    let epoch = world.bundle_epoch();
    let Ok(devices) = guest.devices() else { return };
    let is_member = |address| world.plan().find(address).is_some_and(|place| bundle.contains(&place));
    let listed = devices.iter().filter(|device| is_member(device.address())).count();
    if listed == 0 || listed == bundle.len() {
        return;
    }
    // A transition that has one of them in hand may have just broken it.
    let is_broken = |place: &usize| {
        let device = world.machine().lock(world.address(*place));
        let may_break = world.mishaps().are_possible();
        device.is_ok_and(|device| device.broken().is_some() || may_break && device.is_claimed())
    };
    let excused = bundle.iter().any(is_broken)
        || epoch % 2 == 1
        || world.bundle_epoch() != epoch
        || world.guests().is_dying(id)
        || world.guests().party(Owner::Guest(id)) != party;
    if !excused {
        world.violation(format_args!("domain {id} lists {listed} of a set of {}", bundle.len()));
    }
}
