//! Pass-through, rule by rule: hardware behind the model, as a guest and as the host find it.

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{Bar, BarFault, Function, PassThrough, PassThroughError, Viewer, VirtualFunction};
use proptest::prelude::*;

use crate::guest::{Guest, load};
use crate::hardware::{BAR0, COMMAND, Hardware};
use crate::recordings::Config;
use crate::walk::{SizedBar, Walker};

const IO: u32 = 1;
const MEMORY: u32 = 2;
const MASTER: u32 = 4;
const INTX_DISABLE: u32 = 0x400;

/// A network card: 16 KiB of 64-bit memory with MSI-X in it, 32 ports, a ROM; its list of capabilities has some that a
/// guest does not see, before, between and after those that it does.
fn nic() -> Config {
    Config::endpoint(4096)
        .with32(BAR0.into(), 0xfe00_000c)
        .with32(0x18, 0xe001)
        .with32(0x30, 0xfd00_0000)
        .with8(0x3d, 1)
        .list(0x40)
        .capability(0x40, 0x03, 0x48)
        .capability(0x48, 0x11, 0x60)
        .with16(0x4a, 3)
        .with32(0x4c, 0x2000)
        .with32(0x50, 0x3000)
        .capability(0x60, 0x05, 0x80)
        .with16(0x62, 0x0184)
        .capability(0x80, 0x14, 0x90)
        .capability(0x90, 0x10, 0xd0)
        .with16(0x92, 0x0002)
        .with32(0x94, 0x1000_8000)
        .capability(0xd0, 0x01, 0xe0)
        .capability(0xe0, 0x09, 0)
        .with8(0xe2, 0x0e)
}

fn hardware(config: &Config) -> Hardware {
    let hardware = Hardware::new(config).bar(BAR0, 0x4000).bar(0x18, 0x20).rom(0x30, 0x1_0000);
    hardware.writable(0xe4, Dword, u32::MAX).writable(0xe8, Dword, u32::MAX)
}

fn guest_function(hardware: &Hardware) -> Function {
    PassThrough::new(Viewer::Guest).build(hardware.clone()).unwrap()
}

/// A guest with that function, and nothing done yet.
fn plugged(function: Function, hardware: &Hardware) -> (Guest, pcidevs::Sbdf) {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    hardware.story();
    (guest, at)
}

fn refused(config: &Config) -> PassThroughError {
    PassThrough::new(Viewer::Guest).build(Hardware::new(config)).unwrap_err()
}

#[test]
fn sizes_are_found_with_decoding_off_and_everything_is_put_back() {
    let config = nic().with16(COMMAND.into(), 0x0147);
    let hardware = hardware(&config);
    let mut function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let story = hardware.story();
    assert_eq!(story.first().unwrap(), "write 2 at 0x4 = 0x144");
    assert_eq!(story.last().unwrap(), "write 2 at 0x4 = 0x147");
    assert!(story[1..story.len() - 1].iter().all(|line| !line.contains("at 0x4 ")), "{story:?}");
    assert!(!story.iter().any(|line| line == "write 4 at 0x30 = 0xffffffff"), "the ROM is not enabled");
    for (offset, byte) in (0..).zip(&config.0) {
        assert_eq!(hardware.peek(offset, Byte), u32::from(*byte), "{offset:#x}");
    }
    assert_eq!(function.config_read(BAR0, Dword), 0xfe00_000c, "the host's addresses");
    assert_eq!(function.config_read(COMMAND, Word), 0x0147);
}

#[test]
fn what_is_given_is_not_found_out() {
    let hardware = hardware(&nic());
    let bars = [Some(Bar::memory64(0x4000)), None, None, None, None, None, None];
    let mut function = PassThrough::new(Viewer::Guest).bars(bars).build(hardware.clone()).unwrap();
    assert_eq!(hardware.story(), ["write 2 at 0x4 = 0x0"]);
    assert_eq!(function.config_read(BAR0, Dword), 4, "as it was given");
    assert_eq!(function.config_read(0x18, Dword), 0);
}

#[test]
fn a_64_bit_bar_in_the_last_slot_is_malformed() {
    let fault = BarFault::NoUpperHalf;
    assert_eq!(refused(&Config::endpoint(256).with32(0x24, 4)), PassThroughError::Bar { bar: 5, fault });
    let bridge = Config::bridge(256, [0, 1, 1]).with32(0x14, 4);
    assert_eq!(refused(&bridge), PassThroughError::Bar { bar: 1, fault });
    let given = [None, None, None, None, None, Some(Bar::memory64(16)), None];
    let hardware = Hardware::new(&Config::endpoint(256));
    let error = PassThrough::new(Viewer::Host).bars(given).build(hardware.clone()).unwrap_err();
    assert_eq!(error, PassThroughError::Bar { bar: 5, fault });
    assert!(hardware.story().is_empty(), "nothing was written");
    assert!(
        PassThrough::new(Viewer::Guest).build(Hardware::new(&Config::endpoint(256).with32(0x20, 4))).is_ok()
    );
}

#[test]
fn only_header_types_0_and_1_are_modelled() {
    for (header, is_modelled) in [(0, true), (1, true), (2, false), (0x7f, false)] {
        for multifunction in [0, 0x80] {
            let config = Config::endpoint(256).with8(0xe, header | multifunction);
            let built = PassThrough::new(Viewer::Guest).build(Hardware::new(&config));
            match built {
                Ok(_) => assert!(is_modelled, "{header}"),
                Err(error) => assert_eq!((error, is_modelled), (PassThroughError::HeaderType(header), false)),
            }
        }
    }
    assert_eq!(refused(&Config(vec![0xff; 256])), PassThroughError::Absent);
    assert_eq!(refused(&Config::virtual_function(256)), PassThroughError::Absent, "nobody said it is one");
}

#[test]
fn a_guest_sees_only_capabilities_that_are_modelled_and_ones_between_them() {
    let hardware = hardware(&nic().extended(0x100, 0x01, 2, 0x140).extended(0x140, 0x10, 1, 0));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    let mut walker = Walker::new(&guest);
    let shown = [(0x48, 0x11), (0x60, 0x05), (0x90, 0x10), (0xd0, 0x01), (0xe0, 0x09)];
    assert_eq!(walker.capabilities(at), shown);
    assert_eq!(walker.read::<4>(at, 0x40), u32::MAX, "VPD is hidden");
    assert_eq!(walker.read::<4>(at, 0x80), u32::MAX);
    assert_eq!(walker.extended_capabilities(at), [], "neither AER nor SR-IOV");
    assert_eq!(walker.read::<4>(at, 0x100), 0, "an empty list");
    assert!((0x104..0x1000).step_by(4).all(|offset| walker.read::<4>(at, offset) == u32::MAX));
    walker.write::<4>(at, 0x148, 1);
    walker.write::<4>(at, 0x44, 0x8000_0000);
    assert_eq!(hardware.story(), [""; 0], "nothing hidden is reached");
}

#[test]
fn a_guest_sizes_bars_and_the_hardware_does_not_notice() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    let bars = [
        SizedBar { slot: 0, flags: 0xc, size: 0x4000 },
        SizedBar { slot: 2, flags: 1, size: 0x20 },
        SizedBar { slot: 6, flags: 0, size: 0x1_0000 },
    ];
    assert_eq!(Walker::new(&guest).size_bars(at), bars);
    assert!(hardware.story().iter().all(|line| line == "write 2 at 0x4 = 0x0"));
}

#[test]
fn hardware_decodes_once_the_bars_are_mapped_and_not_when_they_could_not_be() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.wiring.fail("map");
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(guest.read(at, COMMAND, Word), MASTER);
    assert!(hardware.story().iter().all(|line| line == "write 2 at 0x4 = 0x4"), "never decoded");
    guest.wiring.fail(None);
    guest.wiring.story();
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    let mapped = guest.wiring.story();
    assert_eq!(mapped, ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(hardware.story().last().unwrap(), "write 2 at 0x4 = 0x6");
    guest.write(at, COMMAND, Word, 0);
    assert_eq!(hardware.story().last().unwrap(), "write 2 at 0x4 = 0x0");
    assert_eq!(hardware.peek(BAR0, Dword), 0xfe00_000c, "a guest's addresses are not the hardware's");
}

#[test]
fn a_guests_parity_serr_and_fast_back_to_back_are_dropped_and_the_platforms_stay() {
    let hardware = hardware(&nic().with16(COMMAND.into(), 0x0147));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140, "a guest begins with everything off");
    assert_eq!(guest.read(at, COMMAND, Word), 0);
    guest.write(at, COMMAND, Word, 0x0340 | MASTER);
    assert_eq!(guest.read(at, COMMAND, Word), MASTER);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140 | MASTER);
    assert_eq!(guest.wiring.story(), ["bus master On"]);
}

#[test]
fn io_decoding_is_kept_only_where_the_platform_maps_io_bars() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, 0x18, Dword, 0x2000);
    guest.write(at, COMMAND, Word, IO);
    assert_eq!(guest.read(at, COMMAND, Word), IO);
    assert_eq!(hardware.peek(COMMAND, Word), IO);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.2 +0x0 at 0x2000 for 0x20"]);

    let function = PassThrough::new(Viewer::Guest).without_io().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, COMMAND, Word, IO);
    assert_eq!((guest.read(at, COMMAND, Word), hardware.peek(COMMAND, Word)), (0, 0));
    assert_eq!(guest.read(at, 0x18, Dword), 0, "a BAR that cannot be decoded is none");
    assert!(guest.wiring.story().is_empty());
}

#[test]
fn intx_is_disabled_in_hardware_while_msi_or_msix_is_on_and_the_guest_does_not_see_it() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    for (control, enable) in [(0x62, 1), (0x4a, 0x8000)] {
        guest.write(at, control, Word, enable);
        assert_eq!(hardware.peek(COMMAND, Word), INTX_DISABLE);
        assert_eq!(guest.read(at, COMMAND, Word), 0);
        guest.write(at, control, Word, 0);
        assert_eq!(hardware.peek(COMMAND, Word), 0);
    }
    assert_eq!(hardware.peek(0x62, Word), 0x0184, "MSI of the hardware is the platform's");
}

#[test]
fn what_was_left_on_of_msi_and_msix_is_off() {
    let config = nic().with16(0x62, 0x0185).with16(0x4a, 0x8003);
    for viewer in [Viewer::Guest, Viewer::Host] {
        let hardware = hardware(&config).writable(0x62, Word, 0x71).writable(0x4a, Word, 0xc000);
        let mut function = PassThrough::new(viewer).build(hardware.clone()).unwrap();
        assert_eq!((hardware.peek(0x62, Word), hardware.peek(0x4a, Word)), (0x0184, 3));
        assert_eq!((function.config_read(0x62, Word), function.config_read(0x4a, Word)), (0x0184, 3));
    }
}

#[test]
fn trapped_accesses_and_pending_bits_go_to_hardware_and_the_table_does_not() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    hardware.story();
    let mut vcpu = guest.bus.vcpu();
    assert_eq!(load(&mut vcpu, 0xc000_200c, 4), Some(1), "the table is the model's: masked");
    assert_eq!(hardware.story(), [""; 0]);
    assert_eq!(load(&mut vcpu, 0xc000_3000, 8), Some(0x5a5a_5a5a_5a5a_5a5a));
    assert_eq!(hardware.story(), ["read 4 of BAR 0 at 0x3000", "read 4 of BAR 0 at 0x3004"]);
    assert!(vcpu.mmio_write(0xc000_3000, &[1; 4]).wait());
    assert_eq!(hardware.story(), [""; 0], "writes of pending bits are dropped");
    // Beside the table, in its page.
    assert_eq!(load(&mut vcpu, 0xc000_2100, 2), Some(0x5a5a));
    assert!(vcpu.mmio_write(0xc000_2100, &[1]).wait());
    assert_eq!(hardware.story(), ["read 2 of BAR 0 at 0x2100", "write 1 of BAR 0 at 0x2100"]);
}

#[test]
fn a_trapped_function_has_no_bar_mapped_directly() {
    let hardware = hardware(&nic());
    let function = PassThrough::new(Viewer::Guest).trapped().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.wiring.story(), [""; 0]);
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_0010, 1), Some(0x5a));
}

#[test]
fn the_pending_bits_of_msi_are_the_hardwares() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    // 64-bit with masks: the last of its registers.
    hardware.poke(0x74, Dword, 0x3);
    assert_eq!(guest.read(at, 0x74, Dword), 3);
}

#[test]
fn the_rom_of_the_hardware_is_enabled_while_it_is_mapped() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, 0x30, Dword, 0xc100_0001);
    assert_eq!(guest.read(at, 0x30, Dword), 0xc100_0001);
    assert_eq!(hardware.peek(0x30, Dword), 0xfd00_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(hardware.peek(0x30, Dword), 0xfd00_0001);
    assert!(guest.wiring.story().contains(&"map 0000:80:03.0.6 +0x0 at 0xc1000000 for 0x10000".into()));
    guest.write(at, 0x30, Dword, 0xc100_0000);
    assert_eq!(hardware.peek(0x30, Dword), 0xfd00_0000);
}

#[test]
fn a_vendor_specific_capability_is_passed_through_as_wide_as_it_is_accessed() {
    let hardware = hardware(&nic()).writable(0xe3, Byte, 0xff).writable(0xec, Dword, u32::MAX);
    hardware.poke(0xe4, Dword, 0x1122_3344);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(guest.read(at, 0xe4, Dword), 0x1122_3344);
    guest.write(at, 0xe5, Byte, 0x99);
    guest.write(at, 0xe3, Byte, 0x77);
    guest.write(at, 0xe2, Byte, 0xff);
    guest.write(at, 0xec, Dword, 0x0403_0201);
    let story = [
        "write 1 at 0xe5 = 0x99",
        "write 1 at 0xe3 = 0x77",
        "write 1 at 0xec = 0x1",
        "write 1 at 0xed = 0x2",
    ];
    assert_eq!(hardware.story(), story, "neither its length nor what is behind it");
    assert_eq!(guest.read(at, 0xe4, Dword), 0x1122_9944);
    assert_eq!(guest.read(at, 0xec, Dword), 0xffff_0201);
}

#[test]
fn flr_and_power_are_effects_of_a_guest() {
    let features = Config::endpoint(256).list(0x40).capability(0x40, 0x13, 0).with16(0x42, 0x0306);
    let af = Hardware::new(&features);
    let (guest, at) = plugged(guest_function(&af), &af);
    guest.write(at, 0x44, Byte, 1);
    assert_eq!(guest.wiring.story(), ["reset"]);

    let hardware = hardware(&nic()).writable(0x98, Word, u32::MAX).writable(0xd4, Word, 3);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, 0x98, Word, 0x8000);
    assert_eq!(guest.wiring.story(), ["reset"]);
    guest.write(at, 0xd4, Word, 3);
    assert_eq!(guest.wiring.story(), ["power D3hot"]);
    // This hardware resets itself on its way back.
    guest.write(at, 0xd4, Word, 0);
    assert_eq!(guest.wiring.story(), ["power D0", "reset"]);
    let writes = hardware.story();
    assert!(writes.iter().all(|line| line.starts_with("write 2 at 0x4 ")), "{writes:?}");
}

#[test]
fn after_a_reset_hardware_is_off_whatever_was_put_back() {
    let config = nic().with16(COMMAND.into(), 0x0140);
    let hardware = hardware(&config).writable(0x98, Word, u32::MAX);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140 | MEMORY | MASTER);
    guest.write(at, 0x98, Word, 0x8000);
    assert_eq!((guest.read(at, COMMAND, Word), guest.read(at, BAR0, Dword)), (0, 0xc));
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140);
}

#[test]
fn a_capability_that_cannot_be_initialised_is_hidden_and_the_others_are_not() {
    let cases: [(&str, Config); 6] = [
        ("MSI with 64 vectors", nic().with16(0x62, 0x018c)),
        ("a table of MSI-X outside its BAR", nic().with32(0x4c, 0x4000)),
        ("pending bits in an I/O BAR", nic().with32(0x50, 2)),
        ("pending bits in the table", nic().with32(0x50, 0x2000)),
        ("an Express capability of version 0", nic().with16(0x92, 0)),
        ("a vendor-specific one that is too short", nic().with8(0xe2, 2)),
    ];
    let hidden = [0x60, 0x48, 0x48, 0x48, 0x90, 0xe0];
    for ((what, config), hidden) in cases.into_iter().zip(hidden) {
        let hardware = hardware(&config);
        let (guest, at) = plugged(guest_function(&hardware), &hardware);
        let shown: Vec<u16> = Walker::new(&guest).capabilities(at).into_iter().map(|(at, _)| at).collect();
        let expected: Vec<u16> =
            [0x48, 0x60, 0x90, 0xd0, 0xe0].into_iter().filter(|at| *at != hidden).collect();
        assert_eq!(shown, expected, "{what}");
    }
}

#[test]
fn the_host_does_not_reach_a_capability_that_cannot_be_initialised() {
    let config = nic().with16(0x62, 0x018c).with32(0x4c, 0x4000);
    let hardware = hardware(&config).writable(0x62, Word, 0x71).writable(0x4a, Word, 0xc000);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    let shown: Vec<u16> = Walker::new(&guest).capabilities(at).into_iter().map(|(at, _)| at).collect();
    assert_eq!(shown, [0x40, 0x80, 0x90, 0xd0, 0xe0]);
    guest.write(at, 0x62, Word, 1);
    guest.write(at, 0x4a, Word, 0x8000);
    assert_eq!(hardware.story(), [""; 0]);
    assert_eq!((guest.read(at, 0x62, Word), guest.read(at, 0x4a, Word)), (0x018c, 3));
}

#[test]
fn nothing_hidden_is_reached_through_a_vendor_specific_capability() {
    let base = || Config::endpoint(256).list(0x40);
    let cases = [
        (
            "over a hidden one",
            base().capability(0x40, 0x09, 0x50).with8(0x42, 0x20).capability(0x50, 0x03, 0),
        ),
        ("over MSI", base().capability(0x40, 0x09, 0x50).with8(0x42, 0x20).capability(0x50, 0x05, 0)),
        ("within VPD", base().capability(0x40, 0x03, 0x44).capability(0x44, 0x09, 0).with8(0x46, 8)),
        ("within MSI that is hidden", {
            base().capability(0x40, 0x05, 0x44).with16(0x42, 0xe).capability(0x44, 0x09, 0).with8(0x46, 4)
        }),
        ("over the end", base().capability(0xf0, 0x09, 0).with8(0xf2, 0x20).with8(0x34, 0xf0)),
    ];
    for (what, config) in cases {
        let hardware = Hardware::new(&config);
        let (guest, at) = plugged(guest_function(&hardware), &hardware);
        let shown = Walker::new(&guest).capabilities(at);
        assert!(shown.iter().all(|(_, id)| *id != 0x09), "{what}: {shown:?}");
    }
}

#[test]
fn lists_that_loop_or_lead_nowhere_end() {
    let base = || Config::endpoint(4096).list(0x40);
    let power = |config: Config, next| config.capability(0x40, 0x01, next);
    for config in [
        power(base(), 0x40),
        power(base(), 0x10),
        power(base(), 0xff),
        power(base(), 0x60).with16(0x60, 0x40ff),
        power(base(), 0x4a).capability(0x48, 0x03, 0x41),
        power(base(), 0).extended(0x100, 0x0b, 1, 0x100),
        power(base(), 0).extended(0x100, 0x0b, 1, 0x104).extended(0x104, 0x0b, 1, 0x100),
    ] {
        for viewer in [Viewer::Guest, Viewer::Host] {
            let hardware = Hardware::new(&config);
            let function = PassThrough::new(viewer).build(hardware.clone()).unwrap();
            let (guest, at) = plugged(function, &hardware);
            let mut walker = Walker::new(&guest);
            assert_eq!(walker.capabilities(at).first(), Some(&(0x40, 0x01)));
            walker.extended_capabilities(at);
        }
    }
}

#[test]
fn a_pointer_without_a_list_is_none() {
    let hardware = Hardware::new(&Config::endpoint(256).with8(0x34, 0x40).with8(0x40, 1));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(Walker::new(&guest).capabilities(at), []);
}

#[test]
fn a_virtual_functions_ids_and_bars_are_its_physical_ones_and_its_memory_enable_is_emulated() {
    let vf = Config::virtual_function(4096).with8(0x3d, 1).with16(0x2c, 0x1234).with16(0x2e, 0x0001);
    // Hardwired to 0 but for bus mastering.
    let hardware = Hardware::new(&vf).writable(COMMAND, Word, MASTER);
    let described = VirtualFunction::new(0x1234, 0x9abc).bar(0, Bar::memory64(0x1000).direct(), 0xfa00_0000);
    let function =
        PassThrough::new(Viewer::Guest).virtual_function(described).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert_eq!(guest.read(at, 0, Dword), 0x9abc_1234);
    assert_eq!(guest.read(at, 0x2c, Dword), 0x0001_1234);
    assert_eq!(guest.read(at, 0x3d, Byte), 0, "no pin");
    assert_eq!(Walker::new(&guest).size_bars(at), [SizedBar { slot: 0, flags: 4, size: 0x1000 }]);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, IO | MEMORY | MASTER | INTX_DISABLE);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY | MASTER);
    assert_eq!(hardware.peek(COMMAND, Word), MASTER);
    let story = guest.wiring.story();
    assert!(story.contains(&"map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x1000".into()), "{story:?}");
}

#[test]
fn the_host_maps_a_virtual_function_where_its_physical_one_says() {
    let hardware = Hardware::new(&Config::virtual_function(256)).writable(COMMAND, Word, MASTER);
    let described = VirtualFunction::new(0x1234, 0x9abc).bar(0, Bar::memory32(0x1000).direct(), 0xca00_0000);
    let function =
        PassThrough::new(Viewer::Host).virtual_function(described).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert_eq!(guest.read(at, 0, Dword), u32::MAX, "as hardware has it");
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xca000000 for 0x1000"]);
    assert_eq!(guest.read(at, BAR0, Dword), 0);
    let io = described.bar(1, Bar::io(16), 0);
    let error = PassThrough::new(Viewer::Host).virtual_function(io).build(hardware).unwrap_err();
    assert_eq!(error, PassThroughError::Bar { bar: 1, fault: BarFault::VirtualIo });
}

#[test]
fn what_is_between_is_the_hosts_hardware() {
    let hardware = hardware(&nic().extended(0x100, 0x01, 2, 0)).writable(0x108, Dword, u32::MAX);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, 0x108, Dword, 0x1234_5678);
    guest.write(at, 0x44, Dword, 0x8000_0000);
    assert_eq!(hardware.story(), ["write 4 at 0x108 = 0x12345678", "write 4 at 0x44 = 0x80000000"]);
    assert_eq!(guest.read(at, 0x108, Dword), 0x1234_5678);
    assert_eq!(Walker::new(&guest).capabilities(at).len(), 7, "all of them");
    assert_eq!(Walker::new(&guest).extended_capabilities(at), [(0x100, 1)]);
}

#[test]
fn the_hosts_decoding_is_as_firmware_left_it_and_mapped_from_the_beginning() {
    let config = nic().with32(BAR0.into(), 0xc000_000c).with16(COMMAND.into(), 0x0106);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert!(guest.bus.start(at).wait());
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(guest.read(at, COMMAND, Word), 0x0106);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0106);
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(hardware.peek(BAR0, Dword), 0xc000_000c, "ignored while mapped");
    guest.write(at, COMMAND, Word, 0x0100);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0100, "the host's own error reporting");
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(hardware.peek(BAR0, Dword), 0xc100_000c);
    guest.write(at, COMMAND, Word, 0x0102);
    let story = [
        "unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000",
        "map 0000:80:03.0.0 +0x0 at 0xc1000000 for 0x2000",
    ];
    assert_eq!(
        guest.wiring.story().iter().filter(|line| line.contains("map")).collect::<Vec<_>>(),
        story.iter().collect::<Vec<_>>()
    );
}

#[test]
fn who_does_not_start_a_function_of_the_hosts_has_it_mapped_with_the_first_effect() {
    let config = nic().with32(BAR0.into(), 0xc000_000c).with16(COMMAND.into(), 0x0002);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000", "bus master On"]);
}

#[test]
fn an_express_capability_is_the_hardwares_but_for_what_would_not_be_the_guests() {
    // Phantom functions; a link of 8 GT/s, four lanes.
    let config = nic().with32(0x94, 0x1000_8018).with32(0x9c, 0x0000_0043).with16(0xa2, 0x0043);
    let hardware = hardware(&config.with32(0xb4, 0x5).with32(0xbc, 0xe));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(guest.read(at, 0x92, Word), 2);
    assert_eq!(guest.read(at, 0x94, Dword), 0x1000_8000, "their requester IDs are none of its own");
    assert_eq!((guest.read(at, 0x9c, Dword), guest.read(at, 0xa2, Word)), (0x43, 0x43));
    assert_eq!((guest.read(at, 0xb4, Dword), guest.read(at, 0xbc, Dword)), (0, 0xe));
    hardware.poke(0xa2, Word, 0x0041);
    assert_eq!(guest.read(at, 0xa2, Word), 0x41, "a link may be trained anew");
    guest.write(at, 0x98, Word, 0x7000);
    assert_eq!((guest.read(at, 0x98, Word), hardware.peek(0x98, Word)), (0x7000, 0), "its own copy");
    // Transactions pending, and an error that is the host's.
    hardware.poke(0x9a, Word, 0x21);
    assert_eq!(guest.read(at, 0x9a, Word), 0x20);
    guest.write(at, 0x9a, Word, 0xf);
    assert_eq!(hardware.peek(0x9a, Word), 0x21);
}

#[test]
fn an_express_capability_of_version_1_ends_where_it_ends() {
    // An endpoint's, then another capability right behind it.
    let config =
        Config::endpoint(256).list(0x40).capability(0x40, 0x10, 0x54).with16(0x42, 1).capability(0x54, 1, 0);
    let hardware = Hardware::new(&config);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(Walker::new(&guest).capabilities(at), [(0x40, 0x10), (0x54, 0x01)]);
    assert_eq!(guest.read(at, 0x54, Dword), 0x0003_0001);
}

#[test]
fn what_is_hidden_the_host_may_only_look_at() {
    let config = nic().with16(COMMAND.into(), 0x0006);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).read_only().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    for (offset, bytes) in (0_u16..).step_by(4).zip(config.0.chunks(4)) {
        let expected = u32::from_le_bytes(bytes.try_into().unwrap());
        assert_eq!(guest.read(at, offset, Dword), expected, "{offset:#x}");
        guest.write(at, offset, Dword, !expected);
    }
    assert_eq!((hardware.story(), guest.wiring.story()), (vec![], vec![]), "not even to find sizes out");
    let refused = PassThrough::new(Viewer::Guest).read_only().build(hardware).unwrap_err();
    assert_eq!(refused, PassThroughError::ReadOnlyGuest);
}

#[test]
fn a_guest_is_told_of_other_functions_only_if_it_has_them() {
    let hardware = hardware(&nic().with8(0xe, 0x80));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(guest.read(at, 0xe, Byte), 0);
    let function = PassThrough::new(Viewer::Guest).multifunction().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert_eq!(guest.read(at, 0xe, Byte), 0x80);
}

#[test]
fn hardware_that_panics_poisons_its_function() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    hardware.panics();
    assert_eq!(guest.read(at, 0xe4, Dword), u32::MAX);
    assert_eq!(guest.read(at, 0, Dword), u32::MAX);
}

/// Configuration spaces that mean harm: random bytes in which lists of capabilities are likely.
fn hostile() -> impl Strategy<Value = Config> {
    let standard = prop::collection::vec(
        (0_u8..64, prop_oneof![0_u8..0x16, any::<u8>()], any::<u8>(), any::<u32>()),
        0..24,
    );
    let extended = prop::collection::vec((0_u16..96, 0_u16..0x30, any::<u16>(), any::<u32>()), 0..24);
    let noise = prop::collection::vec(any::<u8>(), 256);
    (noise, standard, extended, any::<u8>(), prop_oneof![Just(0_u8), Just(1), any::<u8>()]).prop_map(
        |(noise, standard, extended, pointer, header)| {
            let mut config = Config(noise.iter().cycle().copied().take(4096).collect());
            config = config.list(pointer & !3).with32(0, 0x5678_1234).with8(0xe, header);
            for (place, id, next, body) in standard {
                config = config
                    .capability(place * 4, id, next)
                    .with16(usize::from(place) * 4 + 2, body.to_le_bytes()[0].into());
                config = config.with32((usize::from(place) * 4 + 4).min(0xfc), body);
            }
            for (place, id, next, body) in extended {
                let at = 0x100 + place * 4;
                config = config.extended(at, id, 1, 0x100 + (next & 0x1fc)).with32(usize::from(at) + 4, body);
            }
            config.with8(0xe, header).with32(0, 0x5678_1234)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_space_does_harm(config in hostile(), accesses in prop::collection::vec((any::<u16>(), any::<u32>()), 32)) {
        for viewer in [Viewer::Guest, Viewer::Host] {
            let hardware = Hardware::new(&config).bar(BAR0, 0x100).bar(0x20, 0x10_0000);
            let built = PassThrough::new(viewer).resizable().build(hardware.clone());
            let Ok(function) = built else { continue };
            let (guest, at) = plugged(function, &hardware);
            let mut walker = Walker::new(&guest);
            let shown = walker.capabilities(at);
            let extended = walker.extended_capabilities(at);
            if viewer == Viewer::Guest {
                let hidden = |id: &u8| ![0x01, 0x05, 0x09, 0x10, 0x11, 0x13].contains(id);
                prop_assert!(!shown.iter().any(|(_, id)| hidden(id)), "{shown:x?}");
                prop_assert!(extended.iter().all(|(_, id)| matches!(id, 0 | 0x15)), "{extended:x?}");
            }
            walker.size_bars(at);
            for (offset, value) in &accesses {
                let offset = offset & 0xffc;
                walker.read::<4>(at, offset);
                walker.write::<4>(at, offset, *value);
                walker.write::<1>(at, offset, *value & 0xff);
            }
            prop_assert!(!walker_poisoned(&guest, at));
        }
    }
}

fn walker_poisoned(guest: &Guest, at: pcidevs::Sbdf) -> bool {
    let mut device = guest.domain.lock(at).unwrap();
    device.as_mut().unwrap().is_poisoned()
}
