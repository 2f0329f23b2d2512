//! What is done outside fails, or panics: what the model says then, and what is tried again.

use std::sync::{Arc, OnceLock};

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::platform::{HookError, Switch, Width};
use pcidevs::vpci::{
    Backing, Bar, Bus, Endpoint, Function, MsixPlace, PassThrough, Piece, Signals, Target, VectorWork,
    Viewer, Wiring,
};
use pcidevs::{Member, Owner, Sbdf};

use crate::guest::{Guest, Memory, layout, load, nic};
use crate::hardware::Hardware;
use crate::recordings::Config;

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MEMORY: u32 = 2;

/// Hardware that panics when its decoding is switched on.
struct Trap(Hardware);

impl Backing for Trap {
    fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {}

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}

    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.0.config_read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        assert!(offset != COMMAND || value & MEMORY == 0, "a trap");
        self.0.config_write(offset, width, value);
    }
}

#[test]
fn hardware_that_panics_in_an_effect_poisons_its_function_only() {
    let config = Config::endpoint(256).with32(BAR0.into(), 0xfe00_0000);
    // With a BAR it panics when that is mapped, without one before anything was begun.
    for hardware in [Hardware::new(&config).bar(BAR0, 0x1000), Hardware::new(&config)] {
        let guest = Guest::new();
        let function = PassThrough::new(Viewer::Guest).build(Trap(hardware)).unwrap();
        let bad = guest.plug("00:01.0", function);
        let good = guest.plug("00:02.0", nic().build(Memory::new(0x4000)).unwrap());
        guest.write(bad, BAR0, Dword, 0xc000_0000);
        guest.write(bad, COMMAND, Word, MEMORY);
        assert_eq!(guest.read(bad, 0, Dword), u32::MAX);
        guest.write(bad, COMMAND, Word, 0);
        assert_eq!(guest.read(good, 0, Dword), 0x1041_1af4);
        let own: Sbdf = "80:01.0".parse().unwrap();
        assert!(guest.registry.lock(own).unwrap().as_ref().unwrap().is_poisoned());
        guest.registry.move_devices(&[Member::new(own)], Owner::Host).unwrap();
        guest.registry.remove_device(own).unwrap();
    }
}

#[test]
fn a_pin_that_could_not_be_lowered_is_lowered_by_a_reset() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().function_level_reset().build(Memory::new(0x4000)).unwrap());
    assert!(guest.bus.bar_write(at, 0, 1, &[1]).wait());
    guest.wiring.fail("intx");
    assert!(guest.bus.bar_write(at, 0, 1, &[0]).wait());
    guest.wiring.fail(None);
    let story = ["intx High", "intx Low", "failed 0000:80:03.0: told to fail"];
    assert_eq!(guest.wiring.story(), story);
    // Advanced Features, behind MSI-X.
    guest.write(at, 0x50, Byte, 1);
    assert_eq!(guest.wiring.story(), ["reset", "intx Low"]);
}

#[test]
fn what_could_not_be_unmapped_is_tried_again_when_the_guest_does() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    guest.wiring.fail("unmap");
    guest.write(at, COMMAND, Word, 0);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY, "it is still there");
    guest.wiring.fail(None);
    guest.wiring.story();
    guest.write(at, COMMAND, Word, 0);
    assert_eq!(guest.wiring.story(), ["unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(guest.read(at, COMMAND, Word), 0);
}

#[test]
fn a_bar_that_a_reset_could_not_unmap_is_not_in_the_way_of_the_others() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2).function_level_reset();
    let device = device.bar(0, Bar::memory32(0x1000).direct()).bar(1, Bar::memory32(0x1000).direct());
    let at = guest.plug("00:03.0", device.build(Memory::new(0x1000)).unwrap());
    let program = || {
        guest.write(at, BAR0, Dword, 0xc000_0000);
        guest.write(at, BAR0 + 4, Dword, 0xc000_1000);
        guest.write(at, COMMAND, Word, MEMORY);
    };
    program();
    guest.wiring.fail("unmap 0000:80:03.0.0");
    guest.write(at, 0x44, Word, 1);
    assert!(guest.wiring.story().contains(&"unmap 0000:80:03.0.1 +0x0 at 0xc0001000 for 0x1000".into()));
    guest.wiring.fail(None);
    program();
    let story = guest.wiring.story();
    assert!(story.contains(&"map 0000:80:03.0.1 +0x0 at 0xc0001000 for 0x1000".into()), "{story:?}");
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_1000, 1), Some(0));
    // The other one with the next turn.
    guest.write(at, COMMAND, Word, 0);
    guest.write(at, BAR0, Dword, 0xc000_2000);
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_2000, 1), Some(0));
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_0000, 1), None);
}

#[test]
fn a_failure_that_was_reported_is_not_reported_with_the_next_change() {
    let guest = Guest::new();
    let device = || Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000).direct()).bar(1, Bar::io(16));
    let [first, second] =
        ["00:01.0", "00:02.0"].map(|at| guest.plug(at, device().build(Memory::new(0x1000)).unwrap()));
    for (at, ports) in [(first, 0x1000), (second, 0x2000)] {
        guest.write(at, BAR0, Dword, 0xc000_0000);
        guest.write(at, BAR0 + 4, Dword, ports);
        guest.write(at, COMMAND, Word, 3);
    }
    guest.wiring.fail("map 0000:80:02");
    guest.write(first, COMMAND, Word, 0);
    assert!(guest.wiring.story().contains(&"failed 0000:80:02.0: told to fail".into()));
    guest.wiring.fail(None);
    guest.write(second, COMMAND, Word, MEMORY);
    let story = guest.wiring.story();
    assert!(!story.iter().any(|line| line.starts_with("failed")), "{story:?}");
    assert_eq!(guest.read(second, COMMAND, Word), MEMORY);
}

/// A wiring whose first map turns the decoding of another device off, which would wait for that map.
#[derive(Clone, Default)]
struct Tangled(Arc<OnceLock<Bus<Option<Function>, Tangled>>>);

impl Wiring for Tangled {
    fn map(&self, _: Sbdf, _: &Piece) -> Result<(), HookError> {
        let other = "00:02.0".parse().unwrap();
        self.0.get().unwrap().config_write(other, COMMAND, Word, MEMORY).wait();
        Ok(())
    }

    fn vector(&self, _: Target, _: u16, _: VectorWork) -> Result<(), HookError> {
        Ok(())
    }
}

#[test]
fn a_map_hook_that_turns_on_another_device_is_told_that_it_cannot() {
    let guest = Guest::new();
    let wiring = Tangled::default();
    let bus = Bus::new(guest.domain.clone(), wiring.clone(), layout(&[])).unwrap();
    wiring.0.set(bus.clone()).ok().unwrap();
    let device = || Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000).direct());
    let [first, second] =
        ["00:01.0", "00:02.0"].map(|at| guest.plug(at, device().build(Memory::new(0x1000)).unwrap()));
    for (at, base) in [(first, 0xc000_0000), (second, 0xc000_1000)] {
        assert!(bus.config_write(at, BAR0, Dword, base).wait());
    }
    assert!(bus.config_write(first, COMMAND, Word, MEMORY).wait());
    assert_eq!(bus.config_read(first, COMMAND, Word), MEMORY);
    assert_eq!(bus.config_read(second, COMMAND, Word), 0, "it was not mapped, and says so");
}

/// MSI at 40 and MSI-X behind it, one vector each, both programmed; what has happened until then is forgotten.
fn with_both() -> (Guest, Sbdf, u16) {
    let guest = Guest::new();
    let place = MsixPlace { table_bar: 0, table: 0x800, pending_bar: 0, pending: 0xc00 };
    let device = Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000)).msi(1).msix(1, place);
    let msix = device.capabilities().nth(1).unwrap().1;
    let at = guest.plug("00:03.0", device.build(Memory::new(0x1000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    guest.write(at, 0x44, Dword, 0xfee0_0000);
    guest.write(at, 0x4c, Word, 0x11);
    for (offset, value) in [(0, 0xfee0_0000_u32), (8, 0x22), (12, 0)] {
        assert!(guest.bus.bar_write(at, 0, 0x800 + offset, &value.to_le_bytes()).wait());
    }
    guest.wiring.story();
    (guest, at, msix + 2)
}

#[test]
fn with_msi_and_msix_on_msix_counts_and_msi_takes_nothing_of_it_away() {
    let (guest, at, msix) = with_both();
    guest.write(at, 0x42, Word, 1);
    guest.write(at, msix, Word, 1 << 15);
    guest.write(at, 0x42, Word, 0);
    let story = ["route 0 to 0xfee00000 0x11", "unroute 0", "route 0 to 0xfee00000 0x22"];
    assert_eq!(guest.wiring.story(), story, "the last word on vector 0 is MSI-X's");
    guest.write(at, 0x42, Word, 1);
    assert!(guest.wiring.story().is_empty());
    guest.write(at, msix, Word, 0);
    assert_eq!(guest.wiring.story(), ["unroute 0", "route 0 to 0xfee00000 0x11"]);
}

#[test]
fn a_vector_of_msi_that_could_not_be_unrouted_is_not_taken_for_one_of_msix() {
    let (guest, at, msix) = with_both();
    guest.write(at, 0x42, Word, 1);
    guest.wiring.fail("unroute");
    guest.write(at, 0x42, Word, 0);
    guest.wiring.fail(None);
    guest.wiring.story();
    guest.write(at, msix, Word, 1 << 15);
    let story = guest.wiring.story();
    assert_eq!(story, ["unroute 0", "route 0 to 0xfee00000 0x22"], "first what is left of MSI");
    assert!(guest.bus.bar_write(at, 0, 0, &[0]).wait());
    assert_eq!(guest.wiring.story(), ["send 0 0xfee00000 0x22"]);
}

#[test]
fn a_restored_message_of_msi_has_no_bit_that_a_guest_cannot_program() {
    let (guest, at, _) = with_both();
    guest.write(at, 0x42, Word, 1);
    let own: Sbdf = "80:03.0".parse().unwrap();
    let mut state = guest.registry.lock(own).unwrap().as_ref().unwrap().save().unwrap();
    let message = [0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x11, 0, 0, 0];
    let place = state.windows(12).position(|bytes| bytes == message).unwrap();
    state[place] = 1;
    state[place + 10] = 0xff;
    let (other, at, _) = with_both();
    other.write(at, COMMAND, Word, 0);
    other.wiring.story();
    assert!(other.bus.restore(at, &state).unwrap().wait());
    assert!(other.wiring.story().contains(&"route 0 to 0xfee00000 0x11".into()));
    assert_eq!(load(&mut other.bus.vcpu(), 0xc000_0800, 4), Some(0xfee0_0000));
}

/// A wiring that turns the decoding of a device on when its guest makes it a bus master.
#[derive(Clone, Default)]
struct Eager(Arc<OnceLock<Bus<Option<Function>, Eager>>>, crate::guest::Recorder);

impl Wiring for Eager {
    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.1.map(device, piece)
    }

    fn vector(&self, _: Target, _: u16, _: VectorWork) -> Result<(), HookError> {
        Ok(())
    }

    fn bus_master(&self, target: Target, to: Switch) -> Result<(), HookError> {
        self.0.get().unwrap().config_write(target.seen_at, COMMAND, Word, 4 | MEMORY).wait();
        self.1.bus_master(target, to)
    }
}

#[test]
fn a_hook_that_writes_its_own_device_does_not_wait_for_itself() {
    let guest = Guest::new();
    let wiring = Eager::default();
    let bus = Bus::new(guest.domain.clone(), wiring.clone(), layout(&[])).unwrap();
    wiring.0.set(bus.clone()).ok().unwrap();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    assert!(bus.config_write(at, BAR0, Dword, 0xc000_0000).wait());
    assert!(bus.config_write(at, COMMAND, Word, 4).wait());
    assert_eq!(bus.config_read(at, COMMAND, Word), 4 | MEMORY);
    let story = ["bus master On", "map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"];
    assert_eq!(wiring.1.story(), story, "what it asked for comes after it");
}

/// A device that looks at its own configuration space when it is read.
struct Curious(Arc<OnceLock<crate::guest::GuestBus>>);

impl Backing for Curious {
    fn bar_read(&mut self, _: u8, _: u64, data: &mut [u8]) {
        let bus = self.0.get().unwrap();
        let at = "00:03.0".parse().unwrap();
        assert!(bus.config_write(at, COMMAND, Word, MEMORY).wait());
        data.copy_from_slice(&bus.config_read(at, 0, Dword).to_le_bytes());
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

#[test]
fn a_handler_that_calls_back_finds_ones_and_does_not_lock_itself_out() {
    let guest = Guest::new();
    let bus: Arc<OnceLock<_>> = Arc::default();
    bus.set(guest.bus.clone()).ok().unwrap();
    let device = Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000));
    let at = guest.plug("00:03.0", device.build(Curious(bus)).unwrap());
    let mut data = [0; 4];
    guest.bus.bar_read(at, 0, 0, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(guest.read(at, COMMAND, Word), 0, "what it wrote went nowhere");
    assert_eq!(guest.read(at, 0, Dword), 0x0002_0001);
}
