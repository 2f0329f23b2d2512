//! Resizable BARs, rule by rule.

use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{PassThrough, Viewer};

use crate::guest::Guest;
use crate::hardware::{BAR0, COMMAND, Hardware};
use crate::recordings::Config;
use crate::walk::{SizedBar, Walker};

/// Where the capability is, and its registers.
const AT: u16 = 0x200;
const OFFERED: u16 = AT + 4;
const CONTROL: u16 = AT + 8;
const MEMORY: u32 = 2;

/// BAR 0 has 64 bits, 1 MiB now, and offers 1, 2, 4 and 256 MiB; the capability is behind one that is hidden.
fn config() -> Config {
    Config::endpoint(4096)
        .with32(BAR0.into(), 0xf000_000c)
        .extended(0x100, 0x01, 2, AT)
        .extended(AT, 0x15, 1, 0)
        .with32(OFFERED.into(), 0x1070)
        .with32(CONTROL.into(), 0x0020)
}

fn hardware(config: &Config) -> Hardware {
    Hardware::new(config).bar(BAR0, 0x10_0000).resizes(CONTROL, BAR0)
}

fn plugged(config: &Config, viewer: Viewer) -> (Guest, pcidevs::Sbdf, Hardware) {
    let hardware = hardware(config);
    let function = PassThrough::new(viewer).resizable().build(hardware.clone()).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    hardware.story();
    (guest, at, hardware)
}

fn size(guest: &Guest, at: pcidevs::Sbdf) -> u64 {
    let bars = Walker::new(guest).size_bars(at);
    assert_eq!(bars, [SizedBar { slot: 0, flags: 0xc, size: bars[0].size }]);
    bars[0].size
}

#[test]
fn a_guest_sees_it_only_where_it_was_asked_for() {
    let (guest, at, _) = plugged(&config(), Viewer::Guest);
    // The list begins at 100, whatever is there.
    assert_eq!(Walker::new(&guest).extended_capabilities(at), [(0x100, 0), (AT, 0x15)]);
    let function = PassThrough::new(Viewer::Guest).build(hardware(&config())).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    assert_eq!(Walker::new(&guest).extended_capabilities(at), []);
    assert_eq!(guest.read(at, AT, Dword), u32::MAX);
}

#[test]
fn the_bars_register_follows_the_size() {
    for viewer in [Viewer::Guest, Viewer::Host] {
        let (guest, at, hardware) = plugged(&config(), viewer);
        assert_eq!(guest.read(at, OFFERED, Dword), 0x1070);
        assert_eq!(guest.read(at, CONTROL, Dword), 0x0020);
        assert_eq!(size(&guest, at), 1 << 20);
        for log in [1, 2, 8, 0] {
            guest.write(at, CONTROL, Dword, log << 8);
            assert_eq!(guest.read(at, CONTROL, Dword), log << 8 | 0x20);
            assert_eq!(hardware.peek(CONTROL, Dword), log << 8 | 0x20);
            assert_eq!(size(&guest, at), 1 << (20 + log));
        }
    }
}

#[test]
fn a_size_that_is_not_offered_is_not_taken() {
    let (guest, at, hardware) = plugged(&config(), Viewer::Guest);
    for log in [3, 7, 9, 27, 28, 0x3f] {
        guest.write(at, CONTROL, Dword, log << 8);
        assert_eq!(guest.read(at, CONTROL, Dword), 0x20, "{log}");
    }
    guest.write(at, OFFERED, Dword, u32::MAX);
    assert_eq!(guest.read(at, OFFERED, Dword), 0x1070);
    assert_eq!(hardware.story(), [""; 0]);
}

#[test]
fn a_mapped_bar_keeps_its_size() {
    for viewer in [Viewer::Guest, Viewer::Host] {
        let (guest, at, hardware) = plugged(&config(), viewer);
        guest.write(at, BAR0, Dword, 0xc010_0000);
        guest.write(at, COMMAND, Word, MEMORY);
        guest.write(at, CONTROL, Dword, 0x100);
        assert_eq!((guest.read(at, CONTROL, Dword), hardware.peek(CONTROL, Dword)), (0x20, 0x20));
        guest.write(at, COMMAND, Word, 0);
        guest.wiring.story();
        guest.write(at, CONTROL, Dword, 0x100);
        // The bit that is now below the size is gone.
        assert_eq!(guest.read(at, BAR0, Dword), 0xc000_000c);
        guest.write(at, COMMAND, Word, MEMORY);
        assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x200000"]);
    }
}

#[test]
fn hardware_that_does_not_follow_is_believed() {
    let hardware = Hardware::new(&config()).bar(BAR0, 0x10_0000);
    let function = PassThrough::new(Viewer::Guest).resizable().build(hardware).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    guest.write(at, CONTROL, Dword, 0x100);
    assert_eq!(guest.read(at, CONTROL, Dword), 0x20);
    assert_eq!(size(&guest, at), 1 << 20);
}

#[test]
fn the_table_of_msix_stays_inside() {
    // 2 MiB now, the table in the second one.
    let config = config().with32(CONTROL.into(), 0x0120).list(0x40).capability(0x40, 0x11, 0);
    let config = config.with32(0x44, 0x10_0000).with32(0x48, 0x1000);
    let hardware = Hardware::new(&config).bar(BAR0, 0x20_0000).resizes(CONTROL, BAR0);
    let function = PassThrough::new(Viewer::Guest).resizable().build(hardware).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    assert_eq!(guest.read(at, OFFERED, Dword), 0x1060, "1 MiB is too little");
    guest.write(at, CONTROL, Dword, 0);
    assert_eq!(size(&guest, at), 2 << 20);
}

#[test]
fn a_32_bit_bar_is_offered_2_gib_at_most() {
    let config = config().with32(BAR0.into(), 0xf000_0000).with32(OFFERED.into(), 0xffff_fff0);
    let (guest, at, _) = plugged(&config, Viewer::Guest);
    assert_eq!(guest.read(at, OFFERED, Dword), 0xfff0);
}

#[test]
fn a_reset_leaves_the_size_that_hardware_has() {
    let config = config().list(0x40).capability(0x40, 0x13, 0).with16(0x42, 0x0306);
    let (guest, at, hardware) = plugged(&config, Viewer::Guest);
    guest.write(at, CONTROL, Dword, 0x200);
    assert_eq!(size(&guest, at), 4 << 20);
    // It forgets the size when it is reset.
    hardware.poke(CONTROL, Dword, 0x120);
    guest.write(at, 0x44, pcidevs::platform::Width::Byte, 1);
    assert_eq!(guest.read(at, CONTROL, Dword), 0x120);
    assert_eq!(size(&guest, at), 2 << 20);
}

#[test]
fn a_size_is_saved_and_a_size_that_is_not_offered_is_not_restored() {
    let build =
        |hardware: &Hardware| PassThrough::new(Viewer::Guest).resizable().build(hardware.clone()).unwrap();
    let mut old = build(&hardware(&config()));
    assert!(old.config_write(CONTROL, Dword, 0x200).is_nothing());
    let state = old.save().unwrap();
    let other = hardware(&config());
    let mut new = build(&other);
    new.restore(&state).map(drop).unwrap();
    assert_eq!((new.config_read(CONTROL, Dword), other.peek(CONTROL, Dword)), (0x220, 0x220));

    // 4 MiB becomes 8, and a terabyte.
    let size = (4_u64 << 20).to_le_bytes();
    let at = state.windows(8).position(|bytes| bytes == size).unwrap();
    for size in [8_u64 << 20, 1 << 40, 0, 3] {
        let mut state = state.clone();
        state[at..at + 8].copy_from_slice(&size.to_le_bytes());
        let other = hardware(&config());
        let mut new = build(&other);
        new.restore(&state).map(drop).unwrap();
        assert_eq!((new.config_read(CONTROL, Dword), other.peek(CONTROL, Dword)), (0x20, 0x20), "{size:#x}");
    }
}

#[test]
fn one_that_makes_no_sense_is_hidden_and_the_host_cannot_write_it() {
    let cases = [
        ("no BAR", config().with32(CONTROL.into(), 0)),
        ("seven BARs", config().with32(CONTROL.into(), 0xe0)),
        ("BAR 7", config().with32(CONTROL.into(), 0x27)),
        ("a BAR that is none", config().with32(CONTROL.into(), 0x24)),
        ("a size that it does not offer", config().with32(OFFERED.into(), 0x60)),
        ("a BAR twice", config().with32(CONTROL.into(), 0x40).with32(0x20c, 0x70).with32(0x210, 0)),
        ("over another", config().extended(AT, 0x15, 1, 0x208).with32(0x208, 0x0001_0020)),
    ];
    for (what, config) in cases {
        let (guest, at, _) = plugged(&config, Viewer::Guest);
        assert_eq!(Walker::new(&guest).extended_capabilities(at), [], "{what}");
        let (guest, at, hardware) = plugged(&config, Viewer::Host);
        let shown = Walker::new(&guest).extended_capabilities(at);
        assert!(shown.iter().all(|(_, id)| *id != 0x15), "{what}: {shown:x?}");
        if what != "over another" {
            guest.write(at, CONTROL, Dword, 0x100);
            assert_eq!(hardware.story(), [""; 0], "{what}");
        }
    }
}
