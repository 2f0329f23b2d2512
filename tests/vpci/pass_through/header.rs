//! Headers and BARs: what is modelled, what is refused, what is found out.

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{Bar, BarFault, PassThrough, PassThroughError, Viewer, VirtualFunction};

use super::{INTX_DISABLE, IO, MASTER, MEMORY, guest_function, hardware, nic, plugged, refused};
use crate::hardware::{BAR0, COMMAND, Hardware};
use crate::recordings::Config;
use crate::walk::{SizedBar, Walker};

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
fn a_rom_that_is_given_is_32_bit_memory() {
    for bar in [Bar::memory64(0x800), Bar::io(256), Bar::memory32(0x800).prefetchable()] {
        let bars = [None, None, None, None, None, None, Some(bar)];
        let built = PassThrough::new(Viewer::Guest).bars(bars).build(hardware(&nic()));
        let fault = BarFault::RomKind;
        assert_eq!(built.map(drop), Err(PassThroughError::Bar { bar: 6, fault }), "{bar:?}");
    }
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
