//! Header, command and BARs, as a guest finds them.

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::Bar;

use crate::guest::{ECAM, Guest, Memory, load, nic};

const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BAR0: u16 = 0x10;

#[test]
fn a_guest_finds_what_is_there_and_ones_elsewhere() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    let mut vcpu = guest.bus.vcpu();
    let found: Vec<u64> =
        (0..32).filter(|device| load(&mut vcpu, ECAM + (device << 15), 4) != Some(0xffff_ffff)).collect();
    assert_eq!(found, [3]);
    assert_eq!(guest.read(at, 0, Dword), 0x1041_1af4);
    assert_eq!(guest.read(at, 8, Dword), 0x0200_0000);
    assert_eq!(load(&mut vcpu, ECAM + (3 << 15), 8), Some(0x0010_0000_1041_1af4), "8 bytes are two of 4");
    assert_eq!(load(&mut vcpu, ECAM + (3 << 15) + 0x100, 4), Some(0), "no extended capability");
    assert_eq!(load(&mut vcpu, ECAM + (3 << 15) + (1 << 12), 4), Some(0xffff_ffff), "no function 1");
}

#[test]
fn a_bar_is_sized_by_writing_ones() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    for offset in [BAR0, BAR0 + 4] {
        guest.write(at, offset, Dword, u32::MAX);
    }
    assert_eq!(guest.read(at, BAR0, Dword), 0xffff_c004);
    assert_eq!(guest.read(at, BAR0 + 4, Dword), 0xffff_ffff);
    assert_eq!(guest.read(at, BAR0 + 8, Dword), 0, "an unused slot");
}

#[test]
fn decoding_maps_before_its_bit_shows_and_what_is_mapped_stays_where_it_is() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    // The pages of the table and of the pending bits come to the model.
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY);
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(guest.read(at, BAR0, Dword), 0xc000_0004, "ignored while mapped");
    let mut vcpu = guest.bus.vcpu();
    assert_eq!(load(&mut vcpu, 0xc000_200c, 4), Some(1), "a vector is masked at first");
    assert_eq!(load(&mut vcpu, 0xc000_4000, 4), None);
    guest.write(at, COMMAND, Word, 0);
    assert_eq!(guest.wiring.story(), ["unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(load(&mut vcpu, 0xc000_200c, 4), None);
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(guest.read(at, BAR0, Dword), 0xc100_0004);
}

#[test]
fn a_map_that_fails_leaves_decoding_off_and_says_so() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.wiring.fail("map");
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.read(at, COMMAND, Word), 0);
    assert_eq!(guest.wiring.story().last().unwrap(), "failed 0000:80:03.0: told to fail");
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_2000, 4), None);
    guest.wiring.fail(None);
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY);
}

#[test]
fn a_bar_outside_the_windows_is_not_mapped_and_that_is_reported() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, 0x1000_0000);
    guest.write(at, COMMAND, Byte, MEMORY);
    assert_eq!(guest.wiring.story(), ["refused 0000:80:03.0.0"]);
    assert_eq!(load(&mut guest.bus.vcpu(), 0x1000_0000, 4), None);
}

#[test]
fn a_bar_over_configuration_space_is_not_mapped_and_that_is_reported() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    let base = u32::try_from(ECAM + (3 << 15)).unwrap();
    guest.write(at, BAR0, Dword, base & !0x3fff);
    guest.write(at, COMMAND, Byte, MEMORY);
    assert_eq!(guest.wiring.story(), ["refused 0000:80:03.0.0"]);
    assert_eq!(load(&mut guest.bus.vcpu(), base.into(), 4), Some(0x1041_1af4));
}

#[test]
fn a_bar_that_another_covers_appears_when_that_one_goes() {
    let guest = Guest::new();
    let device = || pcidevs::vpci::Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000).direct());
    let first = guest.plug("00:01.0", device().build(Memory::new(0x1000)).unwrap());
    let second = guest.plug("00:02.0", device().build(Memory::new(0x1000)).unwrap());
    for at in [first, second] {
        guest.write(at, BAR0, Dword, 0xc000_0000);
        guest.write(at, COMMAND, Word, MEMORY);
    }
    assert_eq!(guest.wiring.story(), ["map 0000:80:01.0.0 +0x0 at 0xc0000000 for 0x1000"]);
    guest.write(first, COMMAND, Word, 0);
    let story = [
        "unmap 0000:80:01.0.0 +0x0 at 0xc0000000 for 0x1000",
        "map 0000:80:02.0.0 +0x0 at 0xc0000000 for 0x1000",
    ];
    assert_eq!(guest.wiring.story(), story);
}

#[test]
fn a_device_that_panics_is_poisoned_and_no_other() {
    let guest = Guest::new();
    let device = || pcidevs::vpci::Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000));
    let [bad, good] =
        ["00:01.0", "00:02.0"].map(|at| guest.plug(at, device().build(Memory::new(0x1000)).unwrap()));
    assert!(guest.bus.bar_write(bad, 0, 3, &[1]).wait());
    assert_eq!(guest.read(bad, 0, Dword), u32::MAX);
    assert_eq!(guest.read(good, 0, Dword), 0x0002_0001);
    let own = "80:01.0".parse().unwrap();
    assert!(guest.registry.lock(own).unwrap().as_ref().unwrap().is_poisoned());
    guest.registry.remove_device(own).map(drop).unwrap_err();
    let home = [pcidevs::Member::new(own)];
    guest.registry.move_devices(&home, pcidevs::Owner::Host).unwrap();
    guest.registry.remove_device(own).unwrap();
}
