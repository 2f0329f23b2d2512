//! Resets and power states that a guest asks for.

use pcidevs::device::PortType;
use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{Bar, Endpoint};

use crate::guest::{Guest, Memory, load, nic};

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;

#[test]
fn a_function_level_reset_brings_every_register_back_and_leaves_nothing_mapped_or_routed() {
    let guest = Guest::new();
    let express = nic().express(PortType::RootComplexEndpoint).function_level_reset();
    let places: Vec<(u8, u16)> = express.capabilities().collect();
    let [(0x10, express_at), (0x11, msix_at)] = places[..] else { panic!("{places:x?}") };
    let at = guest.plug("00:03.0", express.build(Memory::new(0x4000)).unwrap());
    let before: Vec<u32> = (0..64).map(|dword| guest.read(at, dword * 4, Dword)).collect();
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, 0x406);
    guest.write(at, 0x3c, Word, 11);
    for (offset, value) in [(0, 0xfee0_0000_u32), (8, 7), (12, 0)] {
        assert!(guest.bus.bar_write(at, 0, 0x2000 + offset, &value.to_le_bytes()).wait());
    }
    guest.write(at, msix_at + 2, Word, 1 << 15);
    assert!(guest.bus.bar_write(at, 0, 0x800, &[9]).wait());
    guest.wiring.story();

    guest.write(at, express_at + 8, Word, 1 << 15);
    let unmapped = "unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000";
    let story = ["reset", unmapped, "unroute 0", "bus master Off"];
    assert_eq!(guest.wiring.story(), story);
    let after: Vec<u32> = (0..64).map(|dword| guest.read(at, dword * 4, Dword)).collect();
    assert_eq!(after, before);
    let mut data = [0xaa];
    guest.bus.bar_read(at, 0, 0x800, &mut data);
    assert_eq!(data, [0], "the device was reset as well");
}

#[test]
fn a_reset_that_fails_changes_nothing() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().function_level_reset().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.wiring.fail("reset");
    // Advanced Features, behind MSI-X.
    guest.write(at, 0x50, Dword, 1);
    assert_eq!(guest.wiring.story(), ["reset", "failed 0000:80:03.0: told to fail"]);
    assert_eq!(guest.read(at, BAR0, Dword), 0xc000_0004);
}

#[test]
fn in_d3hot_bars_do_not_answer_and_come_back_with_d0() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000).direct()).power_management();
    let at = guest.plug("00:03.0", device.build(Memory::new(0x1000)).unwrap());
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, 2);
    guest.wiring.story();
    guest.write(at, 0x44, Word, 3);
    assert_eq!(guest.wiring.story(), ["power D3hot", "unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x1000"]);
    assert_eq!(guest.read(at, 0x44, Word), 3 | 8);
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_0000, 4), None);
    assert_eq!(guest.read(at, 0, Dword), 0x0002_0001, "configuration space answers");
    guest.write(at, 0x44, Word, 1);
    assert_eq!(guest.read(at, 0x44, Word) & 3, 3, "there is no D1");
    guest.write(at, 0x44, Word, 0);
    assert_eq!(guest.wiring.story(), ["power D0", "map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x1000"]);
}

#[test]
fn a_reset_in_d3hot_leads_to_d0_and_the_outside_is_told() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2).power_management().function_level_reset();
    let places: Vec<(u8, u16)> = device.capabilities().collect();
    let [(0x01, power_at), (0x13, features_at)] = places[..] else { panic!("{places:x?}") };
    let at = guest.plug("00:03.0", device.build(Memory::new(0)).unwrap());
    guest.write(at, power_at + 4, Word, 3);
    guest.write(at, features_at + 4, Word, 1);
    assert_eq!(guest.read(at, power_at + 4, Word) & 3, 0);
    assert_eq!(guest.wiring.story(), ["power D3hot", "reset", "power D0"]);
}
