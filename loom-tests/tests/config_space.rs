//! What vCPUs do to the configuration space of one guest at once (L23): the last decode state wins in the mapping too;
//! one step of a guest's mapping at a time; a BAR is found where it is or was, and nowhere else.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use loom::thread;
use pcidevs::platform::{HookError, Switch, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Endpoint, ExtendedRegisters, Function, Layout, Piece, Signals,
    Target, VectorWork, Wiring, Written,
};
use pcidevs::{Member, Owner, Registry, Sbdf};
use pcidevs_loom::cards::{PLACES, World};
use pcidevs_loom::{GUEST, ONE, TWO, Unlocked, explore};

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MEMORY: u32 = 2;
const MASTER: u32 = 4;
const BASE: u64 = 0xc000_0000;
/// Mapped where nobody covers it.
const DIRECT: Bar = Bar::memory32(0x1000).direct();

type Cards = Registry<Option<Function>>;
type GuestBus = Bus<Option<Function>, Cable>;

/// What is mapped, as the embedder knows it: a bit for each device. loom must not explore it; that the steps are
/// ordered it does check.
struct Outside {
    mapped: AtomicU32,
    was_mapped: AtomicBool,
    steps: Unlocked,
}

#[derive(Clone)]
struct Cable(Arc<Outside>);

impl Cable {
    fn new() -> Self {
        Self(Arc::new(Outside {
            mapped: AtomicU32::new(0),
            was_mapped: AtomicBool::new(false),
            steps: Unlocked::new(0),
        }))
    }

    fn is_mapped(&self, device: Sbdf) -> bool {
        self.0.mapped.load(Ordering::Relaxed) & bit(device) != 0
    }
}

fn bit(device: Sbdf) -> u32 {
    1 << device.device()
}

impl Wiring for Cable {
    fn map(&self, device: Sbdf, _: &Piece) -> Result<(), HookError> {
        self.0.steps.set(1);
        assert!(!self.is_mapped(device), "mapped twice");
        self.0.mapped.fetch_or(bit(device), Ordering::Relaxed);
        self.0.was_mapped.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn unmap(&self, device: Sbdf, _: &Piece) -> Result<(), HookError> {
        self.0.steps.set(1);
        assert!(self.is_mapped(device), "unmapped, and was not mapped");
        self.0.mapped.fetch_and(!bit(device), Ordering::Relaxed);
        Ok(())
    }

    fn vector(&self, _: Target, _: u16, _: VectorWork) -> Result<(), HookError> {
        Ok(())
    }

    fn bus_master(&self, _: Target, _: Switch) -> Result<(), HookError> {
        self.0.steps.set(1);
        Ok(())
    }

    fn failed(&self, target: Target, error: HookError) {
        panic!("{target:?}: {error}");
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

/// A device that reads as its own number and the offset.
struct Card(u8);

impl Backing for Card {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&[self.0, offset.to_le_bytes()[1] >> 4, 0, 0]);
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

/// A guest with these devices, whose BARs begin there; it sees them where they are.
fn guest(cards: &[(Sbdf, u64, Bar)]) -> (Cards, GuestBus, Cable) {
    let registry = Cards::new().expect("memory");
    let domain = registry.create_domain(GUEST).expect("created");
    for (at, base, bar) in cards {
        let card = Endpoint::new(1, 2).bar(0, *bar);
        let function = card.build(Card(at.device())).expect("correct");
        registry.add(*at, Some(function)).expect("added");
        registry.move_devices(&[Member::at(*at, *at)], Owner::Guest(GUEST)).expect("moved");
        let mut device = registry.lock(*at).expect("there");
        let base = u32::try_from(*base).expect("32 bits");
        let _nothing = device.as_mut().expect("it has one").config_write(BAR0, Width::Dword, base);
    }
    let cable = Cable::new();
    let bars = BarMap::new(&[AddressRange::memory(BASE..=BASE + 0xffff)], &[]).expect("memory");
    let layout = Layout { ecam: &[], extended: ExtendedRegisters::Absent, bars };
    let bus = Bus::new(domain, cable.clone(), layout).expect("memory");
    (registry, bus, cable)
}

fn decode(bus: &GuestBus, at: Sbdf, command: u32) -> Written<Option<Function>, Cable, pcidevs::DefaultLock> {
    bus.config_write(at, COMMAND, Width::Byte, command)
}

fn is_decoding(bus: &GuestBus, at: Sbdf) -> bool {
    bus.config_read(at, COMMAND, Width::Byte) & MEMORY != 0
}

#[test]
fn l23_decode_on_and_decode_off() {
    explore(Some(3), || {
        let (_registry, bus, cable) = guest(&[(ONE, BASE, DIRECT)]);
        let on = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, MEMORY).wait())
        };
        let off = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, 0).wait())
        };
        // Unmapped it may be again by now.
        if is_decoding(&bus, ONE) {
            assert!(cable.0.was_mapped.load(Ordering::Relaxed), "it shows and was not mapped");
        }
        on.join().unwrap();
        off.join().unwrap();
        assert_eq!(
            is_decoding(&bus, ONE),
            cable.is_mapped(ONE),
            "the last decode state wins in the mapping too"
        );
        decode(&bus, ONE, 0).wait();
        assert!(!cable.is_mapped(ONE) && !is_decoding(&bus, ONE));
    });
}

#[test]
fn l23_one_hook_at_a_time_for_a_device() {
    explore(Some(2), || {
        let (_registry, bus, cable) = guest(&[(ONE, BASE, DIRECT)]);
        let other = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, MEMORY | MASTER).wait())
        };
        // That no two of their hooks meet `steps` sees.
        decode(&bus, ONE, MEMORY).wait();
        other.join().unwrap();
        assert!(cable.is_mapped(ONE) && is_decoding(&bus, ONE));
    });
}

#[test]
fn l23_decode_and_a_device_taken_away() {
    explore(Some(3), || {
        let (registry, bus, cable) = guest(&[(ONE, BASE, DIRECT)]);
        let on = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, MEMORY).wait())
        };
        let home = registry.move_devices(&[Member::new(ONE)], Owner::Host);
        let removed = home.is_ok() && registry.remove_device(ONE).is_ok();
        on.join().unwrap();
        if removed {
            // An effect keeps the device, so none was under way, and none begins afterwards.
            assert_eq!(bus.config_read(ONE, COMMAND, Width::Byte), 0xff);
        } else {
            let shown = registry
                .lock(ONE)
                .expect("still there")
                .as_mut()
                .map_or(0, |function| function.config_read(COMMAND, Width::Byte));
            assert_eq!(shown & MEMORY != 0, cable.is_mapped(ONE));
        }
    });
}

#[test]
fn l23_two_devices_one_over_the_other() {
    explore(Some(2), || {
        let (_registry, bus, cable) = guest(&[(ONE, BASE, DIRECT), (TWO, BASE, DIRECT)]);
        decode(&bus, ONE, MEMORY).wait();
        let off = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, 0).wait())
        };
        decode(&bus, TWO, MEMORY).wait();
        off.join().unwrap();
        assert!(!cable.is_mapped(ONE) && cable.is_mapped(TWO), "what was covered has appeared");
    });
}

#[test]
fn a_bar_is_found_where_it_is_or_was() {
    explore(Some(2), || {
        // The second begins lower, so that its offsets are others.
        let (_registry, bus, _) =
            guest(&[(ONE, BASE + 0x1000, Bar::memory32(0x1000)), (TWO, BASE, Bar::memory32(0x2000))]);
        decode(&bus, ONE, MEMORY).wait();
        decode(&bus, TWO, MEMORY).wait();
        let off = {
            let bus = bus.clone();
            thread::spawn(move || decode(&bus, ONE, 0).wait())
        };
        let mut vcpu = bus.vcpu();
        for _ in 0..2 {
            let mut data = [0; 4];
            assert!(vcpu.mmio_read(BASE + 0x1000, &mut data), "one of the two is always there");
            assert!([[0, 0, 0, 0], [1, 1, 0, 0]].contains(&data), "{data:?}");
        }
        off.join().unwrap();
        let mut data = [0; 4];
        assert!(vcpu.mmio_read(BASE + 0x1000, &mut data));
        assert_eq!(data, [1, 1, 0, 0], "a remembered route is not used for ever");
    });
}

#[test]
fn l23_the_end_of_a_binding_waits_for_the_effect_under_way() {
    explore(Some(2), || {
        let world = World::begin();
        world.write(BAR0, Width::Dword, PLACES[0]);
        let vcpu = {
            let world = world.clone();
            thread::spawn(move || world.write(COMMAND, Width::Byte, MEMORY))
        };
        world.deassign().expect("nothing is in its way");
        vcpu.join().unwrap();
        world.settled();
    });
}
