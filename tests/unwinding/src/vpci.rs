//! A guest's bus: panics of handlers and of hooks go through the vCPU's thread.

use std::sync::{Arc, Mutex};

use pcidevs::platform::{HookError, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Endpoint, ExtendedRegisters, Function, Layout, MsixPlace, Piece,
    Signals, Target, VectorWork, Wiring,
};
use pcidevs::{DomainId, Member, Owner, Registry, Sbdf};

use crate::machine::Spin;
use crate::panics;

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MEMORY: u32 = 2;
/// MSI-X is the first capability, Advanced Features the second.
const MSIX: u16 = 0x42;
const RESET: u16 = 0x50;
const BASE: u32 = 0xc000_0000;

/// What was done outside, and the hook that panics.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<(Vec<String>, Option<&'static str>)>>);

impl Wires {
    fn hook(&self, what: &str) {
        let mut notes = self.0.lock().expect("not poisoned");
        notes.0.push(what.to_owned());
        let panics = notes.1.take_if(|it| *it == what);
        drop(notes);
        assert!(panics.is_none(), "{what} panics");
    }

    fn explode(&self, what: &'static str) {
        self.0.lock().expect("not poisoned").1 = Some(what);
    }

    fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned").0)
    }
}

impl Wiring for Wires {
    fn map(&self, _: Sbdf, _: &Piece) -> Result<(), HookError> {
        self.hook("map");
        Ok(())
    }

    fn unmap(&self, _: Sbdf, _: &Piece) -> Result<(), HookError> {
        self.hook("unmap");
        Ok(())
    }

    fn vector(&self, _: Target, _: u16, work: VectorWork) -> Result<(), HookError> {
        self.hook(match work {
            VectorWork::Route(_) => "route",
            VectorWork::Unroute => "unroute",
            VectorWork::Send(_) => "send",
        });
        Ok(())
    }

    fn reset(&self, _: Target) -> Result<(), HookError> {
        self.hook("reset");
        Ok(())
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

/// Panics when its first byte is written, or read.
struct Card;

impl Backing for Card {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        assert_ne!(offset, 0, "a device with a fault");
        data.fill(0);
    }

    fn bar_write(&mut self, _: u8, offset: u64, _: &[u8], _: &mut Signals<'_>) {
        assert_ne!(offset, 0, "a device with a fault");
    }
}

type Cards = Registry<Option<Function>, Spin>;
type GuestBus = Bus<Option<Function>, Wires, Spin>;

struct Guest {
    registry: Cards,
    bus: GuestBus,
    wires: Wires,
}

fn card(number: u8) -> Sbdf {
    Sbdf::from_u32(u32::from(number) << 3)
}

impl Guest {
    /// A guest with two cards.
    fn new() -> Self {
        let registry = Cards::new().expect("memory");
        let guest = DomainId::new(1);
        let domain = registry.create_domain(guest).expect("created");
        let wires = Wires::default();
        let bars = BarMap::new(&[AddressRange::memory(0xc000_0000..=0xcfff_ffff)], &[]).expect("memory");
        let layout = Layout { ecam: &[], extended: ExtendedRegisters::Absent, bars };
        let bus = GuestBus::new(domain, wires.clone(), layout).expect("memory");
        for at in [card(1), card(2)] {
            let function = Endpoint::new(1, 2)
                .bar(0, Bar::memory32(0x2000).direct())
                .msix(1, MsixPlace { table_bar: 0, table: 0x1000, pending_bar: 0, pending: 0x1800 })
                .function_level_reset()
                .build(Card)
                .expect("correct");
            registry.add(at, Some(function)).expect("added");
            registry.move_devices(&[Member::at(at, at)], Owner::Guest(guest)).expect("moved");
        }
        Self { registry, bus, wires }
    }

    fn write(&self, at: Sbdf, offset: u16, width: Width, value: u32) {
        assert!(self.bus.config_write(at, offset, width, value).wait());
    }

    fn read(&self, at: Sbdf, offset: u16) -> u32 {
        self.bus.config_read(at, offset, Width::Dword)
    }

    /// Whether a BAR answers there.
    fn answers(&self) -> bool {
        self.bus.vcpu().mmio_read(u64::from(BASE) + 0x1000, &mut [0; 4])
    }
}

#[test]
fn a_panic_in_a_handler_poisons_its_device_and_unlocks_it() {
    let guest = Guest::new();
    panics(|| guest.bus.bar_read(card(1), 0, 0, &mut [0]));
    assert_eq!([card(1), card(2)].map(|at| guest.read(at, 0)), [u32::MAX, 0x0002_0001]);
    panics(|| guest.bus.bar_write(card(2), 0, 0, &[0]));
    assert_eq!(guest.read(card(2), 0), u32::MAX);
    for at in [card(1), card(2)] {
        assert!(guest.registry.lock(at).expect("unlocked").as_ref().expect("bound").is_poisoned());
        guest.registry.move_devices(&[Member::new(at)], Owner::Host).expect("not in use");
        guest.registry.remove_device(at).expect("not in use");
    }
}

#[test]
fn a_panic_in_a_map_leaves_decoding_off_and_can_be_tried_again() {
    let guest = Guest::new();
    guest.write(card(1), BAR0, Width::Dword, BASE);
    guest.wires.explode("map");
    panics(|| guest.write(card(1), COMMAND, Width::Byte, MEMORY));
    assert_eq!(guest.read(card(1), COMMAND) & MEMORY, 0);
    assert!(!guest.answers(), "it does not show, so it does not answer");
    guest.write(card(1), BAR0, Width::Dword, BASE + 0x10_0000);
    guest.write(card(1), BAR0, Width::Dword, BASE);
    guest.write(card(1), COMMAND, Width::Byte, MEMORY);
    assert_eq!(guest.read(card(1), COMMAND) & MEMORY, MEMORY);
    assert!(guest.answers());
    guest.write(card(1), COMMAND, Width::Byte, 0);
    assert_eq!(guest.wires.story().last().map(String::as_str), Some("unmap"));
    assert!(!guest.answers());
}

#[test]
fn a_panic_in_an_unmap_leaves_decoding_on_and_can_be_tried_again() {
    let guest = Guest::new();
    guest.write(card(1), BAR0, Width::Dword, BASE);
    guest.write(card(1), COMMAND, Width::Byte, MEMORY);
    guest.wires.explode("unmap");
    panics(|| guest.write(card(1), COMMAND, Width::Byte, 0));
    assert_eq!(guest.read(card(1), COMMAND) & MEMORY, MEMORY, "it may be mapped still");
    guest.write(card(1), COMMAND, Width::Byte, 0);
    assert_eq!(guest.read(card(1), COMMAND) & MEMORY, 0);
    // Another device is not in the way of anything.
    guest.write(card(2), BAR0, Width::Dword, BASE);
    guest.write(card(2), COMMAND, Width::Byte, MEMORY);
    assert!(guest.answers());
}

#[test]
fn a_panic_in_a_route_or_a_reset_ends_its_effect() {
    let guest = Guest::new();
    guest.write(card(1), BAR0, Width::Dword, BASE);
    for (offset, value) in [(0, 0xfee0_0000_u32), (12, 0)] {
        assert!(guest.bus.bar_write(card(1), 0, 0x1000 + offset, &value.to_le_bytes()).wait());
    }
    guest.wires.explode("route");
    panics(|| guest.write(card(1), MSIX, Width::Word, 1 << 15));
    guest.wires.explode("reset");
    panics(|| guest.write(card(1), RESET, Width::Byte, 1));
    assert_eq!(guest.read(card(1), BAR0), BASE, "the reset has failed, and changes nothing");
    guest.wires.story();
    guest.write(card(1), MSIX, Width::Word, 0);
    assert_eq!(guest.wires.story(), ["unroute"], "it may have been routed; and the reset is not tried again");
    guest.write(card(1), RESET, Width::Byte, 1);
    assert_eq!(guest.read(card(1), BAR0), 0);
}
